"""Exceptions that the user's code raises and catches while it trains."""

import sys
from collections import Counter
from types import FrameType
from typing import Any

from ris_diag.context import Subject
from ris_diag.measure import FIT_BATCH, FIT_BATCHES, LITMUS_EPOCHS, run_fit
from ris_diag.places import is_users, short_path
from ris_diag.plan import Plan

ORDINARY = (
    StopIteration,
    GeneratorExit,
    ImportError,
)  # ends of iterations, and packages that may be missing


def swallowed(subject: Subject) -> Counter[tuple[str, str]]:
    """(what was raised, file:line) to how often, of exceptions that didn't end an epoch's loop.

    The loop runs once more under Python's tracing of the user's own frames.
    """
    seen: Counter[tuple[str, str]] = Counter()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if not is_users(frame.f_code.co_filename):
            return None
        if event == "exception":
            kind, value, _ = arg
            loop = f"{short_path(frame.f_code.co_filename)}:{frame.f_lineno}"
            if issubclass(kind, Exception) and not issubclass(kind, ORDINARY):
                seen[f"{kind.__name__}: {value}", loop] += 1
        return trace

    batches = [subject.batch("train", FIT_BATCH, offset=k + 1) for k in range(FIT_BATCHES)]
    plan = Plan(epochs=LITMUS_EPOCHS, train=batches)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run_fit(
            subject,
            subject.fit,
            subject.model(),
            plan,
            stop_after=FIT_BATCHES,
            planned=FIT_BATCHES,
        )
    finally:
        sys.settrace(before)
    return seen
