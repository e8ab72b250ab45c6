"""`ris-diag diff`: what changed between two runs, and whether anything got worse."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ris_diag.cli import main
from ris_diag.diagnosis import diagnose
from ris_diag.result import Finding, Report, write_json
from ris_diag.result import Result as Found

Change = Callable[[dict[str, Any]], object]


def found(check: str, status: Any = "pass", **parts: Any) -> Found:
    slug = {"L009": "one-step-a-batch", "L001": "one-batch-learns"}.get(check, "slug")
    return Found(id=check, slug=slug, family="litmus", title="t", status=status, **parts)


def report(*results: Found, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"case": "c", "device": "cpu", "seed": 0, "versions": {"torch": "2.1"}}
    return Report(results=list(results), **{**fields, **changes}).to_json()


def several(**cases: list[Found]) -> dict[str, Any]:
    """As pytest writes it for several cases."""
    whole = report(*(result for results in cases.values() for result in results))
    whole.pop("diagnosis")
    owners = [name for name, results in cases.items() for _ in results]
    for entry, name in zip(whole["results"], owners, strict=True):
        entry.update(case=name, device="cpu")
    whole["diagnoses"] = [
        {"case": name, "device": "cpu", **diagnose(results).to_json()}
        for name, results in cases.items()
    ]
    return whole


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def diff(before: dict[str, Any], after: dict[str, Any]) -> Result:
    write_json("a.json", before)
    write_json("b.json", after)
    return CliRunner().invoke(main, ["diff", "a.json", "b.json"])


def rows(result: Result) -> list[list[str]]:
    """Cells of each line: two spaces part them."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()]
        for line in result.stdout.splitlines()
    ]


def test_nothing_changed() -> None:
    result = diff(report(found("L001", seconds=1.0)), report(found("L001", seconds=1.0)))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "a.json: c, cpu",
        "b.json: c, cpu",
        "",
        "0 worse, 0 better, 1 as before; 1 s -> 1 s",
    ]


@pytest.mark.parametrize(
    ("before", "after", "word", "code"),
    [
        ("pass", "fail", "worse", 1),
        ("pass", "error", "worse", 1),
        ("pass", "skip", "worse", 1),
        ("pass", "xfail", "worse", 1),
        ("pass", None, "gone", 1),
        ("fail", None, "gone", 1),
        ("skip", "fail", "worse", 1),
        ("xfail", "fail", "worse", 1),
        (None, "fail", "worse", 1),
        ("fail", "pass", "better", 0),
        ("skip", "pass", "better", 0),
        ("fail", "xfail", "better", 0),
        ("fail", "error", "other", 0),
        ("skip", "xfail", "other", 0),
        (None, "pass", "new", 0),
        (None, "skip", "new", 0),
    ],
)
def test_a_status(before: str | None, after: str | None, word: str, code: int) -> None:
    def one(status: str | None) -> list[Found]:
        if status == "xfail":
            return [found("L009", "skip", expected="ticket 12")]
        return [found("L009", status)] if status else []

    other = found("L001")
    result = diff(report(other, *one(before)), report(other, *one(after)))
    assert result.exit_code == code
    assert [word, "L009 one-step-a-batch", before or "-", after or "-"] in rows(result)
    assert "1 as before" in rows(result)[-1][0]


def test_what_got_worse_comes_first_with_its_cause() -> None:
    before = report(found("L001", "fail"), found("L009"))
    after = report(found("L001"), found("L009", "fail", cause="4 steps, limit 12\nmore"))
    shown = rows(diff(before, after))
    start = shown.index(["check", "before", "after", "cause"])
    assert shown[start + 1 : start + 3] == [
        ["worse", "L009 one-step-a-batch", "pass", "fail", "4 steps, limit 12"],
        ["better", "L001 one-batch-learns", "fail", "pass"],
    ]
    assert shown[-1] == ["1 worse, 1 better, 0 as before; 0 s -> 0 s"]


def test_diagnosis() -> None:
    finding = Finding(sign="steps-missing", cause="4 for 12", place="train.py:7", next_step="mend")
    red = report(found("L009", "fail", findings=[finding]))
    green = report(found("L009"))
    came = next(row for row in rows(diff(green, red)) if "C072 steps-missing" in row)
    assert (came[0], came[3]) == ("new", "train.py:7")
    gone = next(row for row in rows(diff(red, green)) if "C072 steps-missing" in row)
    assert gone == ["gone", *came[1:]]
    assert not any("C072 steps-missing" in row for row in rows(diff(red, red)))


def test_measurements_beyond_noise_sorted() -> None:
    before = {
        "same": 1.0, "noise": 1.0, "tiny": 1e-9, "falls": 2.0, "grows": 1.0, "zero": 0,
        "nan": 1.0, "text": "OAS", "nested": {"R": [1.0, 1.0, 1.0]}, "only": 1, "flag": True,
    }  # fmt: skip
    after = {
        "same": 1.0, "noise": 1.04, "tiny": 5e-9, "falls": 1.0, "grows": 3.0, "zero": 2,
        "nan": float("nan"), "text": "LW", "nested": {"R": [1.0, 1.2, 1.1]}, "flag": True,
    }  # fmt: skip
    result = diff(
        report(found("L001", measurements=before)), report(found("L001", measurements=after))
    )
    assert result.exit_code == 0
    shown = rows(result)
    start = shown.index(["measurement", "before", "after", "change"])
    assert shown[start + 1 : -2] == [
        ["L001 nan", "1", "NaN"],
        ["L001 text", "OAS", "LW"],
        ["L001 zero", "0", "2"],
        ["L001 grows", "1", "3", "+200.0%"],
        ["L001 falls", "2", "1", "-50.0%"],
        ["L001 nested.R.1", "1", "1.2", "+20.0%"],
    ]


def test_measurements_are_limited() -> None:
    before, after = ({f"m{n}": float(k * n) for n in range(1, 31)} for k in (1, 2))
    result = diff(
        report(found("L001", measurements=before)), report(found("L001", measurements=after))
    )
    assert sum(row[0].startswith("L001 m") for row in rows(result) if row) == 20
    assert "and 10 more measurements that changed less" in result.stdout


def test_seconds_and_versions() -> None:
    before = report(found("L001", seconds=1.0), found("L009", seconds=0.1))
    after = report(
        found("L001", seconds=4.0), found("L009", seconds=0.9), versions={"torch": "2.2"}, seed=3
    )
    result = diff(before, after)
    assert result.exit_code == 0
    assert "torch: 2.1 -> 2.2" in result.stdout
    assert "seed: 0 -> 3" in result.stdout
    shown = rows(result)
    start = shown.index(["slower", "before", "after"])
    assert shown[start + 1 : -2] == [["L001 one-batch-learns", "1.0 s", "4.0 s"]]
    assert shown[-1][0].endswith("; 1 s -> 5 s")


def test_one_case_is_compared_whatever_its_name() -> None:
    result = diff(report(found("L009")), report(found("L009", "fail"), case="d", device="cuda"))
    assert result.exit_code == 1
    assert "1 worse, 0 better, 0 as before" in result.stdout
    assert "a.json: c, cpu\nb.json: d, cuda\n" in result.stdout


def test_several_cases() -> None:
    before = several(a=[found("L009")], b=[found("L009")])
    after = several(a=[found("L009")], b=[found("L009", "fail")])
    result = diff(before, after)
    assert result.exit_code == 1
    assert ["worse", "L009 one-step-a-batch (b, cpu)", "pass", "fail"] in rows(result)
    assert "1 worse, 0 better, 1 as before" in result.stdout
    assert diff(after, before).exit_code == 0


def test_one_case_against_several() -> None:
    one = report(found("L009"), case="a")
    result = diff(one, several(a=[found("L009")], b=[found("L009")]))
    assert result.exit_code == 0
    assert ["new", "L009 one-step-a-batch (b, cpu)", "-", "pass"] in rows(result)
    result = diff(several(a=[found("L009")], b=[found("L009")]), one)
    assert result.exit_code == 1
    assert ["gone", "L009 one-step-a-batch (b, cpu)", "pass", "-"] in rows(result)


def test_of_two_results_of_one_check_the_worse_counts() -> None:
    twice = report(found("L009", "fail"), found("L009"))
    assert diff(report(found("L009")), twice).exit_code == 1
    assert diff(twice, report(found("L009"))).exit_code == 0


def test_an_interrupted_run_is_worse() -> None:
    whole, cut = report(found("L009")), report(found("L009"), complete=False)
    result = diff(whole, cut)
    assert result.exit_code == 1
    assert "b.json: c, cpu, interrupted" in result.stdout
    assert rows(result)[-1][0].startswith("interrupted; 0 worse")
    assert diff(cut, cut).exit_code == 0


def test_of_real_reports(project: pytest.Pytester) -> None:
    for face, case in (("a", "learns"), ("b", "frozen")):
        options = [f"--case=tiny:{case}", "--select=L009,L001", f"--json={face}.json"]
        CliRunner().invoke(main, ["check", *options])
    own = CliRunner().invoke(main, ["diff", "a.json", "b.json"])
    assert own.exit_code == 1
    assert [row[0] for row in rows(own) if row].count("worse") == 2
    options = ["--ris-case=tiny:learns", "--ris-select=L009,L001", "--ris-json=c.json"]
    project.runpytest_inprocess(*options)
    assert CliRunner().invoke(main, ["diff", "a.json", "c.json"]).exit_code == 0


WRONG: dict[str, Change] = {
    "no results": lambda r: r.pop("results"),
    "no diagnosis": lambda r: r.pop("diagnosis"),
    "results as text": lambda r: r.update(results="abc"),
    "result as number": lambda r: r.update(results=[3]),
    "status": lambda r: r["results"][0].update(status="passed"),
    "missing field": lambda r: r["results"][0].pop("seconds"),
    "seconds as text": lambda r: r["results"][0].update(seconds="long"),
    "measurements as list": lambda r: r["results"][0].update(measurements=[1]),
    "id as list": lambda r: r["results"][0].update(id=["L009"]),
    "case as list": lambda r: r.update(case=["c"]),
    "versions as text": lambda r: r.update(versions="2"),
    "complete as text": lambda r: r.update(complete="yes"),
    "named as number": lambda r: r["diagnosis"].update(named=[3]),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_report_that_does_not_fit_is_one_clear_line(change: Change) -> None:
    good = report(found("L009"))
    bad = copy.deepcopy(good)
    change(bad)
    result = diff(good, bad)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: b.json: its content doesn't fit its schema (")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON, or cut off"),
        (b'{"schema": 3, "res', "not JSON, or cut off"),
        (b"\xff\xfe\x00", "not JSON, or cut off"),
        (b"[" * 100_000, "not JSON, or cut off"),
        (b"[]", "no report of `ris-diag check --json`"),
        (b'{"kind": "ris-diag gate receipt"}', "no report of `ris-diag check --json`"),
        (b'{"schema": 2}', "schema 2, expected 3: run the checks again"),
        (b'{"schema": "3"}', "schema '3', expected 3: run the checks again"),
    ],
)
def test_a_file_that_is_no_report(content: bytes, said: str) -> None:
    write_json("a.json", report(found("L009")))
    Path("b.json").write_bytes(content)
    result = CliRunner().invoke(main, ["diff", "a.json", "b.json"])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: b.json: {said}")


@pytest.mark.parametrize(
    ("name", "said"), [("no.json", "No such file or directory"), (".", "Is a directory")]
)
def test_a_path_that_is_no_file(name: str, said: str) -> None:
    write_json("a.json", report(found("L009")))
    result = CliRunner().invoke(main, ["diff", name, "a.json"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {name}: {said}\n"


def test_texts_of_a_report_are_no_markup() -> None:
    odd = "[bold]x[/nothing]"
    before = report(found("L009", measurements={"x": odd}), case=odd)
    after = report(found("L009", "fail", cause=odd, measurements={"x": "[/]"}), case=odd)
    result = diff(before, after)
    assert result.exit_code == 1
    assert f"a.json: {odd}, cpu" in result.stdout
    assert ["worse", "L009 one-step-a-batch", "pass", "fail", odd] in rows(result)


def test_nothing_heavy_is_imported() -> None:
    write_json("a.json", report(found("L009")))
    code = (
        "import sys; from ris_diag.cli import main; "
        "main(['diff', 'a.json', 'a.json'], standalone_mode=False); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"
