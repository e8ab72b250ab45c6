"""Results as text: the same lines on the command line and in pytest's summary."""

from ris_diag.cause import Cause, all_causes
from ris_diag.check import Check, all_checks
from ris_diag.diagnosis import Diagnosis, Evidence, Named
from ris_diag.errors import UnknownCheckError, nearest
from ris_diag.result import Result


def result_line(result: Result) -> str:
    """`pass   L001 one-batch-learns  1.3 s`."""
    note = ""
    if result.status == "skip":
        note = f"  {result.expected or result.cause}"
    return f"{result.shown_status:<6}{result.name:<38}{result.seconds:6.1f} s{note}"


def explanation(check: Check) -> str:
    """All that a declaration says, for a terminal."""
    from ris_diag.case import unlocking

    lines = [
        f"{check.id} {check.slug} ({check.family})",
        "",
        check.title,
        "",
        f"What:    {check.what}",
        f"Why:     {check.why}",
        f"Source:  {', '.join(check.sources)}",
        f"Needs:   {', '.join(map(unlocking, check.needs)) or 'nothing optional'}",
    ]
    if check.extra:
        lines.append(f"Extra:   pip install 'ris-diag[{check.extra}]'")
    if check.requires:
        lines.append(f"Builds on: {', '.join(check.requires)}")
    lines += [
        f"Limit:   {limit.name} = {limit.value:g} {limit.unit}: {limit.why}"
        for limit in check.thresholds
    ]
    return "\n".join(lines)


def explained(name: str) -> str:
    """The declaration of a check or a cause, for a terminal.

    Raises:
        UnknownCheckError: there is none of this ID or slug.
    """
    for cause in all_causes():
        if name in (cause.id, cause.slug):
            return cause_text(cause)
    for check in all_checks():
        if name in (check.id, check.slug):
            return explanation(check)
    causes = all_causes()
    known = [n for c in all_checks() for n in (c.id, c.slug)]
    meant = nearest(name, known + [n for c in causes for n in (c.id, c.slug)])
    raise UnknownCheckError(
        f"unknown check or cause {name!r}: expected an ID or a slug; {f'{meant} ' * bool(meant)}"
        f"`ris-diag list` shows the checks, causes are {causes[0].id} to {causes[-1].id}"
    )


def listing(checks: list[Check]) -> list[tuple[str, str, str, str]]:
    """(ID, slug, sources, title) of each check."""
    return [(c.id, c.slug, ", ".join(c.sources), c.title) for c in checks]


def listing_text(checks: list[Check]) -> str:
    """One line a check, without styles."""
    return "\n".join(f"{i}  {slug:<30} {s:<12} {title}" for i, slug, s, title in listing(checks))


def cause_text(cause: Cause) -> str:
    """All that a cause declares, for a terminal."""
    signs = [f"{sign} ({share:.0%})" for sign, share in cause.looks.items()]
    lines = [
        f"{cause.name} ({cause.area})",
        "",
        cause.title,
        "",
        f"Looks:   {', '.join(signs)}",
        f"Silent:  {cause.silent}",
        f"Repair:  {cause.repair}",
        f"Source:  {cause.reference}",
    ]
    if cause.settles:
        lines.append(f"Settled by: {cause.settles}")
    return "\n".join(lines)


def diagnosis_lines(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis as a person reads it; nothing where nothing was found."""
    lines: list[str] = []
    for number, named in enumerate(diagnosis.named):
        lines += _named_lines(named, "Diagnosis" if number == 0 else "And")
        if number == 0 and not diagnosis.settled:
            lines += _unsettled(diagnosis)
    if diagnosis.unexplained:
        lines.append("No cause is known for")
        lines += [f"  {_short(evidence)}" for evidence in diagnosis.unexplained]
    return lines


def _named_lines(named: Named, label: str) -> list[str]:
    cause = named.cause
    lines = [f"{label}: {named.told}", f"  {cause.title}."]
    if named.place:
        lines.append(f"  Place: {named.place}")
    lines += [f"  Seen: {_short(evidence)}" for evidence in named.evidence]
    lines += [f"  Silent because: {cause.silent}", f"  Repair: {cause.repair}"]
    if named.explains:
        also = dict.fromkeys(f"{e.check} {e.finding['sign']}" for e in named.explains)
        lines.append(f"  Comes from it, too: {', '.join(also)}")
    return lines


def _unsettled(diagnosis: Diagnosis) -> list[str]:
    others = ", ".join(f"{c.name} {p:.0%}" for c, p in diagnosis.contenders)
    experiments = [
        f"{cause.slug}: {cause.settles}"
        for cause in (diagnosis.named[0].cause, *(c for c, _ in diagnosis.contenders))
        if cause.settles
    ]
    lines = [f"  Not settled: it may be {others or 'a cause that is not known'}"]
    if experiments:
        lines.append(f"  To settle it: {'; '.join(experiments)}")
    return lines


def _short(evidence: Evidence) -> str:
    return f"{evidence.check} {evidence.finding['cause']}"
