"""How results of checks become outcomes of tests, and what a failing one shows."""

import pytest

from tests.expected import letters


def line_of(project: pytest.Pytester, text: str) -> int:
    lines = (project.path / "tiny.py").read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if text in line)


def test_checks_that_do_not_apply_skip_with_the_part(
    project: pytest.Pytester, mode: list[str]
) -> None:
    result = project.runpytest_inprocess(
        *mode, "-rs", "--ris-case=tiny:bare", "--ris-select=L001,L002,L009,overfit"
    )
    result.assert_outcomes(skipped=3 + len(letters("overfit")))
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*does not apply: needs Case.fit (or Case.optimizer *",
            "SKIPPED*does not apply: needs *Case.covariance.*",
            "SKIPPED*does not apply: needs Case.fit (or *), Case.loader, Case.distance, *",
        ]
    )


def test_failing_check_shows_its_message_alone(project: pytest.Pytester, mode: list[str]) -> None:
    result = project.runpytest_inprocess(
        *mode, "--ris-case=tiny:frozen", "--ris-select=L009", "--ris-seed=5"
    )
    result.assert_outcomes(failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*= FAILURES =*",
            "*_ test_check[[]L009-one-step-a-batch-cpu[]] _*",
            "L009 one-step-a-batch: 0 optimiser steps for 12 batches (4 epochs), 0 backward passes",
            f"  Place: tiny.py:{line_of(project, 'def frozen_fit')}",
            "  Try: call zero_grad(), backward() and step() inside the loop over batches",
            "  Reproduce: ris-diag check --case tiny:frozen --select L009 --seed 5",
        ],
    )
    assert not [line for line in result.outlines if line.startswith(("E  ", ">"))]
    result.stdout.no_fnmatch_line("*runner.py*")


def test_without_a_target_the_message_names_the_call(project: pytest.Pytester) -> None:
    project.makeconftest(
        "import pytest, tiny\n@pytest.fixture\ndef ris_case(): return tiny.frozen()"
    )
    result = project.runpytest_inprocess("--ris-select=L009", "--ris-seed=2")
    result.stdout.fnmatch_lines(
        ["  Reproduce: ris_diag.run(case, select='L009', device='cpu', seed=2)"]
    )


def test_exception_in_user_code_names_its_line(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--ris-case=tiny:raising", "--ris-select=L001,L009")
    result.assert_outcomes(failed=2)
    line = line_of(project, "raise ValueError")
    for name in ("L001 one-batch-learns", "L009 one-step-a-batch"):
        result.stdout.fnmatch_lines(
            [
                f"{name}: ValueError: shapes [[]3[]] and [[]4[]] differ",
                f"  Place: tiny.py:{line}, in raising_fit",
                "  Try: mend what the message names, then run this check again",
                "  Reproduce: ris-diag check --case tiny:raising *",
            ],
            consecutive=True,
        )
    result.stdout.fnmatch_lines(
        ["NOT READY: L001, L009 not passed*", "error L001 *", "error L009 *"]
    )


def test_declared_failure_is_an_xfail_with_its_reason(
    project: pytest.Pytester, mode: list[str]
) -> None:
    result = project.runpytest_inprocess(*mode, "-rx", "--ris-case=tiny:known", "--ris-select=L001")
    result.assert_outcomes(xfailed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["xfail L001 one-batch-learns * ticket 12", "XFAIL*ticket 12 (the loop took 0 optimiser*"]
    )


def test_declared_failure_that_passes_fails(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--ris-case=tiny:stale", "--ris-select=L001")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "L001 one-batch-learns: passes, but the case expects it to fail (ticket 12)",
            "  Place: Case.expected_failures[[]'L001'[]]",
            "  Try: remove the entry: the failure is mended",
        ]
    )


def test_a_measurement_shared_by_checks_is_made_once(project: pytest.Pytester) -> None:
    project.makepyfile(
        counted="""
        import dataclasses, tiny
        calls = []

        def fit(model, plan):
            calls.append(plan.epochs)
            return tiny.fit(model, plan)

        def case():
            return dataclasses.replace(tiny.learns(), fit=fit)
        """,
        test_count="""
        import counted

        def test_two(ris_run):
            ris_run("L008")
            ris_run("L009")

        def test_count():
            assert len(counted.calls) == 1
        """,
    )
    result = project.runpytest_inprocess("test_count.py", "--ris-case=counted:case")
    result.assert_outcomes(passed=2)
