"""A run that asks for no check imports nothing heavy; one without the plugin works."""

import pytest

LIGHT = ("-p", "no:hypothesispytest", "-p", "no:randomly", "-p", "no:benchmark")

# Printed when the interpreter ends: later than every hook of every plugin.
PROBE = """
import atexit, sys

HEAVY = {"torch", "numpy", "hypothesis", "rich", "optuna", "model", "click", "matplotlib", "jinja2"}
atexit.register(lambda: print("heavy:", sorted(HEAVY & set(sys.modules))))
"""


@pytest.fixture
def probed(project: pytest.Pytester) -> pytest.Pytester:
    project.makeconftest(PROBE)
    project.makepyfile(test_suite="def test_other(): pass")
    return project


def heavy(result: pytest.RunResult) -> str:
    return next(line for line in result.outlines if line.startswith("heavy:"))


@pytest.mark.parametrize(
    "options", [(), ("-v", "-n0"), ("--ris-seed=3",), ("--ris-device=cpu",)], ids=" ".join
)
def test_nothing_heavy_is_imported(probed: pytest.Pytester, options: tuple[str, ...]) -> None:
    result = probed.runpytest_subprocess(*LIGHT, *options)
    result.assert_outcomes(passed=1)
    assert heavy(result) == "heavy: []"


def test_tests_for_cuda_are_skipped_without_torch(probed: pytest.Pytester) -> None:
    probed.makepyfile(test_suite="import pytest\n@pytest.mark.cuda\ndef test_it(ris_device): pass")
    result = probed.runpytest_subprocess(*LIGHT)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["1 test for CUDA skipped: no --gpu"])
    assert heavy(result) == "heavy: []"


def test_ini_target_is_not_loaded_in_vain(probed: pytest.Pytester) -> None:
    probed.makeini("[pytest]\nris_case = nowhere:case\n")
    result = probed.runpytest_subprocess(*LIGHT)
    result.assert_outcomes(passed=1)
    assert heavy(result) == "heavy: []"


@pytest.mark.slow
def test_the_probe_can_fail(probed: pytest.Pytester) -> None:
    probed.makepyfile(test_suite="from pytest_ris.suite import test_check")
    result = probed.runpytest_subprocess(*LIGHT, "--ris-case=tiny:bare", "--ris-select=L001")
    result.assert_outcomes(skipped=1)
    assert heavy(result) == "heavy: ['numpy', 'torch']"


def test_options_without_the_plugin_are_unknown(probed: pytest.Pytester) -> None:
    without = probed.runpytest_subprocess("-p", "no:ris")
    without.assert_outcomes(passed=1)
    assert without.ret == 0
    for option in ("--ris-list", "--gpu", "--ris-device=cpu"):
        refused = probed.runpytest_subprocess("-p", "no:ris", option)
        assert refused.ret == 4
        refused.stderr.fnmatch_lines([f"*unrecognized arguments: {option}"])
