"""Ctrl-C and SIGTERM, at any moment: a report of what was found so far, and the exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ris_diag import result as results
from ris_diag.cli import main
from tests.expected import COUNT

ROOT = Path(__file__).resolve().parents[2]
CASES = """\
import os
import signal

import ris_diag
import tiny


def stopped_by(number):
    def fit(model, plan):
        os.kill(os.getpid(), number)
        return tiny.fit(model, plan)

    return tiny.make("stopped", fit=fit)


def by_ctrl_c():
    return stopped_by(signal.SIGINT)


def by_sigterm():
    return stopped_by(signal.SIGTERM)


def raising():
    def fit(model, plan):
        raise KeyboardInterrupt

    return tiny.make("raising", fit=fit)


def swallowing():
    def fit(model, plan):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            pass
        return tiny.fit(model, plan)

    return tiny.make("swallowing", fit=fit)


def while_loading():
    os.kill(os.getpid(), signal.SIGINT)
    return tiny.learns()


def loading_swallowed():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        raise ValueError("no data")


def learns():
    return tiny.learns()
"""
CHECKS = "--select=D001,L009,L011"  # the first runs no loop
PLUGIN_CHECKS = "--ris-select=D001,L009,L011"
REASON = "interrupted after 1 of 3 checks, in L009"


@pytest.fixture(autouse=True)
def _cases(project: pytest.Pytester) -> Iterator[None]:
    project.makepyfile(stops=CASES)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def read(project: pytest.Pytester) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((project.path / "out.json").read_text())
    return report


# ---- the command line


@pytest.mark.parametrize(
    ("case", "code"),
    [("by_ctrl_c", 130), ("by_sigterm", 143), ("swallowing", 130), ("raising", 130)],
)
def test_a_check_at_work(project: pytest.Pytester, case: str, code: int) -> None:
    told = CliRunner().invoke(main, ["check", f"--case=stops:{case}", CHECKS, "--json=out.json"])
    assert told.exit_code == code, told.output
    lines = told.stdout.splitlines()
    assert lines[0] == f"{REASON} one-step-a-batch: no verdict"
    assert lines[3].split()[0] == "data"
    assert told.stderr == ""
    report = read(project)
    assert (report["complete"], report["ok"]) == (False, False)
    assert [entry["id"] for entry in report["results"]] == ["D001"]


@pytest.mark.parametrize("case", ["while_loading", "loading_swallowed"])
@pytest.mark.parametrize("command", ["check", "gate"])
def test_a_case_being_loaded(project: pytest.Pytester, command: str, case: str) -> None:
    told = CliRunner().invoke(main, [command, f"--case=stops:{case}", "--json=out.json"])
    assert told.exit_code == 130
    assert told.stdout == (
        f"interrupted before the first check, while stops:{case} was loaded: no verdict\n"
    )
    report = read(project)
    assert (report["complete"], report["results"]) == (False, [])


def test_the_gate_says_of_how_many() -> None:
    told = CliRunner().invoke(main, ["gate", "--case=stops:by_ctrl_c"])
    assert told.exit_code == 130
    first = told.stdout.splitlines()[0]
    assert first.startswith("interrupted after ")
    assert f" of {COUNT} checks, in " in first


def test_a_report_being_written_is_finished(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = results.write_atomically

    def interrupted(path: str | Path, text: str) -> None:
        signal.raise_signal(signal.SIGINT)
        write(path, text)

    monkeypatch.setattr(results, "write_atomically", interrupted)
    told = CliRunner().invoke(main, ["check", "--case=stops:learns", CHECKS, "--json=out.json"])
    assert told.exit_code == 130
    assert told.stdout.startswith(f"3 pass; no verdict: {COUNT - 3} checks")
    assert "interrupted" not in told.stdout
    assert read(project)["complete"] is True


def test_a_quiet_run_says_it_too() -> None:
    told = CliRunner().invoke(main, ["check", "-q", "--case=stops:by_ctrl_c", CHECKS])
    assert told.stdout == f"{REASON} one-step-a-batch: no verdict\n"


# ---- pytest


@pytest.mark.parametrize("case", ["by_ctrl_c", "swallowing"])
def test_a_test_at_work(project: pytest.Pytester, case: str) -> None:
    result = project.runpytest_inprocess(
        f"--ris-case=stops:{case}", PLUGIN_CHECKS, "--ris-json=out.json"
    )
    assert result.ret == 130
    result.stdout.fnmatch_lines([f"{REASON}-one-step-a-batch-cpu: no verdict", "", "data *"])
    report = read(project)
    assert report["complete"] is False
    assert [entry["id"] for entry in report["results"]] == ["D001"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_case_being_loaded_by_pytest(project: pytest.Pytester) -> None:
    options = ("--ris-case=stops:while_loading", "--ris-json=out.json")
    result = project.runpytest_inprocess(*options)
    assert result.ret == 130
    assert "interrupted while the case was loaded" in result.stderr.str()
    assert read(project)["complete"] is False


def test_between_two_tests_and_while_pytest_reports(project: pytest.Pytester) -> None:
    """What it does itself is finished; the next test doesn't begin."""
    project.makeconftest(
        """
        import os, signal

        def pytest_runtest_makereport(item, call):
            if call.when == "call" and "L009" in item.nodeid:
                os.kill(os.getpid(), signal.SIGINT)
        """
    )
    options = ("--ris-case=stops:learns", PLUGIN_CHECKS, "--ris-json=out.json")
    result = project.runpytest_inprocess(*options)
    assert result.ret == 130
    result.stdout.fnmatch_lines(["interrupted after 2 of 3 checks: no verdict"])
    assert [entry["id"] for entry in read(project)["results"]] == ["D001", "L009"]


def test_a_summary_being_written_is_finished(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        import os, signal

        def pytest_terminal_summary():
            os.kill(os.getpid(), signal.SIGINT)
        """
    )
    options = ("--ris-case=stops:learns", PLUGIN_CHECKS, "--ris-json=out.json")
    result = project.runpytest_inprocess(*options)
    assert result.ret == 130
    result.stdout.fnmatch_lines([f"3 pass; no verdict: {COUNT - 3} checks did not run"])
    assert read(project)["complete"] is True


def test_what_pytest_ends_by_itself_is_no_interruption(project: pytest.Pytester) -> None:
    options = ("--ris-case=tiny:frozen", "--ris-select=L009,L011", "--ris-json=out.json")
    result = project.runpytest_inprocess("-x", *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    project.makepyfile(test_other="import nothing_of_this_name")
    result = project.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_without_checks_the_exit_code_is_pytests(project: pytest.Pytester) -> None:
    project.makepyfile(test_suite="def test_own(): raise KeyboardInterrupt")
    result = project.runpytest_inprocess(no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "ris-diag ==" not in result.stdout.str()


# ---- real processes


class Process:
    """A process in a group of its own, as a shell starts it, whose marks are files."""

    def __init__(self, *command: str, folder: Path) -> None:
        self.folder = folder
        self.started = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, mark: str) -> None:
        deadline = time.monotonic() + 300
        while not (self.folder / mark).exists():
            if self.started.poll() is not None or time.monotonic() > deadline:
                self.started.kill()
                pytest.fail(f"{mark}: {self.started.communicate()}")
            time.sleep(0.02)

    def send(self, number: int = signal.SIGINT) -> None:
        os.killpg(self.started.pid, number)

    def told(self) -> tuple[int, str, str]:
        out, err = self.started.communicate(timeout=300)
        return self.started.returncode, out, err


# In place of torch, so that the moment is known: it says when it is being imported.
SLOW_IMPORT = """\
import pathlib, time
try:
    pathlib.Path("begun").touch()
    time.sleep(300)
finally:
    pathlib.Path("ending").touch()
    {then}
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_while_pytorch_is_imported(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "torch.py").write_text(SLOW_IMPORT.format(then=""))
    command = ("-m", "ris_diag", "check", "--case=nowhere:case", "--json=out.json")
    process = Process(*command, folder=tmp_path)
    process.wait_for("begun")
    process.send(number)
    assert process.told() == (
        code,
        "interrupted before the first check, while PyTorch was imported: no verdict\n",
        "",
    )
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["complete"], report["results"]) == (False, [])
    assert report["versions"]["torch"]


def test_a_second_one_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(SLOW_IMPORT.format(then="time.sleep(300)"))
    process = Process("-m", "ris_diag", "gate", "--case=nowhere:case", folder=tmp_path)
    process.wait_for("begun")
    process.send()
    process.wait_for("ending")
    process.send()
    assert process.told() == (130, "", "")


def test_a_command_without_checks(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(SLOW_IMPORT.format(then=""))
    process = Process("-m", "ris_diag", "list", folder=tmp_path)
    process.wait_for("begun")
    process.send()
    assert process.told() == (130, "", "interrupted: no verdict\n")


SLOW_CASE = """\
import pathlib, time
import tiny

def case():
    def fit(model, plan):
        pathlib.Path("begun").touch()
        time.sleep(300)

    return tiny.make("slow", fit=fit)
"""


@pytest.mark.slow
def test_a_check_at_work_in_a_process(project: pytest.Pytester) -> None:
    project.makepyfile(slow=SLOW_CASE)
    options = ("--case=slow:case", "--select=G001,L009", "--json=out.json")
    process = Process("-m", "ris_diag", "check", *options, folder=project.path)
    process.wait_for("begun")
    process.send()
    code, out, err = process.told()
    assert (code, err) == (130, "")
    assert out.startswith("interrupted after 1 of 2 checks, in L009 one-step-a-batch: no verdict\n")
    assert read(project)["complete"] is False


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["plain", "n2"])
def test_pytest_in_a_process(project: pytest.Pytester, workers: list[str]) -> None:
    project.makepyfile(slow=SLOW_CASE)
    options = ("--ris-case=slow:case", "--ris-select=G001,L009", "--ris-json=out.json", *workers)
    process = Process("-m", "pytest", *options, folder=project.path)
    process.wait_for("begun")
    time.sleep(1.0 * bool(workers))  # the other worker's skip is on its way
    process.send()
    code, out, err = process.told()
    assert (code, err) == (130, ""), out
    told = next(line for line in out.splitlines() if line.startswith("interrupted "))
    assert told.endswith(" in L009-one-step-a-batch-cpu: no verdict")
    assert "Traceback" not in out
    assert read(project)["complete"] is False
