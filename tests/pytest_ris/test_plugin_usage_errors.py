"""Wrong requests: exit code 4, one ERROR line, no traceback, whether xdist is at work or not."""

import pytest
import torch

from tests.expected import COUNT, FAMILY_NAMES, IDS

UNKNOWN = (
    "unknown check 'Z9': expected an ID, a prefix of IDs, a slug or a family "
    f"({FAMILY_NAMES}); IDs are G001, G002, *, {IDS[-1]}"
)
EXAMPLE = [
    "ERROR: no case: name the training under test:",
    "    ris-diag check --case my_package.my_module:my_case   (or --case train.py)",
    "    pytest --ris-case my_package.my_module:my_case",
    'or once in pyproject.toml: [[]tool.ris-diag[]] case = "my_package.my_module:my_case"',
]
TARGETS = {
    "tiny": "case target 'tiny': expected pkg.mod:factory",
    "nowhere:case": "case target 'nowhere:case': nowhere does not import "
    "(ModuleNotFoundError: No module named 'nowhere')",
    "tiny:not_callable": "case target 'tiny:not_callable': not_callable is a str, not a function "
    "that returns a ris_diag.Case",
    "tiny:crashes": "case target 'tiny:crashes': crashes() raised RuntimeError: no data folder",
    "tiny:gives_a_number": "case target 'tiny:gives_a_number': gives_a_number() returned int (3), "
    "not a ris_diag.Case",
    "tiny:lerns": "case target 'tiny:lerns': tiny has no 'lerns'",
}
OPTIONS = {
    "--ris-select=Z9": UNKNOWN,
    "--ris-ignore=G,Z9": UNKNOWN,
    "--ris-explain=Z9": f"unknown check or cause 'Z9': expected an ID or a slug; *{IDS[-1]}; *",
    "--ris-seed=many": "--ris-seed: expected an integer "
    "(invalid literal for int() with base 10: 'many')",
    f"--ris-ignore={FAMILY_NAMES}": "--ris-select and --ris-ignore leave no check",
    "--ris-json=nowhere/out.json": "--ris-json nowhere/out.json: expected a file in a folder that "
    "exists",
    "--ris-json=.": "--ris-json .: expected a file in a folder that exists",
}


def assert_refused(result: pytest.RunResult, *lines: str) -> None:
    """Exit code 4 and these lines alone on stderr; no test ran, nothing was traced."""
    result.stderr.fnmatch_lines(list(lines), consecutive=True)
    assert [line for line in result.errlines if line] == result.errlines[: len(lines)]
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    for text in (
        "passed",
        "failed",
        "error",
        "Traceback",
        "INTERNALERROR",
        "test_check[",
        "= ris-diag =",
    ):
        assert text not in result.stdout.str()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("xdist", [[], ["-n2"]], ids=["plain", "n2"])
def test_wrong_option(project: pytest.Pytester, option: str, xdist: list[str]) -> None:
    assert_refused(project.runpytest_inprocess(*xdist, option), f"ERROR: {OPTIONS[option]}")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("xdist", [[], ["-n2"]], ids=["plain", "n2"])
def test_wrong_target(project: pytest.Pytester, target: str, xdist: list[str]) -> None:
    result = project.runpytest_inprocess(*xdist, f"--ris-case={target}")
    assert_refused(result, f"ERROR: {TARGETS[target]}")


@pytest.mark.parametrize("target", TARGETS)
def test_wrong_target_in_the_ini_file(project: pytest.Pytester, target: str) -> None:
    project.makeini(f"[pytest]\nris_case = {target}\n")
    assert_refused(project.runpytest_inprocess("--ris-select=L009"), f"ERROR: {TARGETS[target]}")


@pytest.mark.slow
def test_wrong_target_that_only_workers_meet(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nris_case = tiny:crashes\n")
    assert_refused(project.runpytest_inprocess("-n2"), f"ERROR: {TARGETS['tiny:crashes']}")


def test_no_target(project: pytest.Pytester, mode: list[str]) -> None:
    assert_refused(project.runpytest_inprocess(*mode), *EXAMPLE)


def test_no_target_for_the_only_test_that_asks(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="def test_other(): pass\ndef test_own(ris_run): ris_run('L001')\n"
    )
    assert_refused(project.runpytest_inprocess(), *EXAMPLE)
    project.runpytest_inprocess("-k", "other").assert_outcomes(passed=1, deselected=1)


def test_no_target_is_no_matter_to_a_listing(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--collect-only", "-q")
    result.stdout.fnmatch_lines([f"{COUNT} tests collected*"])
    assert result.ret == 0


def test_case_that_names_unknown_checks(project: pytest.Pytester) -> None:
    project.makepyfile(
        odd="import tiny\ndef case(): return tiny.make('odd', expected_failures={'L999': 'why'})"
    )
    result = project.runpytest_inprocess("--ris-case=odd:case", "--ris-select=L009")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["case 'odd': expected_failures[[]'L999'[]] name(s) nothing that exists; *"]
    )
    result.stdout.no_fnmatch_line("*.py:*: in *")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("how", ["option", "ini", "n2"])
def test_gpu_without_cuda(project: pytest.Pytester, how: str) -> None:
    options = {"option": ["--gpu"], "ini": [], "n2": ["--gpu", "-n2"]}[how]
    if how == "ini":
        project.makeini("[pytest]\nris_gpu = true\n")
    result = project.runpytest_inprocess(*options, "--ris-case=tiny:learns")
    assert_refused(
        result, "ERROR: device 'cuda' asked for, but torch * (CUDA build: *) sees 0 CUDA devices"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ris_select = Z9", UNKNOWN),
        ("ris_ignore = Z9", UNKNOWN),
        ("ris_seed = many", "invalid literal for int() with base 10: 'many'"),  # pytest's own
        ("ris_json = nowhere/out.json", OPTIONS["--ris-json=nowhere/out.json"]),
    ],
)
def test_wrong_ini_value(project: pytest.Pytester, line: str, message: str) -> None:
    project.makeini(f"[pytest]\n{line}\n")
    assert_refused(project.runpytest_inprocess(), f"ERROR: {message}")
