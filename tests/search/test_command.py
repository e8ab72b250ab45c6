"""`ris-diag hpo`: what it asks for, what it refuses, what it says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner, Result

from ris_diag import fingerprint, receipt
from ris_diag.cli import main
from ris_diag.search.storage import Store
from ris_diag.search.study import WITHOUT_GATE

ROOT = Path(__file__).resolve().parents[2]
SPACE = "learning_rate = { low = 1e-3, high = 1e-1, log = true }\nmomentum = [0.0, 0.5, 0.9]\n"
FEW = ("--n-trials", "2", "--epochs-per-trial", "2", "--early-stop-patience", "2")


def hpo(folder: Path, *args: str, case: str = "tests.search.tiny:tiny") -> Result:
    space = folder.parent / "space.toml"
    space.write_text(SPACE)
    options = ["--case", case, "--folder", str(folder), "--space", str(space)]
    return CliRunner().invoke(main, ["hpo", *options, *args])


def code_of(digest: str) -> dict[str, Any]:
    return {"sources": {"model.py": digest}, "configuration": {}, "versions": {}}


@pytest.fixture
def valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipt, "problems_of", lambda path, **asked: [])
    monkeypatch.setattr(fingerprint, "fingerprint", lambda target: code_of("1"))


def test_without_a_valid_receipt_it_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def problems(path: Path, target: str, device: str, signers: Path) -> list[str]:
        asked.append((path.name, target, device, signers.name))
        return ["model/loss.py differs", "older than 7 days"]

    monkeypatch.setattr(receipt, "problems_of", problems)
    result = hpo(folder, *FEW, "--receipt", "r.json", "--signers", "allowed")
    assert result.exit_code == 2
    assert asked == [("r.json", "tests.search.tiny:tiny", "cpu", "allowed")]
    assert (
        "no valid receipt for tests.search.tiny:tiny: model/loss.py differs; older than 7 days. "
        "Run `ris-diag gate --receipt r.json` first, or give --without-gate REASON" in result.output
    )
    assert not folder.exists()


def test_an_empty_reason_is_none(folder: Path) -> None:
    result = hpo(folder, *FEW, "--without-gate", " ")
    assert result.exit_code == 2
    assert "--without-gate needs a reason" in result.output


@pytest.mark.slow
def test_a_search_without_gate_is_loud_and_keeps_the_reason(folder: Path) -> None:
    result = hpo(folder, *FEW, "--without-gate", "trying the command")
    assert result.exit_code == 0, result.output
    assert "WITHOUT GATE: trying the command." in result.output
    assert "the same to the digit" in result.output
    study = optuna.load_study(study_name="tiny-space", storage=Store(None, folder).storage)
    assert study.user_attrs[WITHOUT_GATE] == "trying the command"
    assert json.loads((folder / "best.json").read_text())["value"] == study.best_value


@pytest.mark.slow
@pytest.mark.usefixtures("valid")
def test_another_objective_is_refused_with_what_differs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hpo(folder, *FEW).exit_code == 0
    monkeypatch.setattr(fingerprint, "fingerprint", lambda target: code_of("2"))
    result = hpo(folder, *FEW, "--seed", "0", "--epochs-per-trial", "3")
    assert result.exit_code == 2
    assert "study 'tiny-space' is about something else: " in result.output
    assert "epochs per trial: 2 then, 3 now" in result.output
    assert 'code, sources.model.py: "1" then, "2" now' in result.output


@pytest.mark.usefixtures("valid")
def test_a_corner_that_breaks_is_told_before_the_first_trial(folder: Path) -> None:
    (folder.parent / "own.toml").write_text('kind = ["none", "raises"]')
    args = ("--space", str(folder.parent / "own.toml"))
    result = hpo(folder, *FEW, *args, case="tests.search.tiny:breaking")
    assert result.exit_code == 2
    assert "corner 'all high' (kind='raises'): L001" in result.output
    assert "no such layer" in result.output
    assert not list((folder / "trials").iterdir())


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    args = ("--folder", str(tmp_path / "file" / "hpo"), "--without-gate", "a test")
    result = hpo(tmp_path / "hpo", *FEW, *args)
    assert result.exit_code == 2
    assert "Not a directory" in result.output


@pytest.mark.parametrize("spelled", ["--n_trials", "--n-trials"])
def test_the_notes_spelling_works_too(folder: Path, spelled: str) -> None:
    result = hpo(folder, spelled, "0")
    assert result.exit_code == 2
    assert "0 is not in the range x>=1" in result.output


def test_the_module_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ris_diag.hpo", "--help"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    for option in ("n-trials", "epochs-per-trial", "space", "early-stop-patience", "without-gate"):
        assert f"--{option}" in done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import ris_diag, ris_diag.cli, pytest_ris.plugin",
        "from click.testing import CliRunner; from ris_diag.cli import main; "
        "assert CliRunner().invoke(main, ['list']).exit_code == 0",
    ],
)
def test_nothing_else_imports_optuna(code: str) -> None:
    probe = f"import sys; {code}; sys.exit(sorted({{'optuna', 'sqlalchemy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "[]\n")


def test_the_probe_for_optuna_can_fail() -> None:
    probe = "import sys, optuna; sys.exit(sorted({'optuna'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stderr == "['optuna']\n"
