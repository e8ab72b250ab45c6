"""Every check fires on a planted fault and is silent on every healthy case."""

import pytest
import torch

import ris_diag
from ris_diag.check import all_checks, get_check
from tests.faults.all import ALL_FAULTS, RANKED_FAULTS
from tests.faults.healthy import HEALTHY
from tests.faults.registry import Fault

FAST = ["guard", "data", "litmus"]  # the laws of the one metric: tests/ris_diag/test_laws.py


FIRING = [fault for fault in ALL_FAULTS if fault.fires]


@pytest.mark.parametrize("fault", FIRING, ids=lambda fault: fault.name)
def test_fault_fires_its_checks(fault: Fault) -> None:
    if fault.device == "cuda" and not torch.cuda.is_available():
        pytest.skip("shows on CUDA alone, which isn't there")
    report = ris_diag.run(fault.plant(), select=fault.fires, device=fault.device)
    silent = [check for check in fault.fires if report[check].status not in ("fail", "error")]
    assert not silent, f"{fault.name}: {silent} did not fire"
    assert fault.says in report[fault.fires[0]].message()


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_case_is_silent(name: str) -> None:
    report = ris_diag.run(HEALTHY[name](), select=FAST)
    assert [
        result.message()
        for result in report.results
        if result.status != "pass" and not result.exempt and result.cause != waits_for(result.id)
    ] == []


def waits_for(check: str) -> str:
    """What a check that takes CUDA says on the CPU."""
    return get_check(check).needs_gpu


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_case_overfits_in_silence(name: str) -> None:
    report = ris_diag.run(HEALTHY[name](), select="overfit")
    assert [r.message() for r in report.results if r.status != "pass" and not r.exempt] == []


def test_every_check_has_a_planted_fault() -> None:
    fired = {check for fault in [*ALL_FAULTS, *RANKED_FAULTS] for check in fault.fires}
    assert {check.id for check in all_checks()} == fired


def test_every_documented_row_is_covered() -> None:
    sources = {source for check in all_checks() for source in check.sources}
    assert {f"S{row}" for row in range(1, 14)} <= sources
