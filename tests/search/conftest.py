"""Where the extra isn't installed, what needs it is skipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search.postgres import Server, binaries

pytest.importorskip("optuna", reason="needs pip install 'ris-diag[hpo]'")


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
