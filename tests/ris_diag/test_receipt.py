"""The receipt of a gate: valid for the code that it was made for, and closed in every doubt."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import ris_diag
from ris_diag import check, receipt
from ris_diag.check import all_checks
from ris_diag.cli import main
from ris_diag.fingerprint import differences, fingerprint
from ris_diag.gate import READY, Verdict
from ris_diag.imports import source_files
from ris_diag.receipt import problems_of, write_receipt
from ris_diag.result import Report, Result

TARGET = "training_of_mine:case"
CASE = """\
import ris_diag


def case():
    from layers_of_mine import width

    return ris_diag.Case(name="mine", declared=ris_diag.Declared(learning_rate=0.1 * width))


twin = case
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a case and a module that it imports inside of a function."""
    (tmp_path / "training_of_mine.py").write_text(CASE)
    (tmp_path / "layers_of_mine.py").write_text("width = 1\n")
    (tmp_path / "unused_of_mine.py").write_text("width = 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("training_of_mine", "layers_of_mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def passed(**changed: Any) -> list[Result]:
    """A pass of every check; `changed` gives the status of some by ID."""
    return [
        Result(
            id=entry.id,
            slug=entry.slug,
            family=entry.family,
            title=entry.title,
            status=changed.get(entry.id, "pass"),
        )
        for entry in all_checks()
    ]


def verdict(results: list[Result], *, complete: bool = True) -> Verdict:
    report = Report(
        case="mine", device="cpu", seed=0, versions={}, results=results, complete=complete
    )
    return Verdict(ready=True, text=READY, report=report)


def written(results: list[Result] | None = None, *, complete: bool = True) -> Path:
    path = Path("receipt.json")
    given = passed() if results is None else results
    write_receipt(path, verdict(given, complete=complete), fingerprint(TARGET))
    return path


def problems(path: Path, **options: Any) -> list[str]:
    return problems_of(path, **{"target": TARGET, "device": "cpu", **options})


# ---- valid, and what closes it


def test_a_receipt_is_valid_for_the_code_that_it_was_made_for() -> None:
    assert problems(written()) == []
    assert problems(written(), max_age=timedelta(hours=1)) == []


def test_the_code_is_what_the_case_imports() -> None:
    names = [path.name for path in source_files(TARGET)]
    assert names == ["layers_of_mine.py", "training_of_mine.py"]
    known = fingerprint(TARGET)
    assert list(known["sources"]) == names
    assert known["configuration"]["declared"]["learning_rate"] == 0.1
    assert known["versions"]["ris_diag"] == ris_diag.__version__
    json.dumps(known)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("layers_of_mine.py", "width = 1  # as it was\n", "changed: layers_of_mine.py"),
        ("training_of_mine.py", "import unused_of_mine\n" + CASE, "new: unused_of_mine.py"),
        (
            "training_of_mine.py",
            CASE.replace("from layers_of_mine import width", "width = 1"),
            "gone: layers_of_mine.py",
        ),
    ],
)
def test_other_code_closes_it(file: str, text: str, said: str) -> None:
    path = written()
    Path(file).write_text(text)
    (problem,) = problems(path)
    assert problem.startswith("other sources (")
    assert said in problem


def test_a_file_beside_it_does_not() -> None:
    path = written()
    Path("unused_of_mine.py").write_text("width = 3\n")
    assert problems(path) == []


def test_other_configuration_versions_and_device_are_named_at_once() -> None:
    then = fingerprint(TARGET)
    now = {
        **then,
        "configuration": {**then["configuration"], "exempt": {"M008": "on purpose"}},
        "versions": {**then["versions"], "torch": "2.6.0"},
        "target": "another:case",
        "device": "cuda:0",
        "git": {"commit": "another", "dirty": True},
    }
    was = then["versions"]["torch"]
    assert differences(then, now) == [
        "other configuration (new: exempt.M008)",
        f"other versions (changed: torch, {was!r} then, '2.6.0' now)",
        f"other target (made for {TARGET}, asked for another:case)",
        "other device (made for cpu, asked for cuda:0)",
    ]


@pytest.mark.parametrize("name", ["python", "torch", "numpy", "ris_diag"])
def test_every_version_closes_it(name: str) -> None:
    then = fingerprint(TARGET)
    older = {**then, "versions": {**then["versions"], name: "0.0.1"}}
    (said,) = differences(older, then)
    now = then["versions"][name]
    assert said == f"other versions (changed: {name}, '0.0.1' then, {now!r} now)"


def test_other_checks_close_it() -> None:
    then = fingerprint(TARGET)
    older = {**then, "versions": {**then["versions"], "ris_diag's files": "of old"}}
    assert differences(older, then) == ["other versions (changed: ris_diag's files)"]


def test_another_case_of_the_same_name_in_the_same_file_is_another() -> None:
    path = written()
    assert problems(path, target="training_of_mine:twin") == [
        f"other target (made for {TARGET}, asked for training_of_mine:twin)"
    ]


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], "no check was run"),
        (passed()[1:], "the gate was closed: 1 check did not run"),
        (passed(G001="fail"), "the gate was closed: G001 not passed"),
        (passed(L009="error"), "the gate was closed: L009 not passed"),
        (passed(L001="skip"), "the gate was closed: L001 does not apply"),
    ],
)
def test_results_that_open_no_gate_close_it(results: list[Result], said: str) -> None:
    found = problems(written(results))
    assert len(found) == 1
    assert found[0].startswith(said)


def test_a_run_that_did_not_end_closes_it() -> None:
    said = ["the gate is still at work, or didn't come to its end"]
    assert problems(written(complete=False)) == said


def test_results_of_checks_that_are_gone_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = written()
    monkeypatch.delitem(check._REGISTRY, "L075")
    assert problems(path) == ["it has results of checks that this version doesn't know"]


def test_age_and_clocks_close_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path = written()
    made = datetime.now(UTC)

    class Clock(datetime):
        shift = timedelta()

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return made + cls.shift

    monkeypatch.setattr(receipt, "datetime", Clock)
    Clock.shift = timedelta(hours=30)
    (problem,) = problems(path, max_age=timedelta(days=1))
    assert problem.endswith("30 h ago (at most 24 h)")
    assert problems(path) == []
    Clock.shift = timedelta(hours=-2)
    (problem,) = problems(path)
    assert "is yet to come: the clock of a machine is wrong" in problem


def test_no_file_no_receipt_and_no_case(tmp_path: Path) -> None:
    assert problems(Path("missing.json")) == ["missing.json: No such file or directory"]
    Path("report.json").write_text("{}\n")
    assert problems(Path("report.json")) == ["report.json: no receipt of a gate"]
    (problem,) = problems(written(), target="nowhere:case")
    assert "nowhere does not import" in problem


# ---- what was changed since


def changed(text: str, change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(text)
    change(content)
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def edit(content: dict[str, Any], data: st.DataObject) -> None:
    """Remove or change a value somewhere in it."""
    place: Any = content
    while True:
        key = data.draw(
            st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place)))
        )
        inner = place[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            place = inner
            continue
        if data.draw(st.booleans()):
            del place[key]
        else:
            others: list[Any] = [None, "pass", True, False, 0, 1.5, [], {}, READY]
            other = data.draw(st.sampled_from([v for v in others if repr(v) != repr(inner)]))
            place[key] = other
        return


def test_no_changed_receipt_is_accepted() -> None:
    good = written().read_text()
    raw = good.encode()

    @settings(max_examples=200, deadline=None)
    @given(data=st.data())
    def closed(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(["byte", "cut", "edited", "more"]))
        if kind == "byte":
            at = data.draw(st.integers(0, len(raw) - 1))
            other = data.draw(st.integers(0, 255).filter(lambda value: value != raw[at]))
            bad = raw[:at] + bytes([other]) + raw[at + 1 :]
        elif kind == "cut":
            bad = raw[: data.draw(st.integers(0, len(raw) - 1))]
        elif kind == "more":
            bad = raw + data.draw(st.sampled_from([b" ", b"\n", b"{}", b"\x00"]))
        else:
            bad = changed(good, lambda content: edit(content, data))
        Path("bad.json").write_bytes(bad)
        assert problems(Path("bad.json"))

    closed()


# ---- writing it


def test_a_full_disk_leaves_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    path = written()
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        written(passed(G001="fail"))
    assert path.read_bytes() == before
    assert not list(Path().glob(".receipt*"))


def test_a_kill_while_it_is_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = written()
    killed = (
        "import os, signal\n"
        "from ris_diag.result import write_atomically\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically('receipt.json', 'half of it')\n"
    )
    done = subprocess.run([sys.executable, "-c", killed], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert problems(path) == []
    assert problems(written()) == []


# ---- the command line


def test_verify_says_what_differs() -> None:
    path = written()
    run = CliRunner().invoke(main, ["verify", str(path), "--case", TARGET])
    assert (run.exit_code, run.output) == (0, f"receipt.json: valid for {TARGET} on cpu\n")
    Path("layers_of_mine.py").write_text("width = 2\n")
    run = CliRunner().invoke(main, ["verify", str(path), "--case", TARGET])
    assert run.exit_code == 1
    assert run.output.startswith("receipt.json: not valid\n  other sources (changed: layers_of")
    run = CliRunner().invoke(main, ["verify", str(path), "--case", TARGET, "--max-age", "soon"])
    assert run.exit_code == 2
    assert "--max-age soon: expected a number and m, h or d, as 24h" in run.output


def test_a_closed_gate_writes_a_receipt_that_is_closed() -> None:
    run = CliRunner().invoke(main, ["gate", "--case", TARGET, "--receipt", "closed.json"])
    assert run.exit_code == 1
    found = problems(Path("closed.json"))
    assert found
    assert all(line.startswith("the gate was closed: ") for line in found)
    run = CliRunner().invoke(main, ["gate", "--case", TARGET, "--receipt", "nowhere/it.json"])
    assert run.exit_code == 2
    assert "--receipt nowhere/it.json: expected a file in a folder that exists" in run.output
