"""The command line: what each command prints, and its exit code."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ris_diag import __version__
from ris_diag import check as registry
from ris_diag.cli import main
from ris_diag.context import Context
from ris_diag.result import Card
from tests.expected import COUNT, IDS, behind, letters

pytestmark = pytest.mark.usefixtures("project")

FAMILIES = ("guard", "litmus", "overfit")


def ris_diag(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def read_json(project: pytest.Pytester, name: str = "out.json") -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report: dict[str, Any] = json.loads((project.path / name).read_text(), parse_constant=refuse)
    return report


@pytest.fixture
def easy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check applies to every case and passes."""
    for entry in registry.all_checks():
        check = replace(entry, needs=(), function=lambda context: None)
        monkeypatch.setitem(registry._REGISTRY, entry.id, check)


def make_fail(monkeypatch: pytest.MonkeyPatch, check_id: str) -> None:
    def function(context: Context) -> None:
        context.problem("cut", place="here.py:1", next_step="mend")

    entry = replace(registry.get_check(check_id), function=function)
    monkeypatch.setitem(registry._REGISTRY, check_id, entry)


def test_list_names_every_check() -> None:
    result = ris_diag("list")
    assert result.exit_code == 0
    listed = [line.split()[:2] for line in result.stdout.splitlines() if line[:1] in "GMDLO"]
    assert listed == [[check.id, check.slug] for check in registry.all_checks()]


@pytest.mark.parametrize("check", registry.all_checks(), ids=lambda check: check.id)
def test_explain_tells_what_and_why(check: registry.Check) -> None:
    result = ris_diag("explain", check.id)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{check.id} {check.slug} ({check.family})"
    for text in (check.title, check.what, check.why, *(limit.why for limit in check.thresholds)):
        assert text in result.stdout
    assert ris_diag("explain", check.slug).stdout == result.stdout


def test_check_passes() -> None:
    result = ris_diag("check", "-v", "--case", "tiny:learns", "--select", "L00,L010")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    first = next(
        n for n, line in enumerate(lines) if line.startswith("pass  L001 one-batch-learns")
    )
    assert lines[first + 1].startswith("      Step 1/5: loss=")
    statuses = {line.split()[1]: line.split()[0] for line in lines if line[6:8] == "L0"}
    assert list(statuses) == [name for name in IDS if name.startswith("L00") or name == "L010"]
    assert {statuses[name] for name in ("L001", "L008", "L009")} == {"pass"}
    assert {statuses[name] for name in ("L002", "L003", "L010")} == {"skip"}
    assert set(statuses.values()) == {"pass", "skip"}
    assert result.stderr == ""


def test_check_fails_with_the_message() -> None:
    result = ris_diag("check", "--case=tiny:frozen", "--select=L009", "--seed=4")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"NOT READY: L009 not passed; {COUNT - 1} checks did not run"
    assert lines[1].startswith("case frozen, cpu, seed 4, ")
    assert lines[2:3] == [""]
    assert lines[3].startswith("Diagnosis: C072")
    head, *behind = lines[lines.index("", 3) + 1 :]
    assert head.split() == ["litmus", *head.split()[1:3], "1", "fail"]
    assert behind[0].startswith("fail  L009 one-step-a-batch: 0 optimiser steps for 12 batches")
    assert behind[1].startswith("      Place: tiny.py:")
    assert behind[2].startswith("      Try: call zero_grad(), backward() and step()")
    assert behind[3:] == [
        "      Reproduce: ris-diag check --case tiny:frozen --select L009 --seed 4"
    ]


def test_the_line_that_repeats_a_check_does() -> None:
    first = ris_diag("check", "--case=tiny:frozen", "--select=L001", "--seed=4")
    line = next(line for line in first.stdout.splitlines() if "Reproduce: " in line)
    again = ris_diag(*line.split()[2:])
    untimed = [re.sub(r"\d+(\.\d)? s\\b", "", text.stdout) for text in (first, again)]
    assert first.exit_code == again.exit_code == 1
    assert untimed[0] == untimed[1]


def test_exception_in_user_code_is_an_error_with_its_place() -> None:
    result = ris_diag("check", "--case=tiny:raising", "--select=L009")
    assert result.exit_code == 1
    assert "L009 one-step-a-batch: ValueError: shapes [3] and [4] differ\n" in result.stdout
    assert ", in raising_fit\n" in result.stdout
    assert "Traceback" not in result.output


def test_nothing_but_skips_is_no_success() -> None:
    result = ris_diag("check", "-v", "--case=tiny:bare", "--select=L009,overfit")
    assert result.exit_code == 1
    assert (
        "does not apply: needs Case.fit (or Case.optimizer with Case.loss or Case.step)\n"
        in result.stdout
    )


def test_declared_failure() -> None:
    result = ris_diag("check", "--case=tiny:known", "--select=L001")
    line = next(line for line in result.stdout.splitlines() if line.startswith("xfail "))
    assert line.startswith("xfail L001 one-batch-learns")
    assert line.endswith(" s  ticket 12")
    assert ris_diag("check", "--case=tiny:stale", "--select=L001").exit_code == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--select", "G"], letters("guard")),
        (["--select", "L001,L002", "--select", "memorises"], "LLO"),
        (["--ignore", "guard", "--ignore", "L,M,D"], letters("overfit")),
        (["--select", "overfit", "--ignore", "O002"], letters("overfit")[1:]),
    ],
)
def test_select_and_ignore(options: list[str], expected: str) -> None:
    result = ris_diag("check", "-v", "--case=tiny:bare", *options)
    shown = re.findall(r"^(?:pass|skip)  ([A-Z])\d{3} ", result.stdout, re.MULTILINE)
    assert "".join(shown) == expected


def test_json(project: pytest.Pytester) -> None:
    options = ("--select=L001,L009", "--json=out.json", "--seed=9", "--device=cpu")
    failed = ris_diag("check", "--case=tiny:frozen", *options)
    assert failed.exit_code == 1
    report = read_json(project)
    assert (report["ok"], report["case"], report["seed"]) == (False, "frozen", 9)
    assert [entry["status"] for entry in report["results"]] == ["fail", "fail"]
    assert ris_diag("check", "--case=tiny:learns", *options).exit_code == 0
    report = read_json(project)
    assert (report["ok"], report["case"], report["device"]) == (True, "learns", "cpu")
    assert len(report["results"][0]["measurements"]["losses"]) == 5


def test_json_is_strict_about_nan(project: pytest.Pytester) -> None:
    project.makepyfile(
        nan="""
        import dataclasses, ris_diag, tiny

        def fit(model, plan):
            return [ris_diag.Epoch(train=float("nan")) for _ in range(plan.epochs)]

        def case():
            return dataclasses.replace(tiny.learns(), fit=fit)
        """
    )
    ris_diag("check", "--case=nan:case", "--select=L008", "--json=out.json")
    assert read_json(project)["results"][0]["measurements"]["reported"] == ["NaN"] * 4


def test_case_of_pyproject(project: pytest.Pytester) -> None:
    project.makepyprojecttoml('[tool.ris-diag]\ncase = "tiny:frozen"\n')
    assert ris_diag("check", "--select=L009").exit_code == 1
    assert ris_diag("check", "--select=L009", "--case=tiny:learns").exit_code == 0


@pytest.mark.usefixtures("easy")
def test_gate_opens(project: pytest.Pytester) -> None:
    result = ris_diag("gate", "--case=tiny:bare", "--seed=3", "--json=out.json")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["READY FOR FULL HPO", "case bare, cpu, seed 3, 0 s"]
    assert lines[-1] == "receipt: .ris-diag/receipt.json"
    assert (project.path / ".ris-diag" / ".gitignore").read_text() == "*\n"
    valid = ris_diag("verify", "--case=tiny:bare")
    assert (valid.exit_code, valid.stdout) == (
        0,
        ".ris-diag/receipt.json: valid for tiny:bare on cpu\n",
    )
    report = read_json(project)
    assert report["ok"] is True
    assert len(report["results"]) == COUNT


@pytest.mark.usefixtures("easy")
@pytest.mark.parametrize(
    ("check_id", "verdict", "left"),
    [
        ("G003", "NOT READY: G003 not passed; {left} checks did not run", behind("guard")),
        ("L007", "NOT READY: L007 not passed; {left} checks did not run", behind("litmus")),
        ("O003", "NOT READY: O003 not passed", 0),
    ],
)
def test_gate_stops_behind_the_first_family_that_fails(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    check_id: str,
    verdict: str,
    left: int,
) -> None:
    make_fail(monkeypatch, check_id)
    result = ris_diag("gate", "--case=tiny:bare", "--json=out.json")
    assert result.exit_code == 1
    assert verdict.format(left=left) in result.stdout.splitlines()
    assert "READY FOR FULL HPO" not in result.stdout
    assert len(read_json(project)["results"]) == COUNT - left


@pytest.mark.parametrize("command", ["check", "gate"])
def test_the_gpu_is_named_below_the_results(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    card = Card(device="cuda:0", name="NVIDIA [H100]", capability="9.0", peak_bytes=2**21)
    monkeypatch.setattr("ris_diag.runner.Runner.cards", [card])
    result = ris_diag(command, "--case=tiny:bare", "--json=out.json")
    line = "cuda:0: NVIDIA [H100], compute capability 9.0, peak memory 2.0 MiB"
    assert result.stdout.splitlines().count(line) == 1
    assert read_json(project)["cards"] == [asdict(card)]


def test_no_gpu_is_named_on_the_cpu() -> None:
    assert "capability" not in ris_diag("check", "--case=tiny:bare").stdout


def test_gate_is_closed_for_what_does_not_apply() -> None:
    result = ris_diag("gate", "--case=tiny:bare")
    assert result.exit_code == 1
    assert "READY FOR FULL HPO" not in result.stdout


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str) -> None:
    result = ris_diag(flag)
    assert result.exit_code == 0
    for command in ("list", "explain", "check", "gate"):
        assert f"\n  {command}" in result.stdout
        help_text = ris_diag(command, flag)
        assert help_text.exit_code == 0
        assert help_text.stdout.startswith(f"Usage: main {command}")


def test_version() -> None:
    assert ris_diag("--version").stdout == f"ris-diag, version {__version__}\n"


@pytest.mark.slow
def test_as_a_process(project: pytest.Pytester) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ris_diag", *args]
        return subprocess.run(  # the folder is the fixture's
            command, capture_output=True, text=True, check=False, cwd=project.path
        )

    failed = run("check", "--case=tiny:raising", "--select=L009")
    assert failed.returncode == 1
    assert "\n      Place: tiny.py:" in failed.stdout
    assert failed.stderr == ""
    refused = run("check")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Error: no case: name the training under test:" in refused.stderr.splitlines()


def test_interrupt_says_so_and_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ris_diag.runner.Runner.run_check", interrupted)
    result = ris_diag("check", "--case=tiny:learns")
    assert result.exit_code == 130
    assert (
        result.stdout
        == "interrupted before the first check, while tiny:learns was loaded: no verdict\n"
    )
