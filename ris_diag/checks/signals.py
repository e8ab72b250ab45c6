"""Signals pass: the scale of the first weights, the share that dropout leaves. B1."""

import math

from torch import Tensor, nn

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.places import where
from ris_diag.watched import (
    dissected,
    models_place,
    named_modules,
    place_of_model,
    watch,
)

SOURCES = ("B1",)


@check(
    "L033",
    "initial-scale-fits",
    title="The initial weights have a scale at which signals pass",
    what="Compares the spread of every weight matrix of a fresh model with one over the root of "
    "its inputs, which keeps the scale of a signal; matrices that are zero are L028's.",
    why="Weights ten times too large saturate what comes behind, weights a hundred times too small "
    "let nothing through; the first epochs only repair it.",
    sources=SOURCES,
    signs=("initial-scale-off",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_gain",
            value=10.0,
            unit="spread times root of the inputs, any layer",
            why="1 to 2 with the usual initialisations, 5 with those made for sine activations",
        ),
        Threshold(
            name="min_gain",
            value=0.02,
            unit="spread times root of the inputs, median over the layers",
            why="one layer, the last of a branch, may start near zero; not all",
        ),
    ),
)
def initial_scale_fits(context: Context) -> None:
    subject = context.subject
    if subject.case.model is None:
        context.say("not judged: a script's weights are seen behind its first steps")
        return
    model = subject.model()
    gains = {
        name: float(weight.detach().abs().square().double().mean().sqrt())
        * math.sqrt(weight[0].numel())
        for name, module in model.named_modules()
        for weight in [getattr(module, "weight", None)]
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        and isinstance(weight, Tensor)
        and bool(weight.detach().any())
    }
    context.measure(gains=gains)
    high, low = context.limit("max_gain"), context.limit("min_gain")
    large = [f"{name}: {gain:.3g}" for name, gain in gains.items() if gain > high]
    middle = sorted(gains.values())[len(gains) // 2] if gains else 1.0
    if large:
        context.problem(
            f"{len(large)} of {len(gains)} layers start with weights that blow their signal up "
            f"({listed(large)} times; limit {high:g})",
            place=f"{place_of_model(model, subject)} ({large[0].split(':')[0]})",
            next_step="use the initialisation that belongs to the activation: kaiming_normal_, "
            "xavier_uniform_",
        )
    if middle < low:
        small = [f"{name}: {gain:.2g}" for name, gain in gains.items() if gain < low]
        context.problem(
            f"{len(small)} of {len(gains)} layers start with weights that let nothing through "
            f"({listed(small)} times; limit {low:g} in the median)",
            place=f"{place_of_model(model, subject)} ({small[0].split(':')[0]})",
            next_step="use the initialisation that belongs to the activation: kaiming_normal_, "
            "xavier_uniform_",
        )


@check(
    "L034",
    "dropout-leaves-signal",
    title="Dropout leaves most of the signal",
    what="Reads the probability of every dropout module, and of every call of dropout in three "
    "steps of the real loop or script.",
    why="At p = 0.95 one value of twenty comes through, twenty times as large: noise.",
    sources=SOURCES,
    signs=("dropout-extreme",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_probability", value=0.85, unit="p", why="0.1 to 0.5 is usual, 0.8 is seen"
        ),
    ),
)
def dropout_leaves_signal(context: Context) -> None:
    limit = context.limit("max_probability")
    strong = {
        name: (float(module.p), where(type(module)))
        for name, module in named_modules(watch(context.subject)).items()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > limit
    }
    for called in dissected(context.subject).activations:
        if "dropout" in called.name and called.get("training", 2, True):
            p = float(called.get("p", 1, 0.5))
            if p > limit:
                strong[called.module.partition(" (")[0] or called.name] = (p, called.place)
    context.measure(strong={name: p for name, (p, _) in strong.items()})
    if strong:
        shown = [f"{name}: p = {p:g}" for name, (p, _) in strong.items()]
        name, (_, place) = next(reversed(strong.items()))
        context.problem(
            f"{len(strong)} dropouts take nearly everything ({listed(shown)}; limit {limit:g})",
            place=f"{models_place(context)}, {place} ({name})",
            next_step="lower p; it is the share that is dropped, not the share that is kept",
        )
