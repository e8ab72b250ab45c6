"""Why a trial failed: the check that sees it, and the cause."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ris_diag.check import select_checks
from ris_diag.places import place_of
from ris_diag.runner import Runner
from ris_diag.search.searchable import Searchable
from ris_diag.search.training import Conditions, NotFinite

NOT_FINITE = "L020"
RUNS = ("L001", "L014", NOT_FINITE)  # what a configuration must do to be worth a trial
LATER = "none"  # the checks see the first steps; what breaks later they don't


@dataclass(frozen=True)
class Failure:
    """Attributes of a failed trial.

    Attributes:
        check: ID of the check that sees it, or "none" where it shows only later.
        place: file:line of the user's code.
    """

    check: str
    cause: str
    place: str


def failure_of(
    error: Exception, searchable: Searchable, parameters: Mapping[str, Any], conditions: Conditions
) -> Failure:
    """What an exception of a trial means, with what a few checks say of its configuration."""
    said, place = f"{type(error).__name__}: {error}", place_of(error)
    if isinstance(error, NotFinite):
        said = str(error)
    seen = _seen(searchable, parameters, conditions)
    check = NOT_FINITE if isinstance(error, NotFinite) else seen.check
    cause = f"{said}; {seen.cause}" if seen.cause and seen.cause != said else said
    return Failure(check, cause, place or seen.place)


def _seen(searchable: Searchable, parameters: Mapping[str, Any], conditions: Conditions) -> Failure:
    """What the litmus says of a configuration."""
    try:
        case = searchable.case(parameters)
    except Exception:  # noqa: BLE001  # the error at hand says it already
        return Failure(LATER, "", "")
    runner = Runner(case, device=conditions.device, seed=conditions.seed)
    report = runner.run(select_checks(RUNS))
    broken = [result for result in report.results if result.status in ("fail", "error")]
    if not broken:
        return Failure(LATER, "", "")
    named = report.diagnosis.named
    cause = f"{named[0].cause.id} {named[0].cause.slug}" if named else broken[0].cause
    return Failure(broken[0].id, cause, broken[0].place)
