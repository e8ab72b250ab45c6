"""The doors for those who write no factory: a decorated test, a script, a main()."""

import json
import os
import sys
from pathlib import Path

import pytest

import pytest_ris
import ris_diag
from ris_diag.errors import CaseError
from ris_diag.target import configured_target, load_case
from tests.expected import COUNT, letters

DECORATED = """
import tiny
from pytest_ris import parametrize_with_checks

@parametrize_with_checks([{cases}])
def test_trainings(case, check):
    check(case)
"""
SCRIPT = """
import os, sys
import torch
from helpers import BATCHES

class Net(torch.nn.Linear):
    pass

def main():
    model = Net(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in BATCHES:
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

found = getattr(sys.modules["__main__"], "Net", None) is Net
os.SEEN.append((list(sys.argv), __name__, found, __file__))
if __name__ == "__main__":
    os.chdir("..")
    sys.argv.append("--changed")
    main()
    {end}
"""
HELPERS = """
import torch

BATCHES = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range({number})]
"""


def decorate(project: pytest.Pytester, cases: str) -> None:
    project.makepyfile(test_suite=DECORATED.format(cases=cases))


# A test that lists its trainings


def test_one_test_a_case_and_check(project: pytest.Pytester, mode: list[str]) -> None:
    decorate(project, "tiny.learns, tiny.frozen(), tiny.known")
    result = project.runpytest_inprocess(*mode, "-v", "-rsx", "--ris-select=L001,L002")
    result.assert_outcomes(passed=1, failed=1, xfailed=1, skipped=3)
    assert result.ret == 1
    test = "test_suite.py::test_trainings"
    for name, outcome in (
        ("learns-L001-one-batch-learns-cpu", "PASSED"),
        ("frozen-L001-one-batch-learns-cpu", "FAILED"),
        ("known-L001-one-batch-learns-cpu", "XFAIL"),
        ("learns-L002-beta-walk-cpu", "SKIPPED"),
    ):
        lines = [line for line in result.outlines if f"{test}[{name}]" in line]
        assert any(outcome in line for line in lines), name
    result.stdout.fnmatch_lines_random(
        [
            "L001 one-batch-learns: the loop took 0 optimiser steps, *",
            f"  Reproduce: pytest '{test}[[]frozen-L001-one-batch-learns-cpu[]]' --ris-seed 0",
            "SKIPPED*does not apply: needs *Case.covariance.*",
            "XFAIL*ticket 12 (the loop took 0 optimiser*",
        ]
    )
    assert not [line for line in result.outlines if line.startswith(("E  ", ">"))]


def test_summary_and_report_tell_cases_apart(project: pytest.Pytester, mode: list[str]) -> None:
    decorate(project, "tiny.frozen, tiny.learns")
    result = project.runpytest_inprocess(*mode, "--ris-select=L009", "--ris-json=out.json")
    result.stdout.fnmatch_lines(
        [
            "=* ris-diag =*",
            f"frozen: NOT READY: L009 not passed; {COUNT - 1} checks did not run",
            "",
            "Diagnosis: C072 steps-missing, *",
            *["  *"] * 5,
            "",
            "litmus * s  1 fail",
            "fail  L009 one-step-a-batch: *",
            "",
            f"learns: 1 pass; no verdict: {COUNT - 1} checks did not run",
            "",
            "litmus * s  1 pass",
        ],
        consecutive=True,
    )
    report = json.loads((project.path / "out.json").read_text())
    assert report["case"] == "frozen, learns"
    assert [(entry["case"], entry["status"]) for entry in report["results"]] == [
        ("frozen", "fail"),
        ("learns", "pass"),
    ]


def test_first_cause_and_verdict_where_quiet(project: pytest.Pytester) -> None:
    decorate(project, "tiny.frozen, tiny.learns")
    result = project.runpytest_inprocess("-q", "--ris-select=L009")
    result.stdout.fnmatch_lines(
        [
            "=* ris-diag =*",
            "frozen: NOT READY: *",
            "frozen: Diagnosis: C072 *",
            "learns: 1 pass; *",
        ],
        consecutive=True,
    )


def test_cases_do_not_make_each_other_ready(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="""
        import pytest
        from ris_diag.check import all_checks

        @pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
        def test_recorded(check, record_property):
            result = dict(id=check.id, slug="s", family=check.family, title="t", status="pass")
            case = "a" if check.id[0] == "G" else "b"
            record_property("ris", dict(case=case, device="cpu", cards=[], result=result))
        """
    )
    result = project.runpytest_inprocess()
    result.stdout.fnmatch_lines(["a: * checks did not run", "b: * checks did not run"])
    result.stdout.no_fnmatch_line("*READY FOR*")


@pytest.mark.parametrize("family", ["guard", "law", "litmus", "overfit"])
def test_families_by_marker(project: pytest.Pytester, family: str) -> None:
    decorate(project, "tiny.learns, tiny.frozen")
    result = project.runpytest_inprocess("--collect-only", "-q", "--strict-markers", "-m", family)
    ids = [line.split("-")[1] for line in result.outlines if line.startswith("test_suite.py::")]
    assert "".join(test_id[0] for test_id in ids) == 2 * letters(family)


def test_the_result_is_given_and_a_measurement_is_made_once(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="""
        import dataclasses, tiny
        from pytest_ris import parametrize_with_checks

        calls, made = [], []

        def fit(model, plan):
            calls.append(plan.epochs)
            return tiny.fit(model, plan)

        def counted():
            made.append(1)
            return dataclasses.replace(tiny.learns(), name="counted", fit=fit)

        @parametrize_with_checks([counted])
        def test_trainings(case, check):
            assert repr(check) == f"<check {check.id}>"
            assert check(case).id == check.id

        class TestMore:
            @parametrize_with_checks([counted])
            def test_again(self, check, case, tmp_path):
                assert check(case).status == "pass"

        def test_count():
            assert len(calls) == 1 == len(made)
        """
    )
    result = project.runpytest_inprocess("--ris-select=L008,L009")
    result.assert_outcomes(passed=5)


def test_it_stands_beside_other_parameters(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="""
        import pytest, tiny
        from pytest_ris import parametrize_with_checks

        @pytest.fixture
        def check():
            raise AssertionError("the name belongs to another plugin")

        @pytest.mark.parametrize("number", [1, 2])
        @parametrize_with_checks([tiny.learns])
        def test_trainings(case, check, number):
            check(case)
        """
    )
    result = project.runpytest_inprocess("-v", "--ris-select=L009")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*[[]learns-L009-one-step-a-batch-cpu-2[]] PASSED*"])


REFUSED = {
    "tiny.learns, tiny.frozen, tiny.learns()": "more than one case is named 'learns': give each "
    "its own Case.name",
    "": "parametrize_with_checks([[][]]): expected at least one case",
    "3": "expected a ris_diag.Case or a function that gives one, not int: 3",
    "tiny.crashes": "crashes() raised RuntimeError: no data folder*",
    "tiny.gives_a_number": "gives_a_number() returned int (3), not a ris_diag.Case",
}


@pytest.mark.parametrize("cases", REFUSED)
@pytest.mark.parametrize(
    "xdist", [[], ["--collect-only"], pytest.param(["-n2"], marks=pytest.mark.slow)], ids=" ".join
)
def test_wrong_lists(project: pytest.Pytester, cases: str, xdist: list[str]) -> None:
    decorate(project, cases)
    result = project.runpytest_inprocess(*xdist)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: test_suite.py::test_trainings: {REFUSED[cases]}"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "passed" not in result.stdout.str()


def test_a_wrong_declaration_fails_its_test(project: pytest.Pytester) -> None:
    decorate(project, "tiny.make('odd', exempt={'L999': 'why'})")
    result = project.runpytest_inprocess("--ris-select=L009")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["case 'odd': exempt[[]'L999'[]] names nothing that exists*"])
    result.stdout.no_fnmatch_line("*session.py*")


@pytest.mark.parametrize("given", [ris_diag.Case(name="alone"), print, "tiny:learns", 3])
def test_something_else_than_a_list(given: object) -> None:
    with pytest.raises(TypeError, match=r"expected a list of cases, @parametrize_with_checks\(\["):
        pytest_ris.parametrize_with_checks(given)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_import_is_light(project: pytest.Pytester) -> None:
    code = "import pytest_ris, sys; print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    result = project.run(sys.executable, "-c", code)
    assert result.outlines == ["[]"]


# A script, or a main()


@pytest.fixture
def script(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """train.py beside its helpers, in a folder of its own."""
    monkeypatch.setattr(os, "SEEN", [], raising=False)
    return written(project.mkdir("user"), 8)


def written(folder: Path, steps: int) -> Path:
    (folder / "helpers.py").write_text(HELPERS.format(number=steps))
    (folder / "train.py").write_text(SCRIPT.format(end="sys.exit()"))
    return folder / "train.py"


def surroundings() -> tuple[list[str], list[str], object, str]:
    return list(sys.argv), list(sys.path), sys.modules["__main__"], os.getcwd()


def steps_of(case: ris_diag.Case, stop_after: int | None = None) -> int:
    assert case.main is not None
    with ris_diag.observe(stop_after=stop_after) as trace:
        case.main()
    return len(trace.steps)


def test_script(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_case("user/train.py")
    assert case.name == "train.py"
    seen = os.SEEN  # type: ignore[attr-defined]
    assert not seen, "it ran when it was loaded"
    before = surroundings()
    assert steps_of(case, stop_after=3) == 3
    assert surroundings() == before
    assert seen.pop() == ([str(script)], "__main__", True, str(script))
    monkeypatch.chdir(script.parent)
    assert steps_of(case) == 8, "as often as one likes, from wherever, in full"


def test_scripts_have_helpers_of_their_own(project: pytest.Pytester, script: Path) -> None:
    other = written(project.mkdir("other"), 5)
    assert steps_of(load_case(str(script))) == 8
    assert steps_of(load_case(str(other))) == 5
    assert "helpers" not in sys.modules


def test_function_main(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(script.parent)
    case = load_case("train:main")
    assert case.name == "train:main"
    before = surroundings()
    assert steps_of(case, stop_after=3) == 3
    assert surroundings() == before


@pytest.mark.parametrize(
    ("end", "code"), [("sys.exit(0)", None), ("sys.exit(2)", 2), ("sys.exit('no data')", "no data")]
)
def test_the_end_of_a_script(script: Path, end: str, code: object) -> None:
    script.write_text(SCRIPT.format(end=end))
    before = surroundings()
    case = load_case("user/train.py")
    assert case.main is not None
    if code is None:
        case.main()
    else:
        with pytest.raises(SystemExit) as stopped:
            case.main()
        assert stopped.value.code == code
    assert surroundings() == before


def test_the_place_of_a_script_is_the_users(script: Path) -> None:
    from ris_diag.places import where

    (script.parent / "loop.py").write_text("\n\ndef main():\n    pass\n")
    sys.path.insert(0, str(script.parent))
    assert where(load_case("user/train.py").main) == "user/train.py:1"
    assert where(load_case("loop:main").main) == "user/loop.py:3"


@pytest.mark.usefixtures("script")
def test_main_that_is_a_case(project: pytest.Pytester) -> None:
    project.makepyfile(
        named="import tiny\nmain = tiny.learns()\n",
        typed="import tiny\ndef main() -> 'ris_diag.Case': return tiny.learns()\n",
    )
    assert load_case("named:main").name == load_case("typed:main").name == "learns"


WRONG = {
    "user/trian.py": "No such file or directory; user has broken.py, helpers.py, train.py",
    "nowhere/train.py": "No such file or directory",
    "user/folder.py": "Is a directory; user has broken.py, helpers.py, train.py",
    "user/broken.py": "not a Python script (SyntaxError: '(' was never closed (broken.py, line 2))",
    "user/null.py": "not a Python script (*null bytes*)",
    "args:main": "main can't be called without arguments (missing a required argument: 'args'); "
    "name a function that returns ris_diag.Case(name=..., main=lambda: main(...))",
}


@pytest.fixture
def wrong(project: pytest.Pytester, script: Path) -> pytest.Pytester:
    (script.parent / "broken.py").write_text("x = 1\nprint(x\n")
    (script.parent / "folder.py").mkdir()
    project.makepyfile(args="def main(args): pass")
    return project


@pytest.mark.parametrize("target", WRONG)
@pytest.mark.parametrize("xdist", [[], ["-n2"]], ids=["plain", "n2"])
def test_wrong_script(wrong: pytest.Pytester, target: str, xdist: list[str]) -> None:
    if "null" in target:
        (wrong.path / target).write_bytes(b"x = 1\0\n")
    result = wrong.runpytest_inprocess(*xdist, f"--ris-case={target}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: case target '{target}': {WRONG[target]}"])
    assert len(list(filter(None, result.errlines))) == 1


def test_script_under_pytest_and_the_command_line(script: Path, project: pytest.Pytester) -> None:
    from click.testing import CliRunner

    from ris_diag.cli import main

    result = project.runpytest_inprocess("--ris-case=user/train.py", "--ris-select=G001,L009")
    result.assert_outcomes(passed=1, skipped=1)
    told = CliRunner().invoke(main, ["check", "-v", "--case=user/train.py", "--select=L009"])
    assert "pass  L009" in told.output
    assert CliRunner().invoke(main, ["check", "--case=user/trian.py"]).exit_code == 2


def test_script_named_in_pyproject(
    script: Path, project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyprojecttoml('[tool.ris-diag]\ncase = "user/train.py"\n')
    assert configured_target() == os.path.join("user", "train.py")
    monkeypatch.chdir(script.parent)
    assert configured_target() == "train.py"
    assert load_case("train.py").main is not None


def test_errors_have_one_line() -> None:
    with pytest.raises(CaseError) as refused:
        load_case("nowhere.py")
    assert "\n" not in str(refused.value)
