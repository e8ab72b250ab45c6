"""A check gets along with the parts of the case that it says it needs, and no others."""

from dataclasses import fields, replace
from typing import Any

import pytest

import ris_diag
from ris_diag.check import Check, all_checks
from tests.faults.healthy import small

OPTIONAL = ("model", "batch", "loss", "fit", "loader", "distance", "covariance", "declared")


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
def test_a_check_runs_on_what_it_needs(check: Check) -> None:
    case = small()
    unneeded: dict[str, Any] = {part: None for part in OPTIONAL if part not in check.needs}
    stripped = replace(case, **unneeded, paths=case.paths if "paths" in check.needs else {})
    assert all(stripped.offers(part) for part in check.needs)
    result = ris_diag.run(stripped, select=check.id)[check.id]
    assert result.status == ("skip" if result.exempt else "pass"), result.message()


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.id)
@pytest.mark.parametrize("part", OPTIONAL)
def test_a_check_skips_without_a_part_it_needs(check: Check, part: str) -> None:
    if part not in check.needs:
        return
    without: dict[str, Any] = {part: None}
    result = ris_diag.run(replace(small(), **without), select=check.id)[check.id]
    assert result.status == "skip"
    assert f"Case.{part}" in result.cause


def test_the_optional_parts_are_those_of_a_case() -> None:
    declarations = {"name", "paths", "expected_failures", "exempt", "thresholds"}
    assert {item.name for item in fields(ris_diag.Case)} - declarations == set(OPTIONAL)
