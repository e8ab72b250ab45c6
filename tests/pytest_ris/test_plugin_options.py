"""The options and their ini twins."""

import json
from collections import Counter
from typing import Any

import pytest

from tests.expected import COUNT, IDS, letters

CONFTEST = "import pytest, tiny\n@pytest.fixture\ndef ris_case(): return tiny.frozen()"


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def report_of(project: pytest.Pytester, name: str = "out.json") -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        (project.path / name).read_text(), parse_constant=refuse_constant
    )
    return report


def test_case_option_wins_over_fixture_and_ini(project: pytest.Pytester, mode: list[str]) -> None:
    project.makeconftest(CONFTEST)
    project.makeini("[pytest]\nris_case = tiny:raising\n")
    result = project.runpytest_inprocess(*mode, "--ris-case=tiny:learns", "--ris-select=L009")
    result.assert_outcomes(passed=1)


def test_fixture_wins_over_ini(project: pytest.Pytester) -> None:
    project.makeconftest(CONFTEST)
    project.makeini("[pytest]\nris_case = tiny:learns\n")
    result = project.runpytest_inprocess("--ris-select=L009")
    result.assert_outcomes(failed=1)


def test_ini_wins_over_tool_table(project: pytest.Pytester) -> None:
    project.makepyprojecttoml(
        '[tool.pytest]\nstrict = true\nris_case = "tiny:learns"\n'
        '[tool.ris-diag]\ncase = "tiny:frozen"\n'
    )
    project.runpytest_inprocess("--ris-select=L009").assert_outcomes(passed=1)


def test_tool_table_alone(project: pytest.Pytester) -> None:
    project.makepyprojecttoml('[tool.ris-diag]\ncase = "tiny:frozen"\n')
    project.runpytest_inprocess("--ris-select=L009").assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--ris-select=L"], letters("litmus")),
        (["--ris-select=guard,O001"], letters("guard") + "O"),
        (["--ris-select=G001", "--ris-select=one-batch-learns"], "GL"),
        (["--ris-ignore=L,G,M,D", "--ris-ignore=O003"], letters("overfit")[1:]),
        (["--ris-select=overfit", "--ris-ignore=worth-a-search"], letters("overfit")[1:]),
    ],
)
def test_select_and_ignore(project: pytest.Pytester, options: list[str], expected: str) -> None:
    result = project.runpytest_inprocess("--collect-only", "-q", *options)
    letters = [line.split("[")[1][0] for line in result.outlines if "test_check[" in line]
    assert "".join(letters) == expected


def test_seed_reaches_the_checks(project: pytest.Pytester) -> None:
    def losses(*options: str) -> list[float]:
        args = ("--ris-case=tiny:learns", "--ris-select=L001", "--ris-json=out.json", *options)
        project.runpytest_inprocess(*args).assert_outcomes(passed=1)
        report = report_of(project)
        assert report["seed"] == (int(options[0].split("=")[1]) if options else 0)
        found: list[float] = report["results"][0]["measurements"]["losses"]
        return found

    assert losses("--ris-seed=7") == losses("--ris-seed=7")
    assert losses("--ris-seed=7") != losses("--ris-seed=8")
    assert losses() == losses("--ris-seed=0")


def test_json_holds_all_results(project: pytest.Pytester, mode: list[str]) -> None:
    project.makepyfile(
        test_extra="def test_fails(): assert False\ndef test_passes(): pass",
    )
    result = project.runpytest_inprocess(*mode, "--ris-case=tiny:known", "--ris-json=out.json")
    report = report_of(project)
    counts = Counter(entry["status"] for entry in report["results"])
    result.assert_outcomes(
        passed=1 + counts["pass"],  # the extra tests are one each
        failed=1 + counts["fail"] + counts["error"],
        skipped=counts["skip"] - 1,
        xfailed=1,
    )
    assert report["schema"] == 3
    assert report["case"] == "known"
    assert report["device"] == "cpu"
    assert report["ok"] is False
    assert set(report["versions"]) == {"ris_diag", "torch", "numpy", "python"}
    statuses = {entry["id"]: entry["status"] for entry in report["results"]}
    families = "".join(entry["id"][0] for entry in report["results"])
    assert families == "".join(entry[0] for entry in IDS)
    assert (statuses["G001"], statuses["L001"], statuses["L009"]) == ("skip", "skip", "fail")
    by_id = {entry["id"]: entry for entry in report["results"]}
    assert by_id["L001"]["expected"] == "ticket 12"
    assert by_id["L009"]["place"].startswith("tiny.py:")
    assert [path.name for path in project.path.glob("*.json*")] == ["out.json"]


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
    project.runpytest_inprocess("--ris-case=nan:case", "--ris-select=L008", "--ris-json=out.json")
    assert report_of(project)["results"][0]["measurements"]["reported"] == ["NaN"] * 4


@pytest.mark.slow
def test_json_is_written_by_the_controller_alone(project: pytest.Pytester) -> None:
    project.makeconftest(
        """
        import os, ris_diag.result

        real = ris_diag.result.write_json

        def spy(path, content):
            with open("writers.txt", "a") as file:
                file.write(os.environ.get("PYTEST_XDIST_WORKER", "controller") + " ")
            real(path, content)

        def pytest_configure(config):
            if not hasattr(config, "workerinput"):
                os.environ.pop("PYTEST_XDIST_WORKER", None)
            ris_diag.result.write_json = spy

        def pytest_unconfigure(config):
            ris_diag.result.write_json = real
        """
    )
    options = ("--ris-case=tiny:learns", "--ris-select=L008,L009", "--ris-json=out.json")
    project.runpytest_subprocess("-n2", *options).assert_outcomes(passed=2)
    assert (project.path / "writers.txt").read_text() == "controller "
    assert report_of(project)["ok"] is True


def test_json_that_fails_late_hides_nothing(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_removes="import pathlib\ndef test_removes(): pathlib.Path('out').rmdir()"
    )
    project.mkdir("out")
    result = project.runpytest_inprocess(
        "--ris-case=tiny:frozen", "--ris-select=L009", "--ris-json=out/out.json"
    )
    result.stdout.fnmatch_lines(["FAILED test_suite.py::test_check*", "*1 failed, 1 passed*"])
    errors = [line for line in result.errlines if line]
    assert errors == ["ERROR: --ris-json out/out.json: No such file or directory"]
    assert result.ret == 4


def test_list(project: pytest.Pytester, mode: list[str]) -> None:
    result = project.runpytest_inprocess(*mode, "--ris-list")
    assert result.ret == 0
    assert len(result.outlines) == COUNT
    assert result.outlines[0].split()[:3] == ["G001", "weights-in-range", "S4,"]
    assert result.outlines[0].endswith("Each loss weight in effect lies between 0 and 100")


@pytest.mark.parametrize("name", ["L001", "one-batch-learns"])
def test_explain(project: pytest.Pytester, name: str) -> None:
    result = project.runpytest_inprocess("--ris-explain", name)
    assert result.ret == 0
    assert result.outlines[0] == "L001 one-batch-learns (litmus)"
    result.stdout.fnmatch_lines(
        [
            "What: *",
            "Why: *",
            "Source:  S6",
            "Needs:   Case.model, Case.batch, Case.loss, Case.fit (or *",
            "Limit:   min_drop = 0.05 share of the loss at equal beta: *",
        ]
    )
    result.stdout.no_fnmatch_line("*test session starts*")


@pytest.mark.parametrize("form", ["toml", "ini"])
def test_ini_twins(project: pytest.Pytester, form: str) -> None:
    if form == "toml":
        project.makepyprojecttoml(
            "[tool.pytest]\n"
            "strict = true\n"
            'ris_case = "tiny:learns"\n'
            'ris_select = ["L00", "L010"]\n'
            'ris_ignore = ["L001", "L002,L003"]\n'
            "ris_seed = 11\n"
            "ris_gpu = false\n"
            'ris_device = ["cpu"]\n'
            'ris_json = "twin.json"\n'
        )
    else:
        project.makeini(
            "[pytest]\n"
            "strict = true\n"
            "ris_case = tiny:learns\n"
            "ris_select = L00 L010\n"
            "ris_ignore = L001 L002,L003\n"
            "ris_seed = 11\n"
            "ris_gpu = false\n"
            "ris_device = cpu\n"
            "ris_json = twin.json\n"
        )
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=3, skipped=4)
    report = report_of(project, "twin.json")
    ids = [entry["id"] for entry in report["results"]]
    assert ids == ["L004", "L005", "L006", "L007", "L008", "L009", "L010"]
    assert report["seed"] == 11
    assert report["case"] == "learns"
    again = project.runpytest_inprocess(
        "--ris-select=L009", "--ris-seed=12", "--ris-json=option.json", "--ris-case=tiny:frozen"
    )
    again.assert_outcomes(failed=1)
    report = report_of(project, "option.json")
    assert (report["seed"], report["case"]) == (12, "frozen")


@pytest.mark.slow
def test_ini_twins_reach_the_workers(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nris_case = tiny:learns\nris_select = L009\nris_json = o.json\n")
    project.runpytest_inprocess("-n2").assert_outcomes(passed=1)
    assert [entry["id"] for entry in report_of(project, "o.json")["results"]] == ["L009"]
