"""Which operation makes NaN or infinity, forward or backward, and where it stands."""

import re
import warnings

import torch

from ris_diag.context import Subject
from ris_diag.errors import CaseError
from ris_diag.measure import LITMUS_EPOCHS, run_fit
from ris_diag.places import is_users, short_path
from ris_diag.plan import Plan
from ris_diag.trace import Trace
from ris_diag.watched import ODD_BATCH, dissected, place_of_loss

FRAME = re.compile(r'File "(.+)", line (\d+), in ')
FUNCTION = re.compile(r"Function '(\w+)' returned nan")


def forward_break(subject: Subject) -> tuple[str, str] | None:
    """(what was seen, its place) of the first operation with finite input alone; None if none."""
    broken = dissected(subject).broken
    # What gives NaN is nearer to the cause than an infinity that may be masked later.
    telling = [c for c in broken if bool(torch.isnan(c.output).any())] or broken
    if not telling:
        return None
    called = telling[0]
    inside = f" in {called.module}" if called.module else ""
    what = "NaN" if bool(torch.isnan(called.output).any()) else "infinity"
    return f"{called.name}(){inside} gives {what} for finite input", called.place or (
        place_of_loss(subject)
    )


def backward_break(subject: Subject, trace: Trace) -> tuple[str, str] | None:
    """The same for the gradient, seen by autograd's anomaly mode; None where it sees nothing."""
    if not subject.case.offers("loop"):
        return None
    batches = [subject.batch("train", ODD_BATCH, offset=k) for k in range(3)]
    plan = Plan(epochs=LITMUS_EPOCHS, train=batches)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with torch.autograd.set_detect_anomaly(True):
                run_fit(subject, subject.fit, subject.model(), plan, stop_after=3, planned=3)
        except CaseError:
            raise
        except RuntimeError as error:
            found = FUNCTION.search(str(error))
            if found is None:
                raise
            stack = "\n".join(str(warning.message) for warning in caught)
            frames = [(path, line) for path, line in FRAME.findall(stack) if is_users(path)]
            place = f"{short_path(frames[-1][0])}:{frames[-1][1]}" if frames else ""
            return f"the derivative of {found[1].removesuffix('Backward0')} is NaN", place
    return None
