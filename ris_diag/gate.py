"""The gate in front of a search: closed until every family is green."""

from collections.abc import Callable
from dataclasses import dataclass

from ris_diag.check import select_checks
from ris_diag.families import FAMILIES
from ris_diag.result import Report, Result
from ris_diag.runner import Runner

READY = "READY FOR FULL HPO"
WORTH_A_SEARCH = "O003"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says.

    Attributes:
        ready: every check of every family ran and passed; a declared failure is let through.
        text: one line.
        report: the results it rests on.
    """

    ready: bool
    text: str
    report: Report


def gate(runner: Runner, on_result: Callable[[Result], None] | None = None) -> Verdict:
    """Run the families in order; stop behind the first that isn't green."""
    results: list[Result] = []
    for family in FAMILIES:
        report = runner.run(select_checks(family.name), on_result)
        results += report.results
        if not all(lets_through(result) for result in report.results):
            break
    return verdict(runner.report(results))


def verdict(report: Report) -> Verdict:
    """The verdict on a report: closed in every doubt, also if a check is missing or skipped."""
    closed = [result.id for result in report.results if not lets_through(result)]
    missing = {check.id for check in select_checks()} - {result.id for result in report.results}
    reasons = []
    if closed:
        reasons.append(f"{', '.join(closed)} not passed")
    if missing:
        reasons.append(f"{len(missing)} checks did not run")
    ready = not reasons
    text = READY if ready else f"NOT READY: {'; '.join(reasons)}"
    return Verdict(ready=ready, text=text, report=report)


def lets_through(result: Result) -> bool:
    """A declared failure is let through, but nobody can declare the verdict itself away."""
    return result.status == "pass" or (bool(result.expected) and result.id != WORTH_A_SEARCH)
