"""Results as text: the same lines on the command line and in pytest's summary."""

from ris_diag.case import unlocking
from ris_diag.check import Check
from ris_diag.result import Result

STYLES = {"pass": "green", "fail": "bold red", "error": "bold red", "skip": "yellow"}


def result_line(result: Result) -> str:
    """`pass   L001 one-batch-learns  1.3 s`."""
    status = "xfail" if result.expected else result.status
    note = ""
    if result.status == "skip":
        note = f"  {result.expected or result.cause}"
    return f"{status:<6}{result.name:<34}{result.seconds:6.1f} s{note}"


def explanation(check: Check) -> str:
    """All that a declaration says, for a terminal."""
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


def listing(checks: list[Check]) -> list[tuple[str, str, str, str]]:
    """(ID, slug, sources, title) of each check."""
    return [(c.id, c.slug, ", ".join(c.sources), c.title) for c in checks]


def listing_text(checks: list[Check]) -> str:
    """One line a check, without styles."""
    return "\n".join(f"{i}  {slug:<30} {s:<12} {title}" for i, slug, s, title in listing(checks))
