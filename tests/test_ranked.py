"""Planted faults and healthy trainings of several processes: each in one real launch of two."""

from typing import Any

import pytest

from ris_diag import Result
from ris_diag.diagnosis import diagnose
from tests.faults.all import RANKED_FAULTS
from tests.faults.matrix import is_right, messages_of
from tests.faults.ranked import launch, target_of
from tests.faults.ranked_parts import RANKED_HEALTHY
from tests.faults.registry import Fault

pytestmark = pytest.mark.slow


def complaints(fault: Fault, told: dict[str, Any]) -> list[str]:
    """What the checks miss of a fault."""
    results = [Result(**result) for result in told["results"]]
    by_id = {result.id: result for result in results}
    first = diagnose(results).named[0] if any(result.findings for result in results) else None
    missed = [
        f"{name} is silent" for name in fault.fires if by_id[name].status not in ("fail", "error")
    ]
    if fault.says not in by_id[fault.fires[0]].message():
        missed.append(f"says {by_id[fault.fires[0]].message()}")
    if first is None or first.cause.slug not in fault.cause:
        missed.append(f"named {first.cause.slug if first else 'nothing'}")
    elif not is_right(first.place, fault):
        missed.append(f"placed at {first.place!r}")
    if told["outcome"] == told["twin"]:
        missed.append("is no fault: it does what its healthy twin does")
    return [f"{fault.name}: {text}" for text in missed]


def test_every_planted_fault_is_real_found_named_and_placed() -> None:
    told = launch(map(target_of, (fault.plant for fault in RANKED_FAULTS)))
    found = [complaints(fault, told[target_of(fault.plant)]) for fault in RANKED_FAULTS]
    assert [text for texts in found for text in texts] == []


def test_healthy_trainings_are_silent_and_do_the_same_twice() -> None:
    targets = list(map(target_of, RANKED_HEALTHY.values()))
    told = launch(targets, ("guard", "data", "litmus"))
    assert {target: messages_of(told[target]) for target in targets} == {t: [] for t in targets}
    assert [t for t in targets if told[t]["outcome"] != told[t]["twin"]] == []
    assert [t for t in targets if any("raises" in rank for rank in told[t]["outcome"])] == []


def test_there_are_many() -> None:
    assert len(RANKED_FAULTS) >= 20
    assert len(RANKED_HEALTHY) >= 12


def test_the_launch_tells_what_goes_wrong_in_it() -> None:
    with pytest.raises(RuntimeError, match="has no attribute 'nothing'"):
        launch(["tests.faults.ranked_parts:nothing"])
