"""What a run found, for a terminal: verdict, diagnosis, checks by family, curves and tables."""

from collections import Counter
from collections.abc import Iterable, Sequence

from ris_diag.curves import family_lines
from ris_diag.diagnosis import diagnose
from ris_diag.families import FAMILIES
from ris_diag.render import diagnosis_lines, result_line
from ris_diag.result import Card, Result
from ris_diag.screen import KEPT, Line
from ris_diag.verdict import verdict_on

BAD, GOOD, DOUBTFUL = "bold red", "bold green", "bold yellow"
TONES = {"good": GOOD, "bad": BAD, "open": "bold"}
STYLES = {"pass": "green", "fail": BAD, "error": BAD, "skip": "yellow", "xfail": "yellow"}


def summary(
    results: Sequence[Result],
    *,
    told: str = "",
    gate: str = "",
    stopped: str = "",
    verbosity: int = 0,
    messages: bool = True,
    cards: Iterable[Card] = (),
) -> list[Line]:
    """The block at the end of a run; it stands alone.

    Args:
        told: what was run on what, behind the verdict.
        gate: its verdict; without one it follows from the results.
        stopped: where the run was interrupted, in place of the verdict.
        verbosity: below 0 leaves the verdict and the first cause; above 0 unfolds every check.
        messages: with place, next step and command of each failed check.
        cards: the GPUs that the checks ran on.
    """
    diagnosis = [Line(text) for text in diagnosis_lines(diagnose(results))]
    diagnosis[:1] = [Line(line.text, BAD) for line in diagnosis[:1]]
    lines = [_verdict(results, gate, stopped)]
    if verbosity < 0:
        return lines + diagnosis[:1]
    lines += [Line(text) for text in (told, *map(str, cards)) if text]
    blocks = [diagnosis, _families(results, verbosity, messages)]
    for block in filter(None, blocks):
        lines += [Line(""), *block]
    return lines


def stopped_at(done: int, planned: int, doing: str) -> str:
    """Where a run was interrupted.

    Args:
        done, planned: numbers of checks; 0 are planned where nobody knows.
        doing: what was at work, "in L001 one-batch-learns"; "" where nothing was.
    """
    of = f"{done} of {planned}" if planned else f"{done}"
    told = f"after {of} checks" if done else "before the first check"
    return f"interrupted {told}{', ' if doing else ''}{doing}: no verdict"


def _verdict(results: Sequence[Result], gate: str, stopped: str) -> Line:
    if stopped:
        return Line(stopped, DOUBTFUL)
    tone, text = verdict_on(results, gate=gate)
    return Line(text, TONES[tone])


def _counts(results: Iterable[Result]) -> Counter[str]:
    return Counter(result.shown_status for result in results)


def _shown(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[s]}{KEPT}{s}" for s in STYLES if counts[s])


def _families(results: Sequence[Result], verbosity: int, messages: bool) -> list[Line]:
    lines: list[Line] = []
    for family in FAMILIES:
        own = [result for result in results if result.family == family.name]
        if not own:
            continue
        counts = _counts(own)
        seconds = f"{sum(result.seconds for result in own):.1f}{KEPT}s"
        style = next((STYLES[s] for s in ("fail", "error", "pass") if counts[s]), STYLES["skip"])
        lines.append(Line(f"{family.name:<8}{seconds:>7}  {_shown(counts)}", style))
        for result in own:
            lines += _check(result, verbosity, messages)
        lines += [Line(f"  {text}") for text in family_lines(own, verbosity)]
    return lines


def _check(result: Result, verbosity: int, messages: bool) -> list[Line]:
    """The lines of one check: none where it passed or doesn't apply, unless they are asked for."""
    lines: list[Line] = []
    failed = result.status in ("fail", "error")
    if failed:
        first, *more = result.message().splitlines()
        lines.append(Line(f"{result.status:<6}{first}", BAD))
        lines += [Line(f"    {text}") for text in more if messages]
    elif verbosity > 0 or result.expected:
        lines.append(Line(result_line(result), STYLES[result.status]))
    if verbosity > 0:
        lines += [Line(f"      {text}") for text in result.lines]
    return lines
