"""Devices in pytest: test ids, tests for CUDA, results kept apart, workers that share the GPUs.

Most of it is about several devices, so a conftest.py makes believe that there are two GPUs; what
runs on them runs on the CPU.
"""

import json
from typing import Any

import pytest

from ris_diag.result import Card
from tests.expected import COUNT
from tests.pytest_ris.test_plugin_summary import section

TWO_GPUS = """
import torch

import ris_diag.cuda
import ris_diag.runner
from ris_diag.errors import DeviceError
from ris_diag.result import Card

real = ris_diag.cuda.usable_device, torch.cuda.device_count


def usable_device(name):
    if name not in ("cpu", "cuda", "cuda:0", "cuda:1"):
        raise DeviceError(f"no {name}")
    return torch.device("cpu")


def cards(self):
    if self.device == "cpu":
        return []
    return [Card(device=self.device, name="Fake", capability="1.2", peak_bytes=2**20)]


ris_diag.cuda.usable_device = ris_diag.runner.usable_device = usable_device
torch.cuda.device_count = lambda: 2
ris_diag.runner.Runner.cards = property(cards)
"""
OWN = """
import pytest


def test_plain(ris_device):
    assert ris_device in ("cpu", "cuda:0", "cuda:1")


@pytest.mark.cuda
def test_for_cuda(ris_device):
    assert ris_device.startswith("cuda:")


@pytest.mark.cuda
class TestMore:
    def test_without_the_fixture(self):
        pass
"""


def ids(result: pytest.RunResult) -> list[str]:
    return [line.partition("::")[2] for line in result.outlines if line.startswith("test_")]


def collected(project: pytest.Pytester, *options: str) -> list[str]:
    result = project.runpytest_inprocess("--collect-only", "-q", "--strict-markers", *options)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    return ids(result)


@pytest.fixture
def gpus(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Two GPUs, in this process and in others."""
    import torch

    import ris_diag.cuda
    import ris_diag.runner

    for owner, name in (
        (ris_diag.cuda, "usable_device"),
        (ris_diag.runner, "usable_device"),
        (torch.cuda, "device_count"),
        (ris_diag.runner.Runner, "cards"),
    ):
        monkeypatch.setattr(owner, name, vars(owner)[name])  # put back what conftest.py sets
    project.makeconftest(TWO_GPUS)
    return project


def run(gpus: pytest.Pytester, mode: list[str], *options: str) -> pytest.RunResult:
    return gpus.runpytest_inprocess(*mode, *options)


# Test ids


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([], ["cpu"]),
        (["--ris-device=cpu"], ["cpu"]),
        (["--gpu"], ["cuda0"]),
        (["--gpu", "--ris-device=cuda:1"], ["cuda1"]),
        (["--ris-device=cpu,cuda"], ["cpu", "cuda0"]),
        (["--ris-device=cuda:1", "--ris-device=cpu"], ["cuda1", "cpu"]),
    ],
    ids=" ".join,
)
def test_ids_carry_the_device(gpus: pytest.Pytester, options: list[str], labels: list[str]) -> None:
    found = collected(gpus, "--ris-select=L009", *options)
    assert found == [f"test_check[L009-one-step-a-batch-{label}]" for label in labels]


def test_ids_of_every_door(gpus: pytest.Pytester) -> None:
    gpus.makepyfile(
        test_suite="""
        import pytest, tiny
        from pytest_ris import parametrize_with_checks

        @parametrize_with_checks([tiny.learns])
        def test_decorated(case, check): pass

        @parametrize_with_checks([tiny.learns])
        def test_takes_the_device(ris_device, case, check):
            assert ris_device.startswith(check.device)

        @pytest.mark.cuda
        @parametrize_with_checks([tiny.learns])
        def test_for_cuda(case, check): pass

        def test_run(ris_run): pass

        def test_each(ris_check): pass

        @pytest.mark.parametrize("ris_device", ["cpu"], indirect=True)
        def test_says_itself(ris_device):
            assert ris_device == "cpu"

        def test_other(): pass
        """
    )
    options = ("--ris-select=L009", "--ris-device=cpu,cuda")
    assert collected(gpus, *options) == [
        "test_decorated[learns-L009-one-step-a-batch-cpu]",
        "test_decorated[learns-L009-one-step-a-batch-cuda0]",
        "test_takes_the_device[learns-L009-one-step-a-batch-cpu]",
        "test_takes_the_device[learns-L009-one-step-a-batch-cuda0]",
        "test_for_cuda[learns-L009-one-step-a-batch-cuda0]",
        "test_run[cpu]",
        "test_says_itself[cpu]",
        "test_run[cuda0]",
        "test_each[L009-one-step-a-batch]",
        "test_other",
    ]
    run(gpus, [], *options, "--ris-case=tiny:learns").assert_outcomes(passed=10)


def test_a_suite_of_the_users_stays_as_it_is_unless_a_device_is_asked_for(
    gpus: pytest.Pytester,
) -> None:
    gpus.makepyfile(
        test_suite="""
        def test_a(): pass
        def test_b(ris_device): pass
        def test_c(): pass
        def test_d(ris_run): pass
        """,
        test_tail="def test_e(): pass\ndef test_f(ris_device): assert ris_device == 'cpu'",
    )
    assert collected(gpus) == ["test_a", "test_b", "test_c", "test_d", "test_e", "test_f"]
    told = collected(gpus, "--ris-device=cpu")
    assert sorted(told) == [
        *("test_a", "test_b[cpu]", "test_c", "test_d[cpu]", "test_e", "test_f[cpu]")
    ]
    run(gpus, [], "test_tail.py").assert_outcomes(passed=2)


@pytest.mark.parametrize("expression", ["L009 and cuda0", "cuda"])
def test_devices_by_expression(gpus: pytest.Pytester, expression: str) -> None:
    found = collected(gpus, "--ris-device=cpu,cuda", "--ris-select=L00", "-k", expression)
    assert found
    assert all(name.endswith("-cuda0]") for name in found)


def test_a_device_asked_for_while_a_test_runs(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="def test_it(request): assert request.getfixturevalue('ris_device') == 'cpu'"
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("options", [["--gpu"], ["--ris-device=cpu,cuda:1"]], ids=" ".join)
def test_the_line_that_repeats_a_test_does(gpus: pytest.Pytester, options: list[str]) -> None:
    gpus.makepyfile(
        test_suite="""
        import tiny
        from pytest_ris import parametrize_with_checks

        @parametrize_with_checks([tiny.frozen])
        def test_training(case, check):
            check(case)
        """
    )
    first = run(gpus, [], "--ris-select=L009", *options)
    # With CI set, pytest's summary at the end shows the message again.
    lines = {line for line in first.outlines if "Reproduce: pytest " in line}
    assert len(lines) == len(options[0].split(","))
    for line in lines:
        again = gpus.runpytest_inprocess(*line.replace("'", "").split()[2:])
        again.assert_outcomes(failed=1)
        assert line in again.outlines


# Tests for CUDA


def test_tests_for_cuda_skip_with_the_reason_once(
    project: pytest.Pytester, mode: list[str]
) -> None:
    project.makepyfile(test_suite=OWN)
    result = project.runpytest_inprocess(*mode, "-v", "-rs")
    result.assert_outcomes(passed=1, skipped=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines_random(
        [
            "*test_suite.py::test_for_cuda[[]cuda0[]]*",
            "SKIPPED*: for CUDA: run with --gpu",
        ]
    )
    assert section(result) == ["2 tests for CUDA skipped: no --gpu"]


@pytest.mark.parametrize("option", ["-q", "--ris-device=cpu"])
def test_one_test_for_cuda(project: pytest.Pytester, option: str) -> None:
    project.makepyfile(test_suite=OWN)
    result = project.runpytest_inprocess(option, "-k", "not more")
    result.assert_outcomes(passed=1, skipped=1, deselected=1)
    assert section(result) == ["1 test for CUDA skipped: no --gpu"]


def test_the_line_stands_below_the_checks(project: pytest.Pytester, mode: list[str]) -> None:
    project.makepyfile(test_own=OWN)
    result = project.runpytest_inprocess(*mode, "--ris-case=tiny:learns", "--ris-select=L009")
    lines = section(result)
    assert lines[0] == f"1 pass; no verdict: {COUNT - 1} checks did not run"
    assert lines[-1] == "2 tests for CUDA skipped: no --gpu"


def test_tests_for_cuda_run_where_it_is_asked_for(gpus: pytest.Pytester) -> None:
    gpus.makepyfile(test_suite=OWN)
    run(gpus, [], "--gpu").assert_outcomes(passed=3)
    assert collected(gpus, "--ris-device=cpu,cuda:1", "-m", "cuda") == [
        "test_for_cuda[cuda1]",
        "TestMore::test_without_the_fixture",
    ]
    result = run(gpus, [], "--ris-device=cpu,cuda:1")
    result.assert_outcomes(passed=4)
    result.stdout.no_fnmatch_line("*= ris-diag =*")


@pytest.mark.parametrize("place", ["ini", "conftest"])
def test_a_marker_of_the_projects_own_is_left_alone(project: pytest.Pytester, place: str) -> None:
    if place == "ini":
        project.makeini("[pytest]\nmarkers = cuda(n): needs n GPUs\n")
    else:
        project.makeconftest(
            "def pytest_configure(config): config.addinivalue_line('markers', 'cuda: ours')"
        )
    project.makepyfile(test_suite="import pytest\n@pytest.mark.cuda\ndef test_it(): pass")
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_the_marker_is_described(project: pytest.Pytester) -> None:
    project.runpytest_inprocess("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.cuda: needs a GPU; skipped unless --gpu or --ris-device asks for one"]
    )


# Results, kept apart by device


def report_of(project: pytest.Pytester) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((project.path / "out.json").read_text())
    return report


BOTH = ("--ris-device=cpu,cuda:1", "--ris-json=out.json")
FAKE = "cuda:1: Fake, compute capability 1.2, peak memory 1.0 MiB"


def test_every_check_runs_once_a_device(gpus: pytest.Pytester, mode: list[str]) -> None:
    gpus.makepyfile(
        odd="""
        import dataclasses, tiny

        def fit(model, plan):
            return tiny.fit(model, plan)

        def case():
            return dataclasses.replace(tiny.frozen(), name="odd")
        """
    )
    result = run(gpus, mode, *BOTH, "--ris-case=odd:case", "--ris-select=G001,L009")
    result.assert_outcomes(failed=2, skipped=2)
    lines = section(result)
    assert [line for line in lines if line.startswith(("fail", "cpu: ", "cuda:1"))] == [
        f"cpu: NOT READY: L009 not passed; G001 does not apply to this case, which lacks a part it "
        f"needs; {COUNT - 2} checks did not run",
        *[line for line in lines if line.startswith("fail  L009")][:1],
        f"cuda:1: NOT READY: L009 not passed; G001 does not apply to this case, which lacks a part "
        f"it needs; {COUNT - 2} checks did not run",
        *[line for line in lines if line.startswith("fail  L009")][1:],
        FAKE,
    ]
    assert len([line for line in lines if line.startswith("Diagnosis: C072")]) == 2
    report = report_of(gpus)
    assert (report["schema"], report["case"], report["device"]) == (3, "odd", "cpu, cuda:1")
    assert report["cards"] == [
        {"device": "cuda:1", "name": "Fake", "capability": "1.2", "peak_bytes": 2**20}
    ]
    assert [(e["device"], e["case"], e["id"]) for e in report["results"]] == [
        (device, "odd", check) for device in ("cpu", "cuda:1") for check in ("G001", "L009")
    ]
    assert "diagnosis" not in report
    assert [(e["case"], e["device"], e["named"][0]["id"]) for e in report["diagnoses"]] == [
        ("odd", "cpu", "C072"),
        ("odd", "cuda:1", "C072"),
    ]


def test_cases_and_devices(gpus: pytest.Pytester) -> None:
    gpus.makepyfile(
        test_suite="""
        import tiny
        from pytest_ris import parametrize_with_checks

        @parametrize_with_checks([tiny.frozen, tiny.learns])
        def test_trainings(case, check):
            check(case)
        """
    )
    result = run(gpus, [], *BOTH, "--ris-select=L009", "-q")
    heads = [
        line.partition(": ")[0] for line in section(result) if "L009" in line or "1 pass" in line
    ]
    assert [head for head in heads if not head.startswith(" ")] == [
        "frozen, cpu",
        "frozen, cuda:1",
        "learns, cpu",
        "learns, cuda:1",
    ]
    named = {(e["case"], e["device"]): len(e["named"]) for e in report_of(gpus)["diagnoses"]}
    assert named == {
        ("frozen", "cpu"): 1,
        ("frozen", "cuda:1"): 1,
        ("learns", "cpu"): 0,
        ("learns", "cuda:1"): 0,
    }


def test_one_device_is_not_named_in_vain(gpus: pytest.Pytester, mode: list[str]) -> None:
    options = ("--gpu", "--ris-case=tiny:learns", "--ris-select=L009", "--ris-json=out.json")
    lines = section(run(gpus, mode, *options))
    assert lines[0] == f"1 pass; no verdict: {COUNT - 1} checks did not run"
    assert lines[-1].endswith(": Fake, compute capability 1.2, peak memory 1.0 MiB")
    report = report_of(gpus)
    assert report["device"] == report["results"][0]["device"] == "cuda"
    assert "diagnosis" in report


def test_nothing_is_said_of_cards_without_cuda(project: pytest.Pytester) -> None:
    options = ("--ris-case=tiny:learns", "--ris-select=L009", "--ris-json=out.json")
    result = project.runpytest_inprocess(*options)
    assert "capability" not in str(section(result))
    report = report_of(project)
    assert (report["device"], report["cards"]) == ("cpu", [])


# Workers that share the GPUs


@pytest.mark.slow
def test_workers_spread_over_the_gpus(gpus: pytest.Pytester) -> None:
    gpus.makepyfile(
        test_suite="""
        import pytest
        from pytest_ris.suite import test_check

        @pytest.mark.parametrize("number", range(6))
        def test_own(ris_device, worker_id, number):
            assert ris_device == f"cuda:{int(worker_id[2:]) % 2}"

        def test_by_number(ris_runner, ris_device):
            assert ris_runner.device == ris_device
        """
    )
    options = ("--ris-case=tiny:learns", "--ris-select=L00", "--gpu", "--ris-json=out.json")
    result = run(gpus, ["-n2", "--dist=load"], *options)
    assert result.ret == 0, result.stdout.str()
    report = report_of(gpus)
    assert {entry["device"] for entry in report["results"]} == {"cuda"}
    assert "diagnosis" in report, "one device, whichever GPU each worker took"
    assert {card["device"] for card in report["cards"]} == {"cuda:0", "cuda:1"}
    assert [line[:6] for line in section(result)[-2:]] == ["cuda:0", "cuda:1"]


@pytest.mark.slow
def test_a_number_is_the_same_in_all_workers(gpus: pytest.Pytester) -> None:
    gpus.makepyfile(
        test_suite="""
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_own(ris_device, number):
            assert ris_device == "cuda:1"
        """
    )
    run(gpus, ["-n2"], "--ris-device=cuda:1").assert_outcomes(passed=6)


@pytest.mark.slow
@pytest.mark.parametrize("names", ["one", "gw7"])
def test_workers_of_other_names(gpus: pytest.Pytester, names: str) -> None:
    expected = {"one": "cuda:0", "gw7": "cuda:1"}[names]
    gpus.makepyfile(test_suite=f"def test_own(ris_device): assert ris_device == {expected!r}")
    run(gpus, [f"--tx=popen//id={names}", "-dload"], "--gpu").assert_outcomes(passed=1)


def test_the_fake_is_a_card() -> None:
    assert str(Card(device="cuda:1", name="Fake", capability="1.2", peak_bytes=2**20)) == FAKE
