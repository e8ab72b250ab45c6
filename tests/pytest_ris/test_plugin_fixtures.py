"""What a user writes: his own ris_case, tests with ris_run, markers."""

import pytest

OVERRIDE = """
import pytest, tiny

@pytest.fixture(scope="{scope}")
def ris_case():
    return tiny.{case}()
"""


def test_conftest_names_the_case(project: pytest.Pytester, mode: list[str]) -> None:
    project.makeconftest(OVERRIDE.format(scope="session", case="learns"))
    result = project.runpytest_inprocess(*mode, "-rs", "--ris-select=L001,L002,L008,L009,L010")
    result.assert_outcomes(passed=3, skipped=2)
    result.stdout.fnmatch_lines(["*does not apply: needs *Case.covariance.*"])


def test_a_fresh_case_for_every_test(project: pytest.Pytester) -> None:
    project.makeconftest(OVERRIDE.format(scope="function", case="learns"))
    result = project.runpytest_inprocess("--ris-select=L008,L009")
    result.assert_outcomes(passed=2)


def test_override_may_take_other_fixtures(project: pytest.Pytester) -> None:
    project.makeconftest(
        "import pytest, tiny\n"
        "@pytest.fixture(params=['learns', 'frozen'])\n"
        "def ris_case(request):\n"
        "    return getattr(tiny, request.param)()\n"
    )
    result = project.runpytest_inprocess("-v", "--ris-select=L009")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*learns-L009* PASSED*", "*frozen-L009* FAILED*"])


def test_module_overrides_conftest(project: pytest.Pytester) -> None:
    project.makeconftest(OVERRIDE.format(scope="session", case="frozen"))
    project.makepyfile(test_suite="from pytest_ris.suite import test_check\nfrom near import *")
    project.makepyfile(near=OVERRIDE.format(scope="module", case="learns"))
    project.runpytest_inprocess("--ris-select=L001").assert_outcomes(passed=1)


def test_ris_run_gives_the_result(project: pytest.Pytester, mode: list[str]) -> None:
    project.makepyfile(
        test_suite="""
        def test_own(ris_run, ris_device):
            result = ris_run("L001")
            assert ris_device == "cpu"
            assert result.status == "pass"
            assert result.measurements["drop"] > 0.2
            assert ris_run("one-batch-learns") is result

        def test_unknown(ris_run):
            ris_run("L999")

        def test_goes_no_further(ris_run):
            ris_run("G001")
            assert False, "G001 does not apply: this line is not reached"
        """
    )
    result = project.runpytest_inprocess(*mode, "--ris-case=tiny:learns", "-rs")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["unknown check 'L999': expected an ID, a prefix of IDs, a slug or a family (*"]
    )
    result.stdout.fnmatch_lines(["*SKIPPED*does not apply: needs Case.declared"])
    result.stdout.no_fnmatch_line("*ris_diag/check.py*")


def test_result_recorded_in_setup_is_shown(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="""
        import pytest

        @pytest.fixture
        def checked(ris_run):
            return ris_run("L001")

        def test_own(checked):
            assert checked.status == "pass"
        """
    )
    failed = project.runpytest_inprocess("--ris-case=tiny:frozen")
    failed.assert_outcomes(errors=1)
    failed.stdout.fnmatch_lines(["NOT READY: L001 not passed*", "fail  L001 one-batch-learns: *"])
    passed = project.runpytest_inprocess("--ris-case=tiny:learns")
    passed.assert_outcomes(passed=1)
    passed.stdout.fnmatch_lines(["1 pass; no verdict*"])


def test_case_of_the_wrong_type(project: pytest.Pytester) -> None:
    project.makeconftest(OVERRIDE.format(scope="session", case="gives_a_number"))
    result = project.runpytest_inprocess("--ris-select=L001")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["expected a ris_diag.Case, not int: 3"])
    result.stdout.no_fnmatch_line("*pytest_ris/*.py*")


def test_a_test_of_the_users_own_per_check(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="""
        seen = []

        def test_each(ris_check):
            seen.append(ris_check)

        def test_all():
            assert seen == ["G001", "O003"]
        """
    )
    result = project.runpytest_inprocess("-v", "--ris-select=G001,O003")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "test_suite.py::test_each[[]G001-weights-in-range[]] PASSED*",
            "test_suite.py::test_each[[]O003-worth-a-search[]] PASSED*",
        ]
    )


@pytest.mark.parametrize(("family", "letter"), [("guard", "G"), ("litmus", "L"), ("overfit", "O")])
def test_markers_select_families(project: pytest.Pytester, family: str, letter: str) -> None:
    result = project.runpytest_inprocess("--collect-only", "-q", "--strict-markers", "-m", family)
    ids = [line.split("[")[1] for line in result.outlines if line.startswith("test_suite.py::")]
    assert ids
    assert {test_id[0] for test_id in ids} == {letter}
    assert result.ret == 0


def test_markers_are_described(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.guard: wiring: *",
            "@pytest.mark.litmus: a few optimiser steps *",
            "@pytest.mark.overfit: a short training: *",
        ]
    )


def test_ready_made_module_by_name(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess(
        "--pyargs", "pytest_ris.suite", "--ris-case=tiny:learns", "--ris-select=L008,L009"
    )
    result.assert_outcomes(passed=2)
