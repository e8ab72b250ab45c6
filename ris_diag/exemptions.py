"""What a case isn't meant to keep: entries of `Case.exempt`, each for one check or for several."""

from collections import Counter
from collections.abc import Iterable

from ris_diag.case import Case, unlocking
from ris_diag.check import Check, all_checks, get_check, named
from ris_diag.errors import CaseError, nearest
from ris_diag.families import FAMILIES
from ris_diag.result import Result


def exemptions(case: Case) -> dict[str, str]:
    """ID of every check that a case declares exempt to the reason.

    An entry names checks as a selection does, by ID, slug, prefix of IDs or family: they don't
    run. Or it names a part that the case doesn't have, "covariance": so it exempts what needs that
    part. Of several entries for a check the one that names the fewest counts; a check that is
    expected to fail runs.

    Raises:
        CaseError: an entry names nothing, or a part that the case has; all of them at once.
    """
    found: dict[str, str] = {}
    problems = []
    groups = {}
    for name in case.exempt:
        groups[name] = _checks_of(case, name) if isinstance(name, str) and name else []
        if not groups[name]:
            problems.append(_problem(case, name))
    if problems:
        raise CaseError(f"case {case.name!r}: " + "; ".join(problems))
    for name in sorted(groups, key=lambda name: -len(groups[name])):
        found |= {check.id: case.exempt[name] for check in groups[name]}
    return {key: reason for key, reason in found.items() if key not in case.expected_failures}


def advice(case: Case, results: Iterable[Result]) -> str:
    """What opens a gate for checks that don't apply: the parts they lack; "" if none does."""
    unfit = [r for r in results if r.status == "skip" and not (r.exempt or r.expected)]
    lacking = Counter(
        part
        for result in unfit
        for part in {name.partition(".")[0] for name in _missing(case, get_check(result.id))}
    )
    if not lacking:
        return ""
    parts = [f"{unlocking(part)} ({count} checks)" for part, count in lacking.most_common()]
    part = lacking.most_common(1)[0][0]
    return (
        f"It lacks {', '.join(parts)}. Give it what it has, and say of the rest why not: "
        f'Case(exempt={{"{part}": "reason"}}) exempts all that needs a part that isn\'t there'
    )


def _checks_of(case: Case, name: str) -> list[Check]:
    return named(name) or [c for c in all_checks() if name in _missing(case, c)]


def _missing(case: Case, check: Check) -> set[str]:
    """Parts that a check needs and that aren't there, `covariance` with all that is in it."""
    wanted = {part for part in check.needs if not case.offers(part)}
    whole = {part.partition(".")[0] for part in wanted if "." in part and case.covariance is None}
    return wanted | whole


def _problem(case: Case, name: str) -> str:
    parts = {part for check in all_checks() for part in check.needs}
    parts |= {part.partition(".")[0] for part in parts}
    if name in parts:
        return f"exempt[{name!r}]: the case has this part, so what needs it runs"
    families = [family.name for family in FAMILIES]
    known = [n for check in all_checks() for n in (check.id, check.slug)]
    whole = sorted(part for part in parts if "." not in part)
    meant = nearest(str(name), [*known, *families, *whole])
    return (
        f"exempt[{name!r}] names nothing that exists{f' ({meant})' * bool(meant)}; "
        f"expected an ID, a slug, a prefix of IDs, a family ({', '.join(families)}) or a part "
        "that the case doesn't have"
    )
