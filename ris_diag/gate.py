"""The gate in front of a search: closed until every family is green."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ris_diag.check import get_check, select_checks
from ris_diag.families import FAMILIES
from ris_diag.result import Report, Result
from ris_diag.runner import Runner

READY = "READY FOR FULL HPO"
# The verdict itself, and what stands for it in a training that estimates no covariances.
WORTH_A_SEARCH, BEYOND_FREE = "O003", "O004"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate says.

    Attributes:
        ready: every check of every family passed, but for those that the case declares with a
            reason as known to fail or as not meant for it.
        text: one line.
        report: the results it rests on.
    """

    ready: bool
    text: str
    report: Report


def gate(
    runner: Runner,
    on_result: Callable[[Result], None] | None = None,
    *,
    keep_going: bool = False,
) -> Verdict:
    """Run the families in order; stop behind the first in which a check fails.

    Args:
        keep_going: run all of them, whatever fails.
    """
    results: list[Result] = []
    for family in FAMILIES:
        report = runner.run(select_checks(family.name), on_result)
        results += report.results
        if not keep_going and any(r.status in ("fail", "error") for r in report.results):
            break
    report = runner.report(results)
    reasons = reasons_against(results)
    text = f"NOT READY: {'; '.join(reasons)}" if reasons else READY
    return Verdict(ready=not reasons, text=text, report=report)


def reasons_against(results: Iterable[Result]) -> list[str]:
    """Why the gate stays closed: in every doubt, also if a check is missing or doesn't apply."""
    results = list(results)
    judged = any(map(_beats_what_is_free, results))
    closed = [
        result
        for result in results
        if not (lets_through(result) or (judged and result.id == WORTH_A_SEARCH and result.exempt))
    ]
    skipped = [r.id for r in closed if r.status == "skip" and not (r.expected or r.exempt)]
    uninstalled = [name for name in skipped if get_check(name).missing_extra]
    unfit = [name for name in skipped if name not in uninstalled]
    failed = [result.id for result in closed if result.id not in skipped]
    missing = {check.id for check in select_checks()} - {result.id for result in results}
    reasons = []
    if failed:
        reasons.append(f"{', '.join(failed)} not passed")
    if any(result.id == WORTH_A_SEARCH and result.exempt for result in closed):
        reasons.append(
            f"{WORTH_A_SEARCH} is exempt, so {BEYOND_FREE} has to pass, with at least one entry in "
            "Case.baselines"
        )
    if unfit:
        names = ", ".join(unfit) if len(unfit) < 7 else f"{len(unfit)} checks"
        few = "does not apply to this case, which lacks a part it needs"
        many = "do not apply to this case, which lacks parts they need"
        reasons.append(f"{names} {few if len(unfit) == 1 else many}")
    if uninstalled:
        extras = {get_check(name).extra for name in uninstalled}
        install = f"pip install 'ris-diag[{','.join(sorted(filter(None, extras)))}]'"
        reasons.append(f"{', '.join(uninstalled)} did not run: needs {install}")
    if missing:
        reasons.append(f"{len(missing)} check{'s' * (len(missing) > 1)} did not run")
    return reasons


def lets_through(result: Result) -> bool:
    """A declaration lets a check through, but nobody can declare the verdict itself away.

    Where O003 is exempt, `reasons_against` asks O004 in its place. What takes CUDA is no condition
    of a gate on the CPU.
    """
    declared = bool(result.expected or result.exempt)
    elsewhere = result.status == "skip" and result.cause == (get_check(result.id).needs_gpu or None)
    return result.status == "pass" or elsewhere or (declared and result.id != WORTH_A_SEARCH)


def _beats_what_is_free(result: Result) -> bool:
    passed = result.id == BEYOND_FREE and result.status == "pass"
    return passed and "best_baseline" in result.measurements
