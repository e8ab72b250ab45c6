"""Where a person meets the diagnosis: on the command line, in pytest's summary, explained."""

import json

import pytest
from click.testing import CliRunner

from ris_diag.cause import Cause, all_causes
from ris_diag.cli import main
from tests.pytest_ris.test_plugin_summary import section

NEVER_CLEARED = """\
import ris_diag
import tiny
import torch


def train(model, plan):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    epochs = []
    for epoch in range(1, plan.epochs + 1):
        for b in plan.train:
            total = tiny.loss(model, b, None)
            plan.on_step(epoch, total)
            total.backward()
            optimizer.step()
        epochs.append(ris_diag.Epoch(train=total.item()))
    return epochs


def case():
    return tiny.make("piled", fit=train)


def known():
    return tiny.make("known", fit=train, expected_failures={"L011": "ticket 12"})


def learns():
    return tiny.learns()
"""
HEAD = "Diagnosis: C070 gradients-not-cleared, 99% sure"
RIS = CliRunner()


@pytest.fixture(autouse=True)
def _piled(project: pytest.Pytester) -> None:
    project.makepyfile(piled=NEVER_CLEARED)


def index_of(lines: list[str], start: str) -> int:
    return next(number for number, line in enumerate(lines) if line.startswith(start))


def test_the_command_line_says_it_behind_the_verdict_and_in_front_of_the_checks() -> None:
    result = RIS.invoke(main, ["check", "--case=piled:case", "--select=L009,L011"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("NOT READY: L011 not passed")
    assert lines[1].startswith("case piled, cpu, seed 0, ")
    assert lines[2:4] == ["", HEAD]
    assert lines[4] == "  Gradients are added up over the steps: nothing clears them."
    assert lines[5].startswith("  Place: piled.py:")
    assert lines[6].startswith("  Seen: L011 11 of 12 steps use gradients to which")
    assert lines[7].startswith("  Silent because: ")
    assert lines[8].startswith("  Repair: ")
    assert lines[9:10] == [""]
    assert lines[10].startswith("litmus ")
    assert lines[10].endswith(" s  1 pass, 1 fail")
    assert lines[11].startswith("fail  L011 gradients-are-cleared: 11 of 12 steps")


@pytest.mark.parametrize("command", [["check", "--select=L011"], ["gate"]])
def test_it_comes_behind_the_verdict(command: list[str]) -> None:
    result = RIS.invoke(main, [*command, "--case=piled:case"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("NOT READY: ")
    assert index_of(lines, HEAD) < index_of(lines, "fail  L011 gradients-are-cleared: ")
    assert [line for line in lines if line.startswith("Diagnosis: ")] == [HEAD]


def test_a_green_run_has_none() -> None:
    result = RIS.invoke(main, ["check", "--case=tiny:learns", "--select=L009,L011"])
    assert result.exit_code == 0
    assert "Diagnosis" not in result.stdout
    assert "No cause" not in result.stdout


def test_an_expected_failure_has_none() -> None:
    result = RIS.invoke(main, ["check", "--case=piled:known", "--select=L009,L011"])
    assert result.exit_code == 0
    assert "xfail L011" in result.stdout
    assert "Diagnosis" not in result.stdout


def test_json_of_the_command_line_holds_it(project: pytest.Pytester) -> None:
    RIS.invoke(main, ["check", "--case=piled:case", "--select=L011", "--json=out.json"])
    report = json.loads((project.path / "out.json").read_text())
    assert report["schema"] == 3
    (named,) = report["diagnosis"]["named"]
    assert (named["id"], named["area"]) == ("C070", "loop")
    assert named["place"].startswith("piled.py:")
    assert named["evidence"][0]["check"] == "L011"
    assert report["diagnosis"]["settled"] is True


def test_the_summary_opens_with_it(project: pytest.Pytester, mode: list[str]) -> None:
    result = project.runpytest_inprocess(*mode, "--ris-case=piled:case", "--ris-select=L009,L011")
    assert result.ret == 1
    lines = section(result)
    assert lines[0].startswith("NOT READY: L011 not passed; ")
    assert lines[1:3] == ["", HEAD]
    assert lines[4].startswith("  Place: piled.py:")
    assert index_of(lines, "fail  L011") > index_of(lines, "  Repair: ")


def test_every_case_has_its_own(project: pytest.Pytester, mode: list[str]) -> None:
    project.makepyfile(
        test_suite="""
        import piled
        from pytest_ris import parametrize_with_checks

        @parametrize_with_checks([piled.learns, piled.case])
        def test_trainings(case, check):
            check(case)
        """
    )
    result = project.runpytest_inprocess(*mode, "--ris-select=L009,L011", "--ris-json=out.json")
    lines = section(result)
    assert [line.partition(";")[0] for line in lines if ";" in line or line == HEAD] == [
        "learns: 2 pass",
        "piled: NOT READY: L011 not passed",
        HEAD,
    ]
    report = json.loads((project.path / "out.json").read_text())
    named = {entry["case"]: entry["named"] for entry in report["diagnoses"]}
    assert named["learns"] == []
    assert [entry["id"] for entry in named["piled"]] == ["C070"]
    assert "diagnosis" not in report


def test_quiet_is_one_line_and_the_verdict(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("-q", "--ris-case=piled:case", "--ris-select=L011")
    verdict, head = section(result)
    assert head == HEAD
    assert verdict.startswith("NOT READY: L011 not passed; ")


def test_a_green_summary_has_none(project: pytest.Pytester, mode: list[str]) -> None:
    result = project.runpytest_inprocess(*mode, "--ris-case=tiny:learns", "--ris-select=L009,L011")
    assert section(result)[0].startswith("2 pass; no verdict: ")
    result.stdout.no_fnmatch_line("*Diagnosis*")


# ---- a cause, explained


@pytest.mark.parametrize("cause", all_causes(), ids=lambda cause: cause.id)
def test_explain_takes_causes(cause: Cause) -> None:
    result = RIS.invoke(main, ["explain", cause.id])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{cause.id} {cause.slug} ({cause.area})"
    assert lines[2] == cause.title
    for text in (cause.silent, cause.repair, cause.reference, cause.settles, *cause.looks):
        assert text in result.stdout
    assert RIS.invoke(main, ["explain", cause.slug]).stdout == result.stdout


def test_plugin_explains_a_cause(project: pytest.Pytester) -> None:
    for name in ("C070", "gradients-not-cleared"):
        result = project.runpytest_inprocess("--ris-explain", name)
        assert result.ret == 0
        assert result.stdout.lines[:3] == [
            "C070 gradients-not-cleared (loop)",
            "",
            "Gradients are added up over the steps: nothing clears them",
        ]
        result.stdout.fnmatch_lines(["Looks:   *", "Silent:  *", "Repair:  *", "Source:  *"])
        result.stdout.no_fnmatch_line("*test session starts*")


@pytest.mark.parametrize("name", ["C999", "gradients", "C07"])
def test_unknown_names_are_refused(project: pytest.Pytester, name: str) -> None:
    result = RIS.invoke(main, ["explain", name])
    assert result.exit_code == 2
    assert f"unknown check or cause {name!r}: expected " in result.stderr
    plugin = project.runpytest_inprocess("--ris-explain", name)
    assert plugin.ret == 4
    plugin.stderr.fnmatch_lines([f"*unknown check or cause {name!r}: expected *"])
