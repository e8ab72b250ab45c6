# Two commands on a fresh machine: `make gate` and `make test`. Both set up .venv if need be.
PYTHON ?= python3
PY := .venv/bin/python
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup gate test lint test-wheel faults bench docs clean

gate: setup
	@$(PY) -m ris_diag gate

test: setup lint
	$(PY) -m pytest -n 2

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@echo "setting up .venv (once, about a minute)"
	@$(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

lint: setup
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

# The suite against the built wheel, from another folder, without what takes long.
test-wheel: setup
	$(PY) tests/wheel.py -m "not slow"

# The NMSE kernel against its baseline, its candidates and the memory limit, the cost of watching;
# keeps JSON. On a GPU: make bench BENCH=--gpu
bench: setup
	$(PY) -m pytest tests/bench/bench_nmse.py tests/bench/bench_nmse_forms.py tests/bench/bench_observer.py -q -s -p no:randomly -p no:xdist --benchmark-only \
		--benchmark-autosave --benchmark-columns=median $(BENCH)

# Every check on every planted fault and healthy training, with ten seeds: what is found, named, placed.
faults: setup
	$(PY) -m tests.faults.matrix $(FAULTS)

docs: setup
	$(PY) -m ris_diag.pages
	$(PY) -m tests.faults.reports
	$(PY) -m tests.docs.api

clean:
	rm -rf .venv .nox dist .mypy_cache .pytest_cache .ruff_cache .ris-diag .benchmarks
