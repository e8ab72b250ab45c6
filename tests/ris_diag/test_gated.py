"""A gate that leaves a receipt: closed until it has come to its end, whatever ends it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ris_diag import check as registry
from ris_diag import commands, fingerprint, gated, target
from ris_diag.cli import main
from ris_diag.context import Context
from ris_diag.receipt import default_receipt, problems_of

CASE = """\
import os, signal, ris_diag
from helper_of_gate import name
from torch import nn


def model():
    {ends}
    return nn.Linear(2, 1)


def case():
    return ris_diag.Case(name=name, model=model, batch=min, loss=min)
"""
TARGET = "case_of_gate:case"
DEFAULT = Path(".ris-diag/receipt.json")
AT_WORK = ["the gate is still at work, or didn't come to its end"]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "case_of_gate.py").write_text(CASE.format(ends="pass"))
    (tmp_path / "helper_of_gate.py").write_text("name = 'mine'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("case_of_gate", "helper_of_gate"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check applies to every case and passes."""
    for entry in registry.all_checks():
        let_through = replace(entry, needs=(), function=lambda context: None)
        monkeypatch.setitem(registry._REGISTRY, entry.id, let_through)


def make(monkeypatch: pytest.MonkeyPatch, function: Any) -> None:
    """A check that does something to the project while the gate runs."""
    entry = replace(registry.get_check("L001"), function=function)
    monkeypatch.setitem(registry._REGISTRY, "L001", entry)


def ris_diag(command: str, *options: str) -> Result:
    return CliRunner().invoke(main, [command, "--case", TARGET, *options])


def problems(path: Path = DEFAULT) -> list[str]:
    return problems_of(path, target=TARGET, device="cpu")


@pytest.mark.usefixtures("easy")
def test_without_options_it_lies_in_the_project(project: Path) -> None:
    (project / "pyproject.toml").write_text(f'[tool.ris-diag]\ncase = "{TARGET}"\n')
    run = CliRunner().invoke(main, ["gate"])
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines()[-1] == "receipt: .ris-diag/receipt.json"
    assert sorted(path.name for path in DEFAULT.parent.iterdir()) == [".gitignore", "receipt.json"]
    assert DEFAULT.with_name(".gitignore").read_text() == "*\n"
    run = CliRunner().invoke(main, ["verify"])
    assert run.output == f".ris-diag/receipt.json: valid for {TARGET} on cpu\n"


@pytest.mark.usefixtures("easy")
def test_the_project_is_the_same_from_a_folder_inside_of_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "pyproject.toml").touch()
    assert ris_diag("gate").exit_code == 0
    (project / "inside").mkdir()
    monkeypatch.chdir(project / "inside")
    assert default_receipt() == project / DEFAULT
    assert ris_diag("verify").exit_code == 0


@pytest.mark.usefixtures("easy")
def test_git_does_not_see_the_receipt_and_what_it_sees_is_told(project: Path) -> None:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=True)
        return done.stdout

    git("init", "-q")
    (project / ".gitignore").write_text("__pycache__\n")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "first")
    assert ris_diag("gate").exit_code == 0
    assert git("status", "--porcelain", "--", ".ris-diag") == ""
    (project / "NEWS").touch()
    first = git("rev-parse", "HEAD")[:12]
    run = ris_diag("verify")
    assert run.exit_code == 0
    assert run.output.splitlines()[1:] == [
        f"  made at commit {first}, now at commit {first} with changes"
    ]


@pytest.mark.usefixtures("easy")
def test_the_case_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(name: str) -> Any:
        loaded.append(name)
        return load_case(name)

    load_case = target.load_case
    monkeypatch.setattr(target, "load_case", load)
    monkeypatch.setattr(fingerprint, "load_case", load)
    assert ris_diag("gate").exit_code == 0
    assert loaded == [TARGET]


@pytest.mark.usefixtures("easy")
def test_only_rank_0_takes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object, **__: object) -> None:
        raise AssertionError("it was taken")

    for name in ("hashes", "fingerprint"):
        monkeypatch.setattr(fingerprint, name, taken)
        monkeypatch.setattr(gated, name, taken)
    assert isinstance(ris_diag("gate").exception, AssertionError)
    monkeypatch.setattr(commands, "speaks_another", lambda: True)
    assert ris_diag("gate").exit_code == 0
    assert not DEFAULT.exists()


@pytest.mark.usefixtures("easy")
@pytest.mark.parametrize("file", ["case_of_gate.py", "helper_of_gate.py"])
def test_a_file_that_changes_meanwhile_closes_it(
    file: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (project / file).read_text()

    def edit(context: Context) -> None:
        (project / file).write_text(before + "# now\n")

    make(monkeypatch, edit)
    run = ris_diag("gate")
    assert run.exit_code == 1
    said = f"NOT READY: changed while the gate ran: {file}"
    assert said in run.stdout.splitlines()
    (project / file).write_text(before)
    assert problems() == [f"the gate was closed: {said}"]


@pytest.mark.usefixtures("easy")
def test_a_file_that_changes_while_the_case_is_loaded_closes_it(project: Path) -> None:
    edits = "name = 'mine'\nimport pathlib\npathlib.Path(__file__).write_text('name = 1')\n"
    (project / "helper_of_gate.py").write_text(edits)
    run = ris_diag("gate")
    assert "NOT READY: changed while the gate ran: helper_of_gate.py" in run.stdout.splitlines()


@pytest.mark.usefixtures("easy")
def test_a_folder_that_can_not_be_written_is_known_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkstemp", full)
    run = ris_diag("gate")
    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr == (
        "Error: the receipt .ris-diag/receipt.json: No space left on device; --receipt FILE names "
        "another place\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("os._exit(0)", 0),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_a_gate_that_dies_in_a_check_leaves_a_closed_receipt(
    ends: str, code: int, project: Path, easy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "case_of_gate.py").write_text(CASE.format(ends=ends))
    assert ris_diag("gate").exit_code == 0
    assert problems() == []  # the receipt of yesterday
    gate = [sys.executable, "-m", "ris_diag", "gate", "--case", TARGET]
    done = subprocess.run(gate, capture_output=True, check=False)
    assert done.returncode == code
    assert problems() == AT_WORK
    run = ris_diag("verify")
    assert (run.exit_code, run.stdout.splitlines()[1:]) == (1, [f"  {AT_WORK[0]}"])


@pytest.mark.slow
def test_two_gates_at_once_leave_the_whole_receipt_of_one() -> None:
    command = [sys.executable, "-m", "ris_diag", "gate", "--case", TARGET, "--receipt", "r.json"]
    gates = [
        subprocess.Popen([*command, "--seed", seed], stdout=subprocess.PIPE) for seed in ("1", "2")
    ]
    seen = set()
    while any(gate.poll() is None for gate in gates):
        if Path("r.json").exists():
            seen.add("; ".join(problems(Path("r.json")))[:20])
        time.sleep(0.2)
    for gate in gates:
        gate.communicate()
        assert gate.returncode == 1
    assert seen <= {AT_WORK[0][:20], "the gate was closed:"}
    report = json.loads(Path("r.json").read_text())["report"]
    assert report["complete"]
    assert report["seed"] in (1, 2)
    assert [path.name for path in Path().glob("*r.json*")] == ["r.json"]
