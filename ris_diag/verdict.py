"""What a run comes to: one line, and its tone."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ris_diag.result import Result

Tone = Literal["good", "bad", "open"]
ORDER = ("pass", "fail", "error", "skip", "xfail")


class Said(NamedTuple):
    """A verdict: ready, not ready, or none, as too little ran."""

    tone: Tone
    text: str


def verdict_on(results: Sequence[Result], *, complete: bool = True, gate: str = "") -> Said:
    """The verdict on some checks, or on all.

    Args:
        complete: whether the run came to its end.
        gate: what a gate said, which knows more than its results.
    """
    if not complete:
        return Said("open", "interrupted: no verdict")
    # Imports torch, which must not be tried again where it was interrupted on its way in.
    from ris_diag.gate import READY, reasons_against

    if gate:
        return Said("good" if gate == READY else "bad", gate)
    reasons = reasons_against(results)
    if not reasons:
        return Said("good", READY)
    counts = Counter(result.shown_status for result in results)
    if counts["fail"] or counts["error"]:
        return Said("bad", f"NOT READY: {'; '.join(reasons)}")
    counted = ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status])
    return Said("open", f"{counted}; no verdict: {'; '.join(reasons)}")
