"""What every step of the real loop does: gradients, order, rates, sizes. B1."""

import math
from itertools import pairwise

import torch

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import accumulation, listed
from ris_diag.trace import Step, Trace
from ris_diag.watched import place_of_training, set_by_hand, steps_or_problem, watch

SOURCES = ("B1",)


@check(
    "L011",
    "gradients-are-cleared",
    title="Gradients are cleared between two steps",
    what="Looks at the gradients in front of every backward pass: since the optimiser's last step "
    "they must have been zero or absent once, and only once where accumulation is declared.",
    why="Without zero_grad() every step adds all gradients since the start: the loss falls at "
    "first and then circles. Clearing between accumulated passes throws most of the batch away.",
    sources=SOURCES,
    needs=("run",),
    thresholds=(Threshold(name="max_steps", value=0, unit="steps", why="each step needs its own"),),
)
def gradients_are_cleared(context: Context) -> None:
    trace = watch(context.subject).trace
    if not steps_or_problem(context, trace) or set_by_hand(context, trace):
        return
    stale = [number for number, step in enumerate(trace.steps, 1) if not step.cleared]
    lost = _cleared_inside(trace) if accumulation(context.subject) > 1 else 0
    context.measure(steps=len(trace.steps), not_cleared=stale, cleared_inside=lost)
    place = place_of_training(context.subject, trace)
    limit = context.limit("max_steps")
    if len(stale) > limit:
        context.problem(
            f"{len(stale)} of {len(trace.steps)} steps use gradients to which those of the step "
            f"before were added, the first is step {stale[0]} (limit {limit:g})",
            place=place,
            next_step="call optimizer.zero_grad() in front of every backward(), or declare "
            "Declared(accumulation=...)",
        )
    if lost > limit:
        context.problem(
            f"in {lost} of {len(trace.steps)} steps the gradients were cleared between the "
            f"{accumulation(context.subject)} backward passes that are declared to accumulate",
            place=place,
            next_step="call zero_grad() behind optimizer.step(), not in front of every backward()",
        )


def _cleared_inside(trace: Trace) -> int:
    """Steps in front of which more than one backward pass found its gradients cleared."""
    count = 0
    for first, second in pairwise([0, *(step.backward for step in trace.steps)]):
        numbers = trace.steps[0].numbers
        passes = trace.backward[first:second]
        count += sum(bool((p.before[numbers] <= 0).all()) for p in passes) > 1
    return count


@check(
    "L012",
    "calls-in-order",
    title="backward, unscale, clip, step, update and the scheduler come in the right order",
    what="Reads the order of events: every step has a backward pass of its own, gradients shrink "
    "(clipping) behind unscale_() and in front of step(), a loss that a GradScaler scaled is "
    "unscaled and update() follows, the scheduler steps behind the optimiser.",
    why="Clipping scaled gradients clips nearly all of them away, clipping behind the step does "
    "nothing, a scheduler in front of the first step skips the first learning rate.",
    sources=SOURCES,
    needs=("run",),
    thresholds=(
        Threshold(name="max_wrong", value=0, unit="kinds of disorder", why="each is a mistake"),
    ),
)
def calls_in_order(context: Context) -> None:
    trace = watch(context.subject).trace
    if not steps_or_problem(context, trace) or set_by_hand(context, trace):
        return
    events = trace.events
    wrong: dict[str, str] = {}
    idle = _steps_without_backward(trace)
    if idle:
        wrong[f"{idle} of {len(trace.steps)} steps have no backward pass of their own"] = (
            "call backward() in front of every step()"
        )
    if "clip scaled" in events:
        wrong["gradients shrank before they were unscaled"] = (
            "call scaler.unscale_(optimizer) in front of the clipping"
        )
    if "clip late" in events:
        wrong["gradients shrank behind the step that used them"] = (
            "clip between backward() and step()"
        )
    if any(b.scale != 1 for b in trace.backward) and "unscale" not in events:
        wrong["the loss was scaled, the gradients were never unscaled"] = (
            "call scaler.step(optimizer) in place of optimizer.step()"
        )
    if "scaler.step" in events and "scaler.update" not in events:
        wrong["scaler.update() is never called"] = "call scaler.update() behind scaler.step()"
    if "scheduler" in events[: events.index("step")]:
        wrong["the scheduler steps in front of the first optimiser step"] = (
            "call scheduler.step() behind optimizer.step()"
        )
    context.measure(wrong=list(wrong))
    if len(wrong) > context.limit("max_wrong"):
        context.problem(
            "; ".join(wrong),
            place=place_of_training(context.subject, trace),
            next_step="; ".join(wrong.values()),
        )


def _zeros_behind(rates: list[float]) -> int:
    """Rates that are not above zero behind the first that is."""
    first = next((k for k, rate in enumerate(rates) if rate > 0), len(rates))
    return sum(not rate > 0 for rate in rates[first:])


def _steps_without_backward(trace: Trace) -> int:
    last: dict[int, int] = {}
    idle = 0
    for step in trace.steps:
        idle += step.backward <= last.get(step.optimizer, 0)
        last[step.optimizer] = step.backward
    return idle


@check(
    "L017",
    "learning-rate-in-effect",
    title="The learning rate is above zero, and the declared one",
    what="Reads the learning rates of all parameter groups at every step. A warm-up may start at "
    "zero and a schedule may end there.",
    why="A schedule that counts epochs where it is stepped by batch is over before the training "
    "began; a rate of another configuration trains another experiment.",
    sources=("B1", "S10"),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_zero_share",
            value=0.25,
            unit="share of the steps of a group",
            why="the first step of a warm-up and the last of a decay may be zero",
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
    place = place_of_training(subject, trace)
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
            place=place,
            next_step="look at the schedule: does it count batches or epochs, and up to how many",
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
            place=place,
            next_step="pass the configured rate to the optimiser; look for a second optimiser or "
            "scheduler that overwrites it",
        )


@check(
    "L018",
    "update-size-is-sane",
    title="Updates are neither huge nor nothing",
    what="Compares every update with the size of its weight, the gradient at step time with that "
    "behind backward(), and the weight decay with the learning rate and the gradient.",
    why="A learning rate ten thousand times too small looks like a plateau, one that is too large "
    "like noise; a clipping limit of 1e-3 or a decay of 1 trains the regulariser.",
    sources=SOURCES,
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
            value=1e-4,
            unit="gradient norm at the step / behind backward",
            why="ordinary clipping takes a factor of ten or a hundred",
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
    place = place_of_training(subject, trace)
    ratios = [_ratios(step) for step in trace.steps]
    # A line search inside the step may go all the way to the solution at once.
    medians = [
        float(ratio.median())
        for step, ratio in zip(trace.steps, ratios, strict=True)
        if len(ratio) and not (step.backward and trace.backward[step.backward - 1].inside_step)
    ]
    kept = [
        _total(step.gradients) / _total(trace.backward[step.backward - 1].after[step.numbers])
        for step in trace.steps
        if step.backward and _total(trace.backward[step.backward - 1].after[step.numbers]) > 0
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
            place=place,
            next_step=f"the learning rate ({trace.learning_rates}) is too small by orders of "
            "magnitude",
        )
    if not largest <= high:
        context.problem(
            f"in one step the median update is {largest:.2g} of its weight (limit {high:g})",
            place=place,
            next_step=f"the learning rate ({trace.learning_rates}) is too large by orders of "
            "magnitude",
        )
    if clipped < context.limit("min_clipped"):
        context.problem(
            f"clipping leaves {clipped:.2g} of the gradient (limit "
            f"{context.limit('min_clipped'):g})",
            place=place,
            next_step="compare the clipping limit with the gradient norms",
        )
    if decay > context.limit("max_decay"):
        context.problem(
            f"weight decay takes {decay:.1%} of every weight in a step (limit "
            f"{context.limit('max_decay'):.0%})",
            place=place,
            next_step="learning rate times weight_decay is that share: lower the decay",
        )


def _ratios(step: Step) -> torch.Tensor:
    """Update over weight, where there is a weight and it moved."""
    ratios = step.moved / step.weights
    return ratios[(step.weights > 0) & ratios.isfinite() & (ratios > 0)]


def _total(norms: torch.Tensor) -> float:
    return float(norms.clamp(min=0).square().sum().sqrt())


@check(
    "L019",
    "batches-differ",
    title="The loop trains on the batches that it is given",
    what="Hashes the input of every training call and compares with the number of different "
    "batches that were served.",
    why="A batch taken in front of the loop, or an iterator that starts anew in every step, trains "
    "on one batch for ever; the training loss falls beautifully.",
    sources=SOURCES,
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(name="min_different", value=2, unit="inputs", why="several were served"),
    ),
)
def batches_differ(context: Context) -> None:
    trace = watch(context.subject).trace
    inputs = [
        call.input_hash
        for call in trace.calls
        if call.phase == "train"
        and call.input_hash is not None
        and any(p.requires_grad for p in call.module.parameters())  # no criterion
    ]
    batches = sum(inputs[0] in hashes for hashes in trace.served) if inputs else 0
    context.measure(calls=len(inputs), different=len(set(inputs)), served=len(trace.served))
    # An input that stands in every batch (a graph, coordinates) or in none says nothing.
    telling = 0 < batches < len(trace.served)
    if telling and len(inputs) > 1 and len(set(inputs)) < context.limit("min_different"):
        context.problem(
            f"the model sees one and the same input in all of {len(inputs)} training calls",
            place=place_of_training(context.subject, trace),
            next_step="use the variable of the loop over batches; look for next(iter(loader))",
        )


@check(
    "L020",
    "finite-everywhere",
    title="Losses, gradients and weights stay finite",
    what="Looks at every loss, every gradient norm and every weight norm of the watched steps.",
    why="The first NaN poisons all weights; what comes after it says nothing about its cause.",
    sources=("B1", "S6"),
    needs=("run",),
    thresholds=(Threshold(name="max_broken", value=0, unit="values", why="NaN spreads"),),
)
def finite_everywhere(context: Context) -> None:
    trace = watch(context.subject).trace
    if not steps_or_problem(context, trace):
        return
    losses = [n for n, value in enumerate(trace.losses, 1) if not math.isfinite(value)]
    broken: dict[str, str] = {}
    for number, passes in enumerate(trace.backward, 1):
        if passes.skipped:
            continue
        for index in (~passes.after.isfinite()).nonzero().flatten().tolist():
            broken.setdefault(f"gradient of {trace.names[index]}", f"backward pass {number}")
    for number, step in enumerate(trace.steps, 1):
        for index in (~step.weights.isfinite()).nonzero().flatten().tolist():
            broken.setdefault(trace.names[step.numbers[index]], f"step {number}")
    context.measure(losses=losses, broken=broken)
    if losses:
        context.problem(
            f"{len(losses)} of {len(trace.losses)} losses are not finite, the first in backward "
            f"pass {losses[0]}",
            place=trace.backward[losses[0] - 1].place,
            next_step="look at denominators, roots and logarithms of the loss at zero",
        )
    if len(broken) > context.limit("max_broken"):
        context.problem(
            f"{len(broken)} gradients or weights are not finite: "
            f"{listed([f'{name} ({when})' for name, when in broken.items()])}",
            place=place_of_training(context.subject, trace),
            next_step="torch.autograd.detect_anomaly() names the operation; look at the learning "
            f"rate ({trace.learning_rates}) where the loss was finite before",
        )
