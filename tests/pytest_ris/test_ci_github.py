"""Job summary and annotations: what GitHub gets of both faces, and that nobody else gets it."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt

from ris_diag.ci import github
from ris_diag.ci.annotations import annotations, command, from_root
from ris_diag.ci.markdown import CUT, LONGEST, summary
from ris_diag.ci.part import Part, SourceLine, source_line
from ris_diag.cli import main
from ris_diag.result import Finding, Result

UNFIT = "checks do not apply to this case, which lacks parts they need"


def result(check: str = "L009", **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "id": check,
        "slug": "one-step-a-batch",
        "family": {"L": "litmus", "O": "overfit", "G": "guard"}[check[0]],
        "title": "t",
        "status": "fail",
        "cause": "4 steps, limit 12",
        "place": "train.py:7",
        "next_step": "step in the loop",
        "seconds": 1.25,
    }
    found = {**fields, **changes}
    cause, place, todo = (found[key] for key in ("cause", "place", "next_step"))
    finding = Finding(sign="steps-missing", cause=cause, place=place, next_step=todo)
    return Result(**{"findings": [finding] if found["status"] == "fail" else [], **found})


def part(*results: Result, **changes: Any) -> Part:
    fields: dict[str, Any] = {"case": "c", "device": "cpu", "verdict": "NOT READY: L009"}
    return Part(results=list(results), **{**fields, **changes})


def shown(markdown: str) -> list[list[str]]:
    """What a reader sees: a list of texts for each heading, item, paragraph, or row of a table."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type in ("tr_open", "heading_open", "paragraph_open"):
            rows.append([])
        elif token.type == "inline":
            html = {c.content for c in token.children or () if c.type == "html_inline"}
            assert html <= {"<br>"}
            texts = (c.content if c.type != "softbreak" else " " for c in token.children or ())
            rows[-1].append("".join(texts))
    return rows


@pytest.fixture
def on_github(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the summary."""
    path = project.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
    return path


def errors(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("::")]


def test_summary_has_the_verdict_first() -> None:
    rows = shown(summary([part(result(reproduce="ris-diag check --select L009"))], 2**20))
    assert rows[:2] == [["NOT READY: L009"], ["case c, cpu, 1 s"]]
    assert rows[2][0].startswith("Diagnosis: C072 steps-missing, ")
    assert ["Place: train.py:7"] in rows
    assert ["Seen: L009 4 steps, limit 12"] in rows
    table = rows.index(["check", "measured, and the limit", "place", "next step"])
    assert rows[table + 1] == [
        "L009 one-step-a-batch",
        "4 steps, limit 12",
        "train.py:7",
        "step in the loop<br>ris-diag check --select L009",
    ]
    assert rows[table + 2] == ["family", "pass", "fail", "error", "skip", "xfail", "seconds"]
    assert rows[table + 3] == ["litmus", "0", "1", "0", "0", "0", "1.2"]


def test_summary_counts_by_family() -> None:
    results = [
        result("G001", status="pass"),
        result("G002", status="error"),
        result("L001", status="skip", expected="ticket 12"),
        result("L002", status="skip"),
    ]
    rows = shown(summary([part(*results)], 2**20))
    assert ["guard", "1", "0", "1", "0", "0", "2.5"] in rows
    assert ["litmus", "0", "0", "0", "1", "1", "2.5"] in rows
    assert [row[0] for row in rows].count("L001 one-step-a-batch") == 0


def test_summary_has_the_table_of_the_estimators() -> None:
    measured = {"nmse": {"R_pred": 0.13314, "OAS": "NaN"}, "nmse_standard_error": {"R_pred": 0.01}}
    rows = shown(summary([part(result("O002", status="pass", measurements=measured))], 2**20))
    start = rows.index(["NMSE on fresh scenes", "mean", "standard error"])
    assert rows[start + 1 :] == [["R_pred", "0.1331", "0.0100"], ["OAS", "NaN", "None"]]


@pytest.mark.parametrize(
    "text",
    ["a | b", "*a* _b_ `c` ~~d~~", "<script>&lt;", "[a](b) ![c](d)", "$x$ \\| \\", "| --- |"],
)
def test_summary_shows_the_users_text_as_it_is(text: str) -> None:
    rows = shown(summary([part(result(cause=text, findings=[]))], 2**20))
    cell = next(row[1] for row in rows if row[0] == "L009 one-step-a-batch")
    assert cell == text


def test_summary_keeps_to_one_row_and_without_colours() -> None:
    text = summary([part(result(cause="a\r\nb\x1b[31m\x00c", findings=[]))], 2**20)
    assert "| a<br>b\\[31mc |" in text


def test_a_long_text_is_cut() -> None:
    rows = shown(summary([part(result(cause="x" * 5000, findings=[]))], 2**20))
    assert ["L009 one-step-a-batch", "x" * LONGEST + " …"] in [row[:2] for row in rows]


@pytest.mark.parametrize("room", [600, 1000, 3000])
def test_summary_ends_where_the_room_does(room: int) -> None:
    results = [result(cause="é" * 90, findings=[])] * 99
    text = summary([part(*results, verdict="NOT READY")], room)
    assert len(text.encode()) <= room
    assert text.endswith(CUT)
    assert text.startswith("## NOT READY\n")
    assert shown(text)[-1] == [CUT.strip().strip("_").replace("`", "")]


def test_no_room_gives_nothing() -> None:
    assert summary([part(result())], 100) == ""


def test_summary_is_appended_in_the_room_that_is_left(
    on_github: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_github.write_text("before\n" + "x" * 100)
    said: list[str] = []
    monkeypatch.setattr(github, "ROOM", 700)
    github.publish([part(*[result(findings=[])] * 50)], said.append)
    assert on_github.read_text().startswith("before\n")
    assert 500 < on_github.stat().st_size <= 700
    github.publish([part(result(findings=[]))], said.append)
    assert on_github.stat().st_size <= 700
    assert said == [
        f"no job summary: GITHUB_STEP_SUMMARY {on_github}: the 1 MiB of this step are full"
    ]


def test_the_command_line(on_github: Path) -> None:
    run = CliRunner().invoke(main, ["check", "--case=tiny:frozen", "--select=L009,L010"])
    assert run.exit_code == 1
    rows = shown(on_github.read_text())
    assert rows[0][0].startswith("NOT READY: L009 not passed; L010 does not apply")
    assert any(row[0] == "L009 one-step-a-batch" for row in rows)
    found = errors(run.stdout.splitlines())
    assert re.match(r"::error file=tiny\.py,line=\d+,title=C\d+ ", found[0])
    assert re.match(r"::error file=tiny\.py,line=\d+,title=L009 one-step-a-batch::0 op", found[-1])


def test_the_gate_gives_its_own_verdict(on_github: Path) -> None:
    assert CliRunner().invoke(main, ["gate", "--case=tiny:bare"]).exit_code == 1
    assert shown(on_github.read_text())[0][0].startswith("NOT READY: ")
    assert UNFIT in shown(on_github.read_text())[0][0]


def test_pytest(on_github: Path, project: pytest.Pytester) -> None:
    run = project.runpytest_inprocess("--ris-case=tiny:frozen", "--ris-select=L009,L010")
    assert run.ret == 1
    rows = shown(on_github.read_text())
    assert [row for row in rows if row[0].startswith("NOT READY: L009 not passed")] == rows[:1]
    found = errors(run.outlines)
    assert len(found) == len(set(found)) == 2
    assert re.match(r"::error file=tiny\.py,line=\d+,title=L009 one-step-a-batch::0 op", found[-1])


def test_pytest_of_several_cases(on_github: Path, project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="""
        import tiny
        from pytest_ris import parametrize_with_checks

        @parametrize_with_checks([tiny.learns, tiny.frozen])
        def test_cases(case, check):
            check(case)
        """
    )
    project.runpytest_inprocess("--ris-select=L009")
    told = [row[0] for row in shown(on_github.read_text()) if row[0].startswith("case ")]
    assert [line.split(",")[0] for line in told] == ["case frozen", "case learns"]


def test_an_interruption_is_no_verdict(on_github: Path, project: pytest.Pytester) -> None:
    project.makepyfile(test_then="def test_stop(): raise KeyboardInterrupt")
    options = ("--ris-case=tiny:learns", "--ris-select=L009")
    project.runpytest_inprocess(*options, no_reraise_ctrlc=True)
    assert shown(on_github.read_text())[0] == ["interrupted: no verdict"]


def test_a_run_without_checks_leaves_nothing(on_github: Path, project: pytest.Pytester) -> None:
    project.makepyfile(test_suite="def test_other(): pass")
    project.runpytest_inprocess()
    assert not on_github.exists()


@pytest.mark.parametrize("actions", ["", "false"])
def test_elsewhere_nothing_is_said(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, actions: str
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", actions)
    before = sorted(project.path.iterdir())
    run = CliRunner().invoke(main, ["check", "--case=tiny:frozen", "--select=L009"])
    assert errors(run.output.splitlines()) == []
    found = project.runpytest_inprocess("--ris-case=tiny:frozen", "--ris-select=L009")
    assert errors(found.outlines) == []
    assert [p for p in project.path.iterdir() if p.suffix == ".md"] == []
    assert {p.name for p in before} <= {p.name for p in project.path.iterdir()}


def test_a_summary_that_cannot_be_written_changes_no_verdict(
    on_github: Path, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path / "no" / "summary.md"))
    line = f"no job summary: GITHUB_STEP_SUMMARY {project.path}/no/summary.md: No such file"
    run = CliRunner().invoke(main, ["check", "--case=tiny:learns", "--select=L009"])
    assert run.exit_code == 0
    assert line in run.stdout
    found = project.runpytest_inprocess("--ris-case=tiny:learns", "--ris-select=L009")
    assert found.ret == 0
    found.stdout.fnmatch_lines([f"{line}*"])


def test_a_command_is_escaped_as_the_runner_reads_it() -> None:
    line = command(SourceLine("a,b:c%.py", 7), "sure: 98%, x", "50% of\r\na: b, c")
    assert line == (
        "::error file=a%2Cb%3Ac%25.py,line=7,title=sure%3A 98%25%2C x::50%25 of%0D%0Aa: b, c"
    )


def test_the_path_is_that_of_the_repository(
    on_github: Path, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project.mkdir("below")
    monkeypatch.chdir(below)
    assert from_root("train.py") == "below/train.py"
    assert from_root(str(project.path / "other.py")) == "other.py"
    assert from_root("/elsewhere/train.py") == "/elsewhere/train.py"
    monkeypatch.delenv("GITHUB_WORKSPACE")
    assert from_root("train.py") == "train.py"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("train.py:7", ("train.py", 7)),
        ("my model/train.py:29, in fit", ("my model/train.py", 29)),
        ("/abs/train.py:7", ("/abs/train.py", 7)),
        ("head.2.weight", None),
        ("Case.expected_failures['L001']", None),
        ("train/b.npz:3", None),
        ("a.py:1, b.py:2", None),
        ("", None),
    ],
)
def test_places_that_are_lines(place: str, expected: tuple[str, int] | None) -> None:
    assert source_line(place) == expected


def test_what_has_no_line_gets_no_annotation() -> None:
    assert list(annotations(part(result(place="head.2.weight")))) == []
    assert list(annotations(part(result(status="pass")))) == []


def test_the_diagnosis_is_in_front_of_the_checks() -> None:
    titles = [line.split("title=")[1][:4] for line in annotations(part(result()))]
    assert titles == ["C072", "L009"]
