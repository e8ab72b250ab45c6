"""The same training on the CPU and on the device under test. B2."""

from typing import Any

import torch

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import LITMUS_STEPS
from ris_diag.parting import Comparison, compare
from ris_diag.places import where
from ris_diag.recorded import recorded
from ris_diag.recorder import OUTSIDE
from ris_diag.watched import place_of_loss, place_of_model


@check(
    "L075",
    "device-agrees-with-cpu",
    title="The CPU and the device agree up to rounding",
    what="Runs five litmus steps on the CPU and on the device, from the same weights on the same "
    "batch, without dropout and TF32, and compares the outputs of all modules, the gradients and "
    "the losses in their order. The limit follows from the dtype, the lengths of the sums so far, "
    "and from how much the same numbers change where every weight changes by its last digit.",
    why="A kernel that is wrong on one device, or a branch that only one device takes, trains on "
    "quietly; what was found right on the CPU then says nothing.",
    sources=("B2",),
    signs=("devices-part",),
    needs=("model", "batch", "loop"),
    cuda="compares CPU with CUDA",
    thresholds=(
        Threshold(
            name="max_share",
            value=1.0,
            unit="times what rounding explains: 2 lambda sqrt(n) max(u, d)",
            why="the formula and its sources stand in ris_diag/rounding.py; other last digits "
            "alone give a hundredth of it",
        ),
    ),
)
def device_agrees_with_cpu(context: Context) -> None:
    subject = context.subject
    cpu = torch.device("cpu")
    first, second, nudged = (
        recorded(subject, device, nudge=nudge)
        for device, nudge in ((cpu, 0), (subject.device, 0), (cpu, 1))
    )
    judge(context, compare(first, second, nudged), second.device)


def judge(context: Context, found: Comparison, device: str) -> None:
    """Report what a comparison of the CPU with a device found."""
    subject = context.subject
    if found.random:
        name = "" if found.random == OUTSIDE else " from there on"
        context.say(
            f"not compared{name}: {found.random} draws random numbers that are the device's own"
        )
    if not found.parts:
        return
    worst = max(found.parts, key=lambda part: part.share)
    limits = [part.limit for part in found.parts]
    context.measure(compared=len(found.parts), largest_share=worst.share, limits=limits)
    context.say(
        f"{len(found.parts)} parts compared, {LITMUS_STEPS} steps; the largest difference is "
        f"{worst.share:.2g} of what rounding explains ({worst.what}, {worst.path})"
    )
    if worst.share > context.limit("max_share"):
        context.problem(
            f"cpu and {device} part at the {worst.what} of {worst.path}: they differ by "
            f"{worst.difference:.2g} of its largest entry (limit {worst.limit:.2g}); all "
            f"{len(found.parts) - 1} parts in front of it agree",
            place=_place(context, worst.path) if worst.what != "loss" else place_of_loss(subject),
            next_step="look for what depends on the device there: branches on is_cuda, casts, "
            "kernels of one's own, memory not written to; compare this module alone on both",
        )


def _place(context: Context, path: str) -> str:
    """The innermost class of the user around a module or parameter, and its path."""
    model = context.subject.model()
    place = place_of_model(model, context.subject)
    module: Any = model
    for name in path.split("."):
        module = getattr(module, name, None)
        if not isinstance(module, torch.nn.Module):
            break
        if not type(module).__module__.startswith("torch."):
            place = where(type(module))
    return f"{place} ({path})"
