"""Where the extra isn't installed, its tests are left out: pip install 'ris-diag[hpo]'."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.search.postgres import Server, binaries

if find_spec("optuna") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hpo"


@pytest.fixture
def server() -> Iterator[Server]:
    path = binaries()
    if path is None:
        pytest.skip("PostgreSQL isn't installed: apt-get install postgresql")
    started = Server(path)
    started.start()
    yield started
    started.close()
