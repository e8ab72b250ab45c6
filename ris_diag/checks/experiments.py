"""Five steps again with other learning rates, where those of the author got nowhere. B1."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.graph import map_leaves
from ris_diag.measure import (
    LITMUS_BATCH,
    LITMUS_EPOCHS,
    LITMUS_STEPS,
    accumulation,
    judged_at_equal_beta,
    litmus,
    run_fit,
)
from ris_diag.places import where
from ris_diag.plan import Plan
from ris_diag.watched import place_of_optimiser

LARGER = (10.0, 100.0, 1e3, 1e4, 1e5)
SMALLER = (0.1, 1e-2, 1e-3)


@check(
    "L041",
    "rate-is-useful",
    title="No other order of magnitude of the learning rate learns far better",
    what="Where five steps on one batch lower the loss by less than a tenth, takes them again from "
    "the same weights with learning rates 10 to 100 000 times as large, or, where the loss rises, "
    "10 to 1000 times as small.",
    why="A rate that is a thousand times too small looks like a plateau, one that is too large "
    "like noise about one; with another rate the same code learns at once.",
    sources=("B1",),
    signs=("larger-rate-learns", "smaller-rate-learns", "grows-with-batch", "update-climbs"),
    needs=("model", "batch", "loss", "loop"),
    thresholds=(
        Threshold(
            name="enough",
            value=0.1,
            unit="share of the loss in five steps",
            why="a rate that does as much needs no experiment",
        ),
        Threshold(
            name="min_factor",
            value=1e4,
            unit="times as large, the smallest that gives half of the best fall",
            why="careful rates are a hundred times below the largest that works at all, those of "
            "fine-tuning a thousand times",
        ),
        Threshold(
            name="min_gain",
            value=0.1,
            unit="share of the loss that another rate takes off in five steps",
            why="less is no proof that the code can learn",
        ),
        Threshold(
            name="min_kept",
            value=0.5,
            unit="of the fall that the gradients promise to first order, at the smallest rate",
            why="the smaller the step, the better the promise; noise takes a part of it",
        ),
    ),
)
def rate_is_useful(context: Context) -> None:
    subject = context.subject
    first, last = litmus(subject).equal_beta
    fall = (first - last) / abs(first) if first and math.isfinite(first) else 0.0
    rates = litmus(subject).fitted.trace.learning_rates
    context.measure(fall=fall)
    if fall >= context.limit("enough"):
        context.say(f"not varied: the loss falls by {fall:.0%} in five steps")
        return
    if not any(rate > 0 for rate in rates) or not math.isfinite(first):
        context.say("not varied: the rates are zero, or the loss isn't finite")
        return
    place = place_of_optimiser(subject, litmus(subject).fitted.trace)
    # What moves without any step: running statistics, a schedule of the loss.
    by_itself = _fall(subject, 0.0)[0]
    if not math.isfinite(by_itself):
        context.say("not varied: with learning rates of 0 the loop breaks")
        return
    fall -= by_itself
    # What hardly moves may do so by rounding.
    if fall > -1e-3:
        falls = {factor: _fall(subject, factor)[0] - by_itself for factor in LARGER}
        context.measure(falls={f"{factor:g}": value for factor, value in falls.items()})
        best = max(falls.values())
        needed = next(factor for factor, value in falls.items() if value >= best / 2 or best <= 0)
        enough = best >= max(context.limit("min_gain"), 3 * fall)
        if enough and needed >= context.limit("min_factor"):
            context.problem(
                f"five steps lower the loss by {fall:.2%}; with learning rates {needed:g} times as "
                f"large they lower it by {falls[needed]:.0%} (rates {_shown(rates)}; limit a "
                f"factor of {context.limit('min_factor'):g})",
                sign="larger-rate-learns",
                place=place,
                next_step=f"raise the learning rate towards {max(rates) * needed / 10:.1g}",
            )
        return
    if abs(by_itself) > abs(fall):
        context.say(f"not judged: without a step the loss changes by {by_itself:.2%}")
        return
    tried = {}
    for factor in SMALLER:
        value, promised = _fall(subject, factor)
        value -= by_itself
        tried[factor] = value, value / promised if promised else 0.0
    context.measure(falls={f"{factor:g}": value for factor, (value, _) in tried.items()})
    good = [
        factor
        for factor, (value, kept) in tried.items()
        if value >= context.limit("min_gain") or (kept >= context.limit("min_kept") and value > 0)
    ]
    if good:
        context.problem(
            f"five steps raise the loss by {-fall:.0%}; with learning rates {1 / good[0]:g} times "
            f"as small they lower it by {tried[good[0]][0]:.2%} (rates {_shown(rates)})",
            sign="smaller-rate-learns",
            place=place,
            next_step=f"lower the learning rate towards {max(rates) * good[0]:.1g}",
        )
        if _is_summed(subject):
            context.problem(
                "the loss doubles where every sample stands twice: it is summed, not averaged",
                sign="grows-with-batch",
                place=where(subject.case.loss),
                next_step="use reduction='mean', or divide by the number of samples",
            )
    elif tried[SMALLER[-1]][1] < -context.limit("min_kept"):
        context.problem(
            f"five steps raise the loss by {-fall:.2%}, and with learning rates 1000 times as "
            f"small by {-tried[SMALLER[-1]][1]:.0%} of the fall that the gradients promise: the "
            "updates go uphill",
            sign="update-climbs",
            place=place,
            next_step="look for a gradient that is turned round between backward() and step(), a "
            "minus in front of the loss, or maximize=True",
        )


def _shown(rates: list[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates[:3])


def _fall(subject: Subject, factor: float) -> tuple[float, float]:
    """(share of the loss that five steps take off, share that the gradients promise)."""
    with subject.seeded("rate is useful"):  # the same random choices for every factor
        try:
            return _fall_of(subject, factor)
        except Exception:  # noqa: BLE001  # a rate that nobody asked for may break anything
            return -math.inf, math.inf


def _fall_of(subject: Subject, factor: float) -> tuple[float, float]:
    model = subject.model()
    batch = subject.batch("train", LITMUS_BATCH)
    first, _ = judged_at_equal_beta(subject, model, batch)
    plan = Plan(epochs=LITMUS_EPOCHS, train=[batch] * accumulation(subject))
    with scaled_rates(factor):
        fitted = run_fit(
            subject, subject.fit, model, plan, stop_after=LITMUS_STEPS, planned=LITMUS_STEPS
        )
    last, _ = judged_at_equal_beta(subject, model, batch)
    promised = sum(abs(step.expected) for step in fitted.trace.steps)
    if not math.isfinite(last) or not first:
        return -math.inf, math.inf
    return (first - last) / abs(first), promised / abs(first)


@contextmanager
def scaled_rates(factor: float) -> Iterator[None]:
    """Every optimiser steps with `factor` times its learning rates."""
    kept: dict[torch.optim.Optimizer, list[Any]] = {}

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        kept[optimizer] = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def behind(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group, rate in zip(optimizer.param_groups, kept.pop(optimizer), strict=True):
            group["lr"] = rate

    hooks = (register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(behind))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for optimizer, rates in kept.items():  # of a step that raised
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate


def _is_summed(subject: Subject) -> bool:
    """Whether the loss doubles where every sample stands twice."""
    batch = subject.batch("train", 8)
    model = subject.model()
    once, _ = judged_at_equal_beta(subject, model, batch)
    try:
        twice, _ = judged_at_equal_beta(subject, model, doubled(batch, 8))
    except Exception:  # noqa: BLE001  # a batch may hold what can't be doubled
        return False
    return math.isclose(twice, 2 * once, rel_tol=1e-3)


def doubled(batch: Batch, size: int) -> Batch:
    """Every sample twice."""

    def twice(leaf: Any) -> Any:
        whole = isinstance(leaf, torch.Tensor) and leaf.ndim and len(leaf) == size
        return torch.cat([leaf, leaf]) if whole else leaf

    return map_leaves(batch, twice)
