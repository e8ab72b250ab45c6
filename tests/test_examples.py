"""Small projects as users write them go through every door without a false alarm."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import ris_diag
from ris_diag.cli import main

EXAMPLES = Path(__file__).parent / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/case.py"))
LEARNING = {"L001", "L008", "L009"}  # what every training with batches of its own unlocks
WATCHED = {"L011", "L013"}  # what a script unlocks, too
DOORS = {
    "parametrize_with_checks": (),
    "fixture": ("--pyargs", "pytest_ris.suite"),
    "option": ("--pyargs", "pytest_ris.suite", "--ris-case=case:my_case"),
}


@pytest.fixture(scope="session", autouse=True)
def _optimiser_loaded() -> None:
    """Torch imports modules at the first step; pytester would unload them and they load once."""
    model = torch.nn.Linear(1, 1)
    model(torch.ones(1, 1)).sum().backward()
    torch.optim.Adam(model.parameters()).step()
    ris_diag.run(ris_diag.Case(name="warm", model=torch.nn.Identity, batch=min, loss=min))


@pytest.fixture(params=NAMES)
def example(
    request: pytest.FixtureRequest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A copy of an example's folder to work in."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -p no:benchmark -p no:cacheprovider")
    shutil.copytree(EXAMPLES / request.param, pytester.path, dirs_exist_ok=True)
    return pytester


def assert_healthy(statuses: dict[str, str], project: pytest.Pytester) -> None:
    """No alarm, and not for want of checks."""
    assert set(statuses.values()) == {"pass", "skip"}
    passed = {check for check, status in statuses.items() if status == "pass"}
    assert passed >= (WATCHED if project.path.joinpath("train.py").exists() else LEARNING | WATCHED)


def through_pytest(example: pytest.Pytester, *options: str) -> None:
    result = example.runpytest_inprocess(*options, "--ris-json=out.json")
    assert result.ret == 0, result.stdout.str()
    report = json.loads((example.path / "out.json").read_text())
    assert_healthy({entry["id"]: entry["status"] for entry in report["results"]}, example)


@pytest.mark.parametrize("door", DOORS)
def test_pytest(example: pytest.Pytester, door: str) -> None:
    through_pytest(example, *DOORS[door])


@pytest.mark.slow
def test_pytest_with_two_workers(example: pytest.Pytester) -> None:
    through_pytest(example, "-n2", "--pyargs", "pytest_ris.suite", "test_training.py")


def test_notebook(example: pytest.Pytester) -> None:
    example.syspathinsert(example.path)
    report = ris_diag.run(importlib.import_module("case").my_case())
    assert report.ok
    assert_healthy({result.id: result.status for result in report.results}, example)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "case"),
    [("bare_loop", "case:my_case"), ("script", "train.py")],
    indirect=["example"],
)
def test_command_line_by_itself(example: pytest.Pytester, case: str) -> None:
    command = (sys.executable, "-m", "ris_diag", "check", "-v", f"--case={case}")
    result = example.run(*command, "--select=guard,litmus")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["pass  L013 *"])


def test_command_line(example: pytest.Pytester) -> None:
    result = CliRunner().invoke(main, ["check", "--case=case:my_case", "--json=out.json"])
    assert result.exit_code == 0, result.output
    report = json.loads((example.path / "out.json").read_text())
    assert_healthy({entry["id"]: entry["status"] for entry in report["results"]}, example)


@pytest.mark.parametrize("example", ["script"], indirect=True)
@pytest.mark.parametrize("target", ["train.py", "train:main"])
def test_script_without_a_factory(example: pytest.Pytester, target: str) -> None:
    through_pytest(example, "--pyargs", "pytest_ris.suite", f"--ris-case={target}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "module"),
    [("bare_loop", "training.py"), ("script", "train.py")],
    indirect=["example"],
)
def test_the_users_code_runs_without_the_toolkit(example: pytest.Pytester, module: str) -> None:
    result = example.runpython(example.path / module)
    assert result.ret == 0
    assert len([line for line in result.errlines if "epoch" in line]) >= 10


def test_examples_are_complete() -> None:
    assert len(NAMES) == 6
    for name in NAMES:
        files = {path.name for path in (EXAMPLES / name).iterdir()}
        assert files >= {"case.py", "conftest.py", "pyproject.toml", "test_training.py"}
        assert len((EXAMPLES / name / "case.py").read_text().splitlines()) <= 26
