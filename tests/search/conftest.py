"""Where the extra isn't installed, what needs it is skipped."""

from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="needs pip install 'ris-diag[hpo]'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "hpo"
