"""Operations of a step that undo themselves: a softmax of one, a swallowed denominator. B1, S2."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.watched import dissected, models_place, place_of_loss

SOURCES = ("B1",)


@check(
    "L035",
    "softmax-over-classes",
    title="Every softmax runs over an axis of choices",
    what="Watches every softmax in three steps of the real loop or script: the axis must have more "
    "than one entry, and not be that of the samples.",
    why="Over one entry a softmax is 1, whatever its input; over the batch it lets samples "
    "compete.",
    sources=SOURCES,
    signs=("softmax-over-one", "softmax-over-batch"),
    needs=("run",),
    thresholds=(Threshold(name="max_wrong", value=0, unit="calls", why="each is meant to choose"),),
)
def softmax_over_classes(context: Context) -> None:
    seen = dissected(context.subject)
    rows = {len(output.value) for output in seen.outputs if output.value.ndim}
    wrong: dict[tuple[str, str], str] = {}
    for called in seen.activations:
        if called.name not in ("softmax", "log_softmax"):
            continue
        values, dim = called.get("input", 0), called.get("dim", 1)
        if not isinstance(values, Tensor) or not isinstance(dim, int) or not values.ndim:
            continue
        inside = f" in {called.module}" if called.module else ""
        shape = list(values.shape)
        if values.shape[dim] == 1 and values.numel() > 1:
            wrong["softmax-over-one", called.place] = (
                f"{called.name}(dim={dim}){inside} of {shape} runs over an axis of length 1: it is "
                "constant"
            )
        elif dim % values.ndim == 0 and values.ndim == 2 and rows == {len(values)}:
            wrong["softmax-over-batch", called.place] = (
                f"{called.name}(dim={dim}){inside} of {shape} runs over the {len(values)} samples"
            )
    context.measure(wrong=list(wrong.values()))
    if len(wrong) > context.limit("max_wrong"):
        for (sign, place), text in wrong.items():
            context.problem(
                text,
                sign=sign,
                place=", ".join(filter(None, (place, models_place(context)))),
                next_step="give the axis of the classes, dim=-1; for one output use sigmoid",
            )


@check(
    "G014",
    "denominators-count",
    title="No constant swallows a denominator",
    what="Watches sums of a tensor and a number in three steps of the real loop or script: where "
    "something is divided by the sum, the number must not be ten times as large as all values.",
    why="A constant against division by zero that is larger than what it protects makes another "
    "loss of it: relative errors become absolute ones, and vanish.",
    sources=("S2", "B2"),
    signs=("constant-swallows",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_calls", value=0, unit="calls", why="each divides by a constant in effect"
        ),
    ),
)
def denominators_count(context: Context) -> None:
    found = {called.place: called for called in dissected(context.subject).swallowed}
    context.measure(places=list(found))
    if len(found) > context.limit("max_calls"):
        shown = []
        for called in found.values():
            values, constant = sorted(
                (called.args["0"], called.args["1"]), key=lambda a: not isinstance(a, torch.Tensor)
            )
            shown.append(f"{constant:g} added to values up to {float(values.abs().max()):.2g}")
        context.problem(
            f"{len(found)} denominators are a constant in effect ({listed(shown)}; limit a tenth)",
            place=", ".join(place or place_of_loss(context.subject) for place in found),
            next_step="divide by the values alone, or clamp relative to their size",
        )
