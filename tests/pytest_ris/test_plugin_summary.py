"""The section at the end of a run, and its verdict."""

import re
from dataclasses import replace

import pytest

from ris_diag import check as registry
from tests.expected import COUNT

READY = "READY FOR FULL HPO"
UNFIT = "G001 does not apply to this case, which lacks a part it needs"

# A test that records what checks found elsewhere: one passed result a check but for `changed`.
RECORDED = """
import pytest
from ris_diag.families import FAMILIES

IDS = {ids}
CHANGED = {changed}

@pytest.mark.parametrize("check", IDS)
def test_recorded(check, record_property):
    family = next(f.name for f in FAMILIES if f.letter == check[0])
    result = dict(id=check, slug="slug", family=family, title="t", status="pass", seconds=0.1)
    result.update(CHANGED.get(check, dict()))
    record_property("ris", dict(case="recorded", device="cpu", cards=[], result=result))
"""
IDS = [check.id for check in registry.all_checks()]


def section(result: pytest.RunResult) -> list[str]:
    """Lines between the rule `ris-diag` and the next rule, or the counts of a quiet run."""
    start = next(i for i, line in enumerate(result.outlines) if line.strip("=") == " ris-diag ")
    body = result.outlines[start + 1 :]
    stop = [i for i, line in enumerate(body) if re.match(r"===|\d+ \w+.* in [\d.]+s", line)]
    return body[: min([*stop, len(body)])]


def test_lines_of_the_checks(project: pytest.Pytester, mode: list[str]) -> None:
    result = project.runpytest_inprocess(
        *mode, "-v", "--ris-case=tiny:learns", "--ris-select=G001,L001,L009"
    )
    lines = section(result)
    verdict = f"2 pass, 1 skip; no verdict: {UNFIT}; {COUNT - 3} checks did not run"
    assert lines[:2] == [verdict, ""]
    assert re.fullmatch(r"guard +\d+\.\d s  1 skip", lines[2])
    assert lines[3].startswith("skip  G001 weights-in-range")
    assert lines[3].endswith("  does not apply: needs Case.declared")
    assert re.fullmatch(r"litmus +\d+\.\d s  2 pass", lines[4])
    assert lines[5].startswith("pass  L001 one-batch-learns")
    steps = [line.split("loss=")[0] for line in lines[6:11]]
    assert steps == [f"      Step {number}/5: " for number in range(1, 6)]
    assert lines[11].startswith("      Litmus: loss ")
    assert lines[11].endswith(": PASS")
    assert lines[12].startswith("pass  L009 one-step-a-batch")
    assert re.fullmatch(r"  loss  [\d.]+ \S{5} [\d.]+", lines[13])
    assert lines[14:15] == ["  gradient  update/weight  zeros  module"]
    assert re.fullmatch(r" +[\d.]+ +[\d.]+ +0%  Linear", lines[15])
    assert len(lines) == 16


def test_passes_are_folded(project: pytest.Pytester, mode: list[str]) -> None:
    lines = section(
        project.runpytest_inprocess(*mode, "--ris-case=tiny:learns", "--ris-select=G,L009")
    )
    assert [line for line in lines if line[:5] in ("pass ", "skip ")] == []
    assert re.fullmatch(r"litmus +\d+\.\d s  1 pass", lines[-1])


def test_beta_walk_of_the_reference(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(
        "-v", "--ris-case=model.case:reference", "--ris-select=L001"
    )
    betas = [line.split(", loss")[0].strip() for line in section(result) if "Step" in line]
    assert betas == [
        "Step 1/5: beta=0.000",
        "Step 2/5: beta=0.075",
        "Step 3/5: beta=0.150",
        "Step 4/5: beta=0.225",
        "Step 5/5: beta=0.300",
    ]


def test_quiet_leaves_the_verdict(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("-q", "--ris-case=tiny:learns", "--ris-select=L001")
    assert section(result) == [f"1 pass; no verdict: {COUNT - 1} checks did not run"]
    project.makepyfile(test_suite=RECORDED.format(ids=IDS, changed={}))
    assert section(project.runpytest_inprocess("-q")) == [READY]


def test_ready_if_all_ran_and_passed(project: pytest.Pytester, mode: list[str]) -> None:
    project.makepyfile(test_suite=RECORDED.format(ids=IDS[::-1], changed={}))
    lines = section(project.runpytest_inprocess(*mode, "-v"))
    assert [line.split()[1] for line in lines if line.startswith("pass  ")] == IDS
    assert lines[0] == READY


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"L003": {"status": "fail", "cause": "cut"}}, "NOT READY: L003 not passed"),
        ({"O003": {"status": "error", "cause": "E"}}, "NOT READY: O003 not passed"),
        (
            {"G001": {"status": "skip", "cause": "needs"}},
            f"{COUNT - 1} pass, 1 skip; no verdict: {UNFIT}",
        ),
        ({"L003": {"status": "skip", "expected": "ticket 12"}}, READY),
        (
            {"O003": {"status": "skip", "expected": "no"}},
            f"{COUNT - 1} pass, 1 xfail; no verdict: O003 not passed",
        ),
    ],
    ids=["fail", "error", "skip", "declared", "verdict declared"],
)
def test_verdict(
    project: pytest.Pytester, changed: dict[str, dict[str, str]], verdict: str
) -> None:
    project.makepyfile(test_suite=RECORDED.format(ids=IDS, changed=changed))
    result = project.runpytest_inprocess()
    assert section(result)[0] == verdict
    assert (READY in result.stdout.str()) == (verdict == READY)


def test_no_verdict_on_a_part(project: pytest.Pytester) -> None:
    project.makepyfile(test_suite=RECORDED.format(ids=IDS[:-1], changed={}))
    verdict = f"{COUNT - 1} pass; no verdict: 1 check did not run"
    assert section(project.runpytest_inprocess())[0] == verdict


def test_ready_by_the_runner(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in registry.all_checks():
        easy = replace(entry, needs=(), function=lambda context: None)
        monkeypatch.setitem(registry._REGISTRY, entry.id, easy)
    waiting = sum(bool(entry.cuda) for entry in registry.all_checks())
    result = project.runpytest_inprocess("--ris-case=tiny:bare")
    result.assert_outcomes(passed=COUNT - waiting, skipped=waiting)
    assert section(result)[0] == READY


@pytest.mark.parametrize("no_color", [False, True])
def test_colour(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *, no_color: bool
) -> None:
    options = ["--ris-case=tiny:frozen", "--ris-select=L009"]
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        options.append("--color=yes")
    text = project.runpytest_inprocess(*options).stdout.str()
    assert "fail  L009 one-step-a-batch" in text
    assert ("\x1b[" in text) is not no_color


@pytest.mark.parametrize("option", ["-v", "-q", "-n0"])
def test_nothing_in_a_run_without_checks(project: pytest.Pytester, option: str) -> None:
    project.makepyfile(test_suite="def test_other(): pass")
    result = project.runpytest_inprocess(option, "--ris-case=tiny:learns", "--ris-select=L")
    result.assert_outcomes(passed=1)
    assert [line for line in result.outlines if "ris-diag" in line and "plugins:" not in line] == []
    assert "verdict" not in result.stdout.str()
