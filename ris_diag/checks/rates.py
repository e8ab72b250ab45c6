"""Learning rates and the size of updates, as they are in effect. B1, S10."""

import math

import torch

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.trace import Step, Trace
from ris_diag.watched import place_of_optimiser, place_of_training, steps_or_problem, watch

SOURCES = ("B1",)


@check(
    "L017",
    "learning-rate-in-effect",
    title="The learning rate is above zero, and the declared one",
    what="Reads the learning rates of all parameter groups at every step. A warm-up may start at "
    "zero and a schedule may end there.",
    why="A schedule that counts epochs where it is stepped by batch is over before the training "
    "began; a rate of another configuration trains another experiment.",
    sources=("B1", "S10"),
    signs=("rate-zero", "rate-tiny", "rate-not-declared"),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_zero_share",
            value=0.25,
            unit="share of the steps of a group",
            why="the first step of a warm-up and the last of a decay may be zero",
        ),
        Threshold(
            name="min_rate",
            value=1e-8,
            unit="learning rate, the largest of all steps and groups",
            why="Adam moves a weight by the rate itself, and float32 keeps seven digits of it",
        ),
        Threshold(
            name="max_relative_difference",
            value=1e-5,
            unit="relative",
            why="the declared rate, up to rounding",
        ),
    ),
)
def learning_rate_in_effect(context: Context) -> None:
    subject, trace = context.subject, watch(context.subject).trace
    if not steps_or_problem(context, trace):
        return
    place = place_of_optimiser(subject, trace)
    rates = {
        f"optimiser {o} group {g}": [step.rates[g] for step in trace.steps_of(o)]
        for o in range(len(trace.optimizers))
        for g in range(len(trace.steps_of(o)[0].rates))
    }
    context.measure(rates=rates)
    limit = context.limit("max_zero_share")
    # A part may start later: what counts are zeros behind the first rate above zero.
    dead = {
        name: f"{sum(not r > 0 for r in seen)} of {len(seen)} steps"
        for name, seen in rates.items()
        if not any(r > 0 for r in seen) or _zeros_behind(seen) > max(1, limit * len(seen))
    }
    if dead:
        context.problem(
            f"the learning rate is not above 0 in {listed([f'{k}: {v}' for k, v in dead.items()])}",
            sign="rate-zero",
            place=place,
            next_step="look at the schedule: does it count batches or epochs, and up to how many",
        )
    largest = max((rate for seen in rates.values() for rate in seen), default=0.0)
    if 0 < largest <= context.limit("min_rate"):
        context.problem(
            f"the largest learning rate of all steps is {largest:g} (limit "
            f"{context.limit('min_rate'):g})",
            sign="rate-tiny",
            place=place,
            next_step="look for a rate that is divided twice, or a missing exponent",
        )
    declared = None if subject.case.declared is None else subject.case.declared.learning_rate
    if declared is None:
        return
    tolerance = context.limit("max_relative_difference")
    off = [
        f"{name} step {number}: {seen:g}, declared {wanted:g}"
        for name, steps in rates.items()
        for number, seen in enumerate(steps, 1)
        for wanted in [declared(number) if callable(declared) else declared]
        if not math.isclose(seen, wanted, rel_tol=tolerance, abs_tol=1e-12)
    ]
    if off:
        context.problem(
            f"the learning rate in effect isn't the declared one ({listed(off)})",
            sign="rate-not-declared",
            place=place,
            next_step="pass the configured rate to the optimiser; look for a second optimiser or "
            "scheduler that overwrites it",
        )


def _zeros_behind(rates: list[float]) -> int:
    """Rates that are not above zero behind the first that is."""
    first = next((k for k, rate in enumerate(rates) if rate > 0), len(rates))
    return sum(not rate > 0 for rate in rates[first:])


@check(
    "L018",
    "update-size-is-sane",
    title="Updates are neither huge nor nothing",
    what="Compares every update with the size of its weight, the gradient at step time with that "
    "behind backward(), and the weight decay with the learning rate and the gradient.",
    why="A learning rate ten thousand times too small looks like a plateau, one that is too large "
    "like noise; a clipping limit of 1e-3 or a decay of 1 trains the regulariser.",
    sources=SOURCES,
    signs=("update-too-small", "update-too-large", "clipped-to-nothing", "decay-too-large"),
    needs=("run",),
    thresholds=(
        Threshold(
            name="min_update",
            value=1e-7,
            unit="update norm / weight norm, median over weights and steps",
            why="float32 can't add less to a weight; useful updates are near 1e-3",
        ),
        Threshold(
            name="max_update",
            value=3.0,
            unit="update norm / weight norm, median over weights, largest step",
            why="a step of several times the weight keeps nothing of it; a line search inside the "
            "step may take one and isn't judged",
        ),
        Threshold(
            name="min_clipped",
            value=5e-3,
            unit="gradient norm at the step / behind backward",
            why="ordinary clipping takes a factor of ten or a hundred, and not in every step",
        ),
        Threshold(
            name="max_decay",
            value=0.05,
            unit="share of a weight that decay takes in a step",
            why="at 5 % a step a weight is halved in 14 steps; common values are below 1e-4",
        ),
    ),
)
def update_size_is_sane(context: Context) -> None:
    subject, trace = context.subject, watch(context.subject).trace
    if not steps_or_problem(context, trace):
        return
    lost = sum(not math.isfinite(loss) for loss in trace.losses)
    if lost:
        context.say(f"not judged: {lost} of {len(trace.losses)} losses are not finite, see L020")
        return
    place = place_of_optimiser(subject, trace)
    ratios = [_ratios(step) for step in trace.steps]
    # A line search inside the step may go all the way to the solution at once.
    medians = [
        float(ratio.median())
        for step, ratio in zip(trace.steps, ratios, strict=True)
        if len(ratio) and not (step.backward and trace.backward[step.backward - 1].inside_step)
    ]
    kept = [
        _total(step.gradients) / left
        for step in trace.steps
        for left in [_left_by_backward(trace, step)]
        if left > 0 and (step.gradients > 0).any()
    ]
    decay = max(
        (
            float(group["lr"]) * float(group.get("weight_decay") or 0)
            for optimizer in trace.optimizers
            for group in optimizer.param_groups
        ),
        default=0.0,
    )
    moving = torch.cat(ratios)
    update = float(moving.median()) if len(moving) else 0.0
    largest = max(medians, default=0.0)
    clipped = max(kept, default=1.0)
    context.measure(
        median_update=update, largest_update=largest, gradient_kept=clipped, decay_a_step=decay
    )
    low, high = context.limit("min_update"), context.limit("max_update")
    if not update >= low:
        context.problem(
            f"the median update is {update:.2g} of its weight (limit {low:g})",
            sign="update-too-small",
            place=place,
            next_step=f"the learning rate ({trace.learning_rates}) is too small by orders of "
            "magnitude",
        )
    if not largest <= high:
        context.problem(
            f"in one step the median update is {largest:.2g} of its weight (limit {high:g})",
            sign="update-too-large",
            place=place,
            next_step=f"the learning rate ({trace.learning_rates}) is too large by orders of "
            "magnitude",
        )
    if clipped < context.limit("min_clipped"):
        context.problem(
            f"clipping leaves {clipped:.2g} of the gradient (limit "
            f"{context.limit('min_clipped'):g})",
            sign="clipped-to-nothing",
            place=place_of_training(subject, trace),
            next_step="compare the clipping limit with the gradient norms",
        )
    if decay > context.limit("max_decay"):
        context.problem(
            f"weight decay takes {decay:.1%} of every weight in a step (limit "
            f"{context.limit('max_decay'):.0%})",
            sign="decay-too-large",
            place=place,
            next_step="learning rate times weight_decay is that share: lower the decay",
        )


def _ratios(step: Step) -> torch.Tensor:
    """Update over weight, where there is a weight and it moved."""
    ratios = step.moved / step.weights
    return ratios[(step.weights > 0) & ratios.isfinite() & (ratios > 0)]


def _left_by_backward(trace: Trace, step: Step) -> float:
    """Norm of the gradients of a step's parameters behind the last backward pass."""
    if not step.backward:
        return 0.0
    after = trace.backward[step.backward - 1].after
    return _total(after[[n for n in step.numbers if n < len(after)]])


def _total(norms: torch.Tensor) -> float:
    return float(norms.clamp(min=0).square().sum().sqrt())
