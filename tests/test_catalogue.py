"""The catalogue of planted faults: complete, and every fault is real."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

import ris_diag
from ris_diag import Case
from ris_diag.cause import AREAS, all_causes
from tests.faults.all import ALL_FAULTS, RANKED_FAULTS
from tests.faults.effects import differences, effect, has_effect, healthy_outcome, outcome
from tests.faults.healthy import HEALTHY
from tests.faults.registry import FOLDER, HERE, Fault, marked_lines, planted_lines
from tests.faults.zoo import ZOO

OTHERS = [fault for fault in ALL_FAULTS if not isinstance(fault.plant, partial)]  # no metrics
EVERY = [*ALL_FAULTS, *RANKED_FAULTS]
TWINS = list({fault.healthy: None for fault in ALL_FAULTS if fault.healthy is not None})
# Those that are tried elsewhere with every check.
TRIED = [*ZOO.values(), *HEALTHY.values()]


def named(value: object) -> str:
    return str(getattr(value, "name", getattr(value, "__name__", value)))


def located(healthy: Callable[[], Case]) -> str:
    return f"{healthy.__module__.removeprefix('tests.faults.')}-{healthy.__name__}"


@pytest.mark.parametrize("fault", ALL_FAULTS, ids=named)
def test_fault_is_real(fault: Fault) -> None:
    assert has_effect(fault)


@pytest.mark.parametrize("healthy", TWINS, ids=located)
def test_healthy_case_has_one_outcome(healthy: Callable[[], Case]) -> None:
    assert differences(outcome(healthy()), healthy_outcome(healthy)) == []


@pytest.mark.parametrize("healthy", [t for t in TWINS if t not in TRIED], ids=located)
def test_healthy_case_is_silent(healthy: Callable[[], Case]) -> None:
    report = ris_diag.run(healthy(), select=["guard", "litmus"])
    assert [r.message() for r in report.results if r.status in ("fail", "error")] == []


def test_a_fault_without_effect_is_found_out() -> None:
    fault = OTHERS[-1]
    assert fault.healthy is not None
    assert not has_effect(replace(fault, plant=fault.healthy, proof=None))


def test_an_effect_is_seen_where_it_is() -> None:
    by_name = {fault.name: fault for fault in ALL_FAULTS}
    assert effect(by_name["blend_broadcasts"]) == ["covariance.refused.broadcast"]
    assert effect(by_name["logs_nothing"]) == ["run.logged"]
    assert all(n.startswith("data.loader") for n in effect(by_name["loader_is_sorted_by_class"]))


def test_names_are_unique() -> None:
    names = [fault.name for fault in EVERY]
    assert len(names) == len(set(names))


def test_there_are_many() -> None:
    assert len(OTHERS) >= 200


def test_every_cause_is_planted() -> None:
    assert {slug for fault in EVERY for slug in fault.cause} == {c.slug for c in all_causes()}


def test_every_area_is_planted() -> None:
    area = {cause.slug: cause.area for cause in all_causes()}
    first = [area[fault.cause[0]] for fault in [*OTHERS, *RANKED_FAULTS]]
    assert {name: first.count(name) >= 8 for name in AREAS} == dict.fromkeys(AREAS, True)


@pytest.mark.parametrize("fault", EVERY, ids=named)
def test_fault_is_declared_in_full(fault: Fault) -> None:
    assert fault.cause
    assert fault.place
    assert fault.healthy is not None
    assert fault.source
    if HERE in fault.place:
        assert planted_lines(fault)
    if fault in OTHERS or fault in RANKED_FAULTS:
        assert marked_lines(fault.name)
        assert marked_lines(fault.name) <= planted_lines(fault)


def test_every_mark_is_that_of_a_fault() -> None:
    names = {fault.name for fault in EVERY}
    marks = {
        line.partition("# planted: ")[2].strip()
        for path in FOLDER.glob("[!r]*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "# planted: " in line
    }
    assert marks <= names


def test_files_are_short() -> None:
    lengths = {
        p.name: len(p.read_text(encoding="utf-8").splitlines()) for p in FOLDER.glob("plant_*")
    }
    assert {name for name, count in lengths.items() if count > 400} == set()
