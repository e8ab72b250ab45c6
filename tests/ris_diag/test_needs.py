"""A check gets along with the parts of the case that it says it needs, and no others."""

import re
from dataclasses import fields, replace
from typing import Any

import pytest

import ris_diag
from ris_diag.check import Check, all_checks
from tests.faults.healthy import small

OPTIONAL = (
    *("model", "batch", "loss", "fit", "loader", "predict", "truth", "distance", "covariance"),
    *("declared", "metric"),
)
# What a check may need by another name to the part of the reference that gives it.
GIVES = {
    "fit": {"loop", "run"},
    "model": {"run", "inputs"},
    "batch": {"run", "inputs"},
    "predict": {"prediction"},
    "loader": {"served"},
}


def needed(check: Check, part: str) -> bool:
    parts = {need.partition(".")[0] for need in check.needs}
    return part in parts or bool(GIVES.get(part, set()) & parts)


def stripped_covariance(check: Check) -> ris_diag.Covariance | None:
    """Those parts of the reference's covariance that a check says it needs."""
    given = small().covariance
    names = [need.partition(".")[2] for need in check.needs if need.startswith("covariance.")]
    return ris_diag.Covariance(**{n: getattr(given, n) for n in names}) if names else None


# The reference trains in one process: tests/ris_diag/test_ranks.py has those that take several.
HERE = [check for check in all_checks() if "ranks" not in check.needs]
MEANT = [check for check in HERE if check.id not in small().exempt and not check.cuda]
PAIRS = [(check, part) for check in HERE for part in OPTIONAL if needed(check, part)]


@pytest.mark.parametrize("check", MEANT, ids=lambda check: check.id)
def test_a_check_runs_on_what_it_needs(check: Check) -> None:
    case = small()
    unneeded: dict[str, Any] = {part: None for part in OPTIONAL if not needed(check, part)}
    unneeded["covariance"] = stripped_covariance(check)
    stripped = replace(case, **unneeded, paths=case.paths if "paths" in check.needs else {})
    assert all(stripped.offers(part) for part in check.needs)
    result = ris_diag.run(stripped, select=check.id)[check.id]
    assert result.status == "pass", result.message()


@pytest.mark.parametrize(("check", "part"), PAIRS, ids=lambda value: getattr(value, "id", value))
def test_a_check_skips_without_a_part_it_needs(check: Check, part: str) -> None:
    without: dict[str, Any] = {part: None, "exempt": {}}
    if part == "predict" and "predict" not in check.needs:
        without |= {"covariance": None, "loss": None}  # each gives a prediction, too
    result = ris_diag.run(replace(small(), **without), select=check.id)[check.id]
    assert result.status == "skip"
    assert re.search(rf"Case.({part}|fit|predict)\b", result.cause)


@pytest.mark.parametrize("check", ["L026", "L027", "L032"])
def test_the_loss_of_a_curriculum_gives_a_prediction(check: str) -> None:
    case = replace(small(), predict=None, covariance=None, exempt={})
    result = ris_diag.run(case, select=check)[check]
    assert result.status == "pass", result.message()


def test_the_optional_parts_are_those_of_a_case() -> None:
    declarations = {"name", "paths", "expected_failures", "exempt", "thresholds", "restore"}
    doors = {"optimizer", "step", "scheduler", "main"}  # the reference has a loop
    doors |= {"oracle", "stored", "baselines"}  # a truth, no files, covariances with their own
    doors |= {"distributed"}  # one process
    assert {item.name for item in fields(ris_diag.Case)} - declarations - doors == set(OPTIONAL)
