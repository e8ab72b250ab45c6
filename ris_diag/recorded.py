"""Five litmus steps on one device, recorded to be compared with the same steps on another."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.comparable import nudged, without_dropout, without_tf32
from ris_diag.context import Subject
from ris_diag.graph import map_leaves
from ris_diag.measure import LITMUS_BATCH, LITMUS_EPOCHS, LITMUS_STEPS, accumulation, run_fit
from ris_diag.plan import Plan
from ris_diag.recorder import Part, Recorder, counts


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run from given weights on a given batch.

    Attributes:
        outputs: of every module call in front of the first step, in order of execution.
        slopes: gradients of those outputs, in the order in which backward made them.
        gradients: of the parameters at the first step.
        losses: real scalars, of every backward pass in turn.
        draws: modules that drew from the CPU's random numbers, in order; `OUTSIDE` for the rest.
    """

    device: str
    outputs: list[Part]
    slopes: list[Part]
    gradients: list[Part]
    losses: list[Tensor]
    draws: list[str]


def recorded(subject: Subject, device: torch.device, *, nudge: int = 0) -> RecordedRun:
    """Five steps of the case's loop from the subject's seed, without dropout and without TF32.

    Args:
        device: where it runs; weights and batch are made on the CPU and moved.
        nudge: change every weight and input by its last digit, up or down as this seed says; 0
            changes nothing.
    """
    other = Subject(subject.case, device, subject.seed)
    with other.seeded("recorded"), without_tf32():
        model, count = other.model(), accumulation(other)
        batch = other.batch("train", LITMUS_BATCH)
    if nudge:
        with other.seeded(f"nudge {nudge}"), torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(nudged(parameter))
            batch = map_leaves(batch, lambda leaf: nudged(leaf) if counts(leaf) else leaf)
    with other.seeded("recorded steps"), without_tf32(), without_dropout(model):
        recorder = Recorder(model)
        with recorder:
            fitted = run_fit(
                other,
                other.fit,
                model,
                Plan(epochs=LITMUS_EPOCHS, train=[batch] * count),
                stop_after=LITMUS_STEPS,
                planned=LITMUS_STEPS,
            )
    return RecordedRun(
        device=str(device),
        outputs=recorder.outputs,
        slopes=recorder.slopes,
        gradients=recorder.gradients,
        losses=[passes.value.cpu() for passes in fitted.trace.backward],
        draws=recorder.draws,
    )
