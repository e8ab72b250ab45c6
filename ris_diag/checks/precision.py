"""What is computed in half precision: sums of the loss, what leaves its range. B1, B2."""

import torch
from torch import Tensor

from ris_diag.anatomy import Called
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.graph import tensors_in
from ris_diag.measure import listed
from ris_diag.watched import dissected, place_of_loss

SOURCES = ("B1", "B2")
LARGEST = 65504.0  # of float16


@check(
    "L070",
    "loss-stays-in-single",
    title="The loss is summed up in float32",
    what="Watches the losses and the sums over samples in three steps of the real loop or script, "
    "outside of the network's layers: none may give half precision, not even if it is cast to "
    "float32 behind it.",
    why="bfloat16 keeps two to three digits and float16 ends at 65504: the sum of a batch loses "
    "what single samples say, under autocast without a word.",
    sources=SOURCES,
    signs=("loss-summed-in-half",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_calls", value=0, unit="calls", why="autocast itself keeps losses in float32"
        ),
    ),
)
def loss_stays_in_single(context: Context) -> None:
    found = {(c.place, c.name): c for c in dissected(context.subject).reduced}
    context.measure(calls=[_shown(called) for called in found.values()])
    if len(found) > context.limit("max_calls"):
        places = dict.fromkeys(c.place or place_of_loss(context.subject) for c in found.values())
        context.problem(
            f"{len(found)} sums of the loss are in half precision, which keeps two to three digits "
            f"({listed([_shown(called) for called in found.values()])}; limit float32)",
            place=", ".join(places),
            next_step="cast prediction and label to float32 in front of the loss: .float()",
        )


def _shown(called: Called) -> str:
    """`mean() of [16, 1] in torch.bfloat16`."""
    (first, *_) = tensors_in(list(called.args.values()))
    return f"{called.name}() of {list(first.shape)} in {called.output.dtype}"


@check(
    "L071",
    "half-stays-in-range",
    title="Nothing in the forward pass leaves the range of float16",
    what="Watches every operation in three steps of the real loop or script: the first one with "
    "finite numbers at its input and a float16 output that isn't finite. Sums that give minus "
    "infinity alone are masks and don't count.",
    why="float16 ends at 65504. An infinity in a denominator makes a zero, which trains silently; "
    "one in the loss makes a GradScaler skip every step.",
    sources=SOURCES,
    signs=("half-overflows",),
    needs=("run",),
    thresholds=(
        Threshold(name="max_calls", value=0, unit="calls", why="what is infinite has no gradient"),
    ),
)
def half_stays_in_range(context: Context) -> None:
    found = [called for called in dissected(context.subject).broken if _overflows(called)]
    places = {called.place or place_of_loss(context.subject): called for called in reversed(found)}
    context.measure(places=list(reversed(places)))
    if len(places) > context.limit("max_calls"):
        first = found[0]
        inside = f" in {first.module}" if first.module else ""
        others = f", {len(places) - 1} more places behind it" if len(places) > 1 else ""
        context.problem(
            f"{first.name}(){inside} gives infinity in torch.float16 for input of up to "
            f"{_largest_input(first):.3g} (float16 ends at {LARGEST:g}){others}",
            place=first.place or place_of_loss(context.subject),
            next_step="compute this operation in float32 (.float() and "
            "torch.autocast(..., enabled=False) around it), make its input smaller, or take "
            "bfloat16, which ends where float32 does",
        )


def _overflows(called: Called) -> bool:
    output = called.output
    if not isinstance(output, Tensor) or output.dtype != torch.float16:
        return False
    mask = called.name in ("add", "iadd", "radd", "sub", "baddbmm", "where")
    return not mask or bool((output.isnan() | (output == torch.inf)).any())


def _largest_input(called: Called) -> float:
    sizes = [
        float(t.detach().abs().max())
        for t in tensors_in(list(called.args.values()))
        if t.is_floating_point() and t.numel()
    ]
    return max(sizes, default=0.0)
