"""Wrong requests: exit code 4, one ERROR line, no traceback, whether xdist is at work or not."""

import pytest
import torch

from tests.expected import COUNT, FAMILY_NAMES

UNKNOWN = (
    "unknown check 'Z9': expected an ID, a prefix of IDs, a slug or a family "
    f"({FAMILY_NAMES}); `ris-diag list` shows all"
)
EXAMPLE = [
    "ERROR: no case: name the training under test:",
    "    ris-diag check --case my_package.my_module:my_case   (or --case train.py)",
    "    pytest --ris-case my_package.my_module:my_case",
    'or once in pyproject.toml: [[]tool.ris-diag[]] case = "my_package.my_module:my_case"',
]
TARGETS = {
    "tiny": "case target 'tiny': expected a module and a function, tiny:my_case, or a script, "
    "tiny.py",
    "nowhere:case": "case target 'nowhere:case': nowhere does not import "
    "(ModuleNotFoundError: No module named 'nowhere'); the working folder is *",
    "tiny:not_callable": "case target 'tiny:not_callable': not_callable is a str, not a function "
    "that returns a ris_diag.Case",
    "tiny:crashes": "case target 'tiny:crashes': crashes() raised RuntimeError: no data folder "
    "(tiny.py:*, in crashes)",
    "tiny:gives_a_number": "case target 'tiny:gives_a_number': gives_a_number() returned int (3), "
    "not a ris_diag.Case",
    "tiny:lerns": "case target 'tiny:lerns': tiny has no 'lerns'; did you mean 'learns'?",
}
OPTIONS = {
    "--ris-select=Z9": UNKNOWN,
    "--ris-ignore=G,Z9": UNKNOWN,
    "--ris-explain=Z9": "unknown check or cause 'Z9': expected an ID or a slug; *",
    "--ris-seed=many": "--ris-seed: expected an integer "
    "(invalid literal for int() with base 10: 'many')",
    f"--ris-ignore={FAMILY_NAMES}": "--ris-select and --ris-ignore leave no check",
    "--ris-json=nowhere/out.json": "--ris-json nowhere/out.json: expected a file in a folder that "
    "exists",
    "--ris-html=nowhere/page.html": "--ris-html nowhere/page.html: expected a file in a folder "
    "that exists",
    "--ris-html=.": "--ris-html .: expected a file in a folder that exists",
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
        ["case 'odd': expected_failures[[]'L999'[]] names nothing that exists*"]
    )
    result.stdout.no_fnmatch_line("*.py:*: in *")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("xdist", [[], ["-n0"], ["-n2"]], ids=["plain", "n0", "n2"])
@pytest.mark.parametrize(
    ("option", "line", "device"),
    [
        ("--gpu", "", "cuda"),
        ("--ris-device=cuda", "", "cuda"),
        ("--ris-device=cpu,cuda:1", "", "cuda:1"),
        ("--ris-seed=0", "ris_gpu = true", "cuda"),
        ("--ris-seed=0", "ris_device = cpu cuda", "cuda"),
        ("--gpu", "ris_device = cpu", "cuda"),
    ],
)
def test_cuda_that_is_not_there(
    project: pytest.Pytester, option: str, line: str, device: str, xdist: list[str]
) -> None:
    project.makeini(f"[pytest]\n{line}\n")
    result = project.runpytest_inprocess(*xdist, option, "--ris-case=tiny:learns")
    assert_refused(
        result,
        f"ERROR: device '{device}' asked for, but torch sees no CUDA device: torch "
        f"{torch.__version__}, built *; * driver *; CUDA_VISIBLE_DEVICES *. Try: *",
    )


WRONG_DEVICES = {
    "tpu": "--ris-device tpu: tpu isn't known",
    "cpu,gpu,cuda:x,cuda:01": "--ris-device cpu,gpu,cuda:x,cuda:01: gpu isn't known, cuda:x isn't "
    "known, cuda:01 isn't known",
    "cpu,cpu": "--ris-device cpu,cpu: cpu is there twice",
    "cuda,cuda:0,mps": "--ris-device cuda,cuda:0,mps: mps isn't known, cuda0 is there twice",
    ",": "--ris-device: no device",
}


@pytest.mark.parametrize("devices", WRONG_DEVICES)
@pytest.mark.parametrize("xdist", [[], ["-n0"], ["-n2"]], ids=["plain", "n0", "n2"])
def test_wrong_devices(project: pytest.Pytester, devices: str, xdist: list[str]) -> None:
    expected = "; expected cpu, cuda or cuda:N, separated by commas"
    message = f"ERROR: {WRONG_DEVICES[devices]}{expected}"
    assert_refused(project.runpytest_inprocess(*xdist, f"--ris-device={devices}"), message)


@pytest.mark.parametrize("xdist", [[], ["-n0"], ["-n2"]], ids=["plain", "n0", "n2"])
def test_devices_that_contradict_each_other(project: pytest.Pytester, xdist: list[str]) -> None:
    message = "ERROR: --gpu beside --ris-device cpu: expected one of them, or cuda in the list"
    assert_refused(project.runpytest_inprocess(*xdist, "--gpu", "--ris-device=cpu"), message)
    project.makeini("[pytest]\nris_gpu = true\nris_device = cpu\n")
    message = "ERROR: ris_gpu beside ris_device = cpu: expected one of them, or cuda in the list"
    assert_refused(project.runpytest_inprocess(*xdist), message)


def test_the_command_line_wins_over_the_ini_file(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nris_gpu = true\nris_device = nonsense\n")
    result = project.runpytest_inprocess(
        "--ris-device=cpu", "--ris-case=tiny:learns", "--ris-select=L009"
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ris_select = Z9", UNKNOWN),
        ("ris_ignore = Z9", UNKNOWN),
        ("ris_seed = many", "invalid literal for int() with base 10: 'many'"),  # pytest's own
        (
            "ris_device = cpu,tpu",
            "ris_device = cpu,tpu: tpu isn't known; expected cpu, cuda or cuda:N, separated by "
            "commas",
        ),
        ("ris_json = nowhere/out.json", OPTIONS["--ris-json=nowhere/out.json"]),
    ],
)
def test_wrong_ini_value(project: pytest.Pytester, line: str, message: str) -> None:
    project.makeini(f"[pytest]\n{line}\n")
    assert_refused(project.runpytest_inprocess(), f"ERROR: {message}")
