"""What a report comes to, in words and in a tone."""

from typing import Literal

from ris_diag.gate import READY, reasons_against
from ris_diag.result import Report, Result

Tone = Literal["good", "bad", "open"]


def verdict_of(report: Report) -> tuple[Tone, str]:
    """Ready, not ready, or nothing to say: too little ran, or the run was interrupted."""
    reasons = reasons_against(report.results)
    if any(result.status in ("fail", "error") for result in report.results):
        return "bad", f"NOT READY: {'; '.join(reasons)}"
    if not report.complete:
        return "open", "No verdict: the run didn't come to its end"
    if not reasons:
        return "good", READY
    return "open", f"No verdict: {'; '.join(reasons)}"


def shown_status(result: Result) -> str:
    """The status, with a declared failure told from a skip."""
    return "xfail" if result.expected else result.status
