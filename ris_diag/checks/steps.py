"""What every step of the real loop does: gradients, order, batches. B1."""

import math
from itertools import pairwise
from statistics import fmean

from ris_diag.broken import backward_break, forward_break
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import accumulation, listed
from ris_diag.trace import Step, Trace
from ris_diag.watched import (
    place_of_optimiser,
    place_of_training,
    set_by_hand,
    steps_or_problem,
    watch,
)

SOURCES = ("B1",)
EXPLODES = 100.0  # times the first loss
# Between the gradient at a step and behind backward; clipping by value and noise keep above it.
TURNED = 0.2


@check(
    "L011",
    "gradients-are-cleared",
    title="Gradients are cleared between two steps",
    what="Looks at the gradients in front of every backward pass: since the optimiser's last step "
    "they must have been zero or absent once, and only once where accumulation is declared.",
    why="Without zero_grad() every step adds all gradients since the start: the loss falls at "
    "first and then circles. Clearing between accumulated passes throws most of the batch away.",
    sources=SOURCES,
    signs=("gradients-not-cleared", "cleared-while-accumulating"),
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
            sign="gradients-not-cleared",
            place=place,
            next_step="call optimizer.zero_grad() in front of every backward(), or declare "
            "Declared(accumulation=...)",
        )
    if lost > limit:
        context.problem(
            f"in {lost} of {len(trace.steps)} steps the gradients were cleared between the "
            f"{accumulation(context.subject)} backward passes that are declared to accumulate",
            sign="cleared-while-accumulating",
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
    signs=(
        "step-without-backward",
        "cleared-before-step",
        "clip-scaled",
        "clip-late",
        "clip-early",
        "gradient-turned",
        "gradient-reversed",
        "never-unscaled",
        "no-scaler-update",
        "loss-not-scaled",
        "scheduler-first",
    ),
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
    wrong: dict[str, tuple[str, str]] = {}
    idle = _steps_without_backward(trace)
    if idle:
        wrong["step-without-backward"] = (
            f"{idle} of {len(trace.steps)} steps have no backward pass of their own",
            "call backward() in front of every step()",
        )
    gone = sum(_cleared_in_front_of(trace, step) for step in trace.steps)
    if gone:
        wrong["cleared-before-step"] = (
            f"{gone} of {len(trace.steps)} steps find no gradient, though backward() left some",
            "call zero_grad() in front of backward(), not between backward() and step()",
        )
    if "clip scaled" in events:
        wrong["clip-scaled"] = (
            "gradients shrank before they were unscaled",
            "call scaler.unscale_(optimizer) in front of the clipping",
        )
    if "clip late" in events:
        wrong["clip-late"] = (
            "gradients shrank behind the step that used them",
            "clip between backward() and step()",
        )
    early = _clipped_in_front_of_backward(events)
    if early and "clip late" not in events:
        wrong["clip-early"] = (
            f"in {early} of {len(trace.steps)} steps gradients are clipped in front of backward(), "
            "and not behind it",
            "clip between backward() and step()",
        )
    turned = [s.turned for s in trace.steps if s.backward and (s.gradients > 0).any()]
    if turned and fmean(turned) < TURNED:
        sign = "gradient-reversed" if fmean(turned) < -0.5 else "gradient-turned"
        wrong[sign] = (
            f"in {len(turned)} steps the gradient points elsewhere than backward() left it (mean "
            f"cosine {fmean(turned):.2f}, limit {TURNED:g})",
            "look for what writes into .grad between backward() and step(): neg_(), noise, an "
            "exchange between networks",
        )
    if any(b.scale != 1 for b in trace.backward) and "unscale" not in events:
        wrong["never-unscaled"] = (
            "the loss was scaled, the gradients were never unscaled",
            "call scaler.step(optimizer) in place of optimizer.step()",
        )
    if "scaler.step" in events and "scaler.update" not in events:
        wrong["no-scaler-update"] = (
            "scaler.update() is never called",
            "call scaler.update() behind scaler.step()",
        )
    mixed = sum(_mixes_scales(trace, step) for step in trace.steps)
    if mixed:
        wrong["loss-not-scaled"] = (
            f"{mixed} of {len(trace.steps)} steps add up gradients of a loss that a GradScaler "
            "scaled and of one that a GradScaler did not scale",
            "give every loss to scaler.scale() in front of backward()",
        )
    if "scheduler" in events[: events.index("step")]:
        wrong["scheduler-first"] = (
            "the scheduler steps in front of the first optimiser step",
            "call scheduler.step() behind optimizer.step()",
        )
    context.measure(wrong=[seen for seen, _ in wrong.values()])
    if len(wrong) > context.limit("max_wrong"):
        place = place_of_training(context.subject, trace)
        for sign, (seen, next_step) in wrong.items():
            context.problem(seen, sign=sign, place=place, next_step=next_step)


def _mixes_scales(trace: Trace, step: Step) -> bool:
    """Whether the step's parameters got gradients with a GradScaler's factor and without one."""
    earlier = [s.backward for s in trace.steps if s.numbers == step.numbers]
    first = max((count for count in earlier if count < step.backward), default=0)
    passes, held = trace.backward[first : step.backward], frozenset(step.numbers)
    scales = [p.scale for p in passes if p.reached & held and not p.skipped]
    return 1 in scales and len(set(scales)) > 1


def _clipped_in_front_of_backward(events: list[str]) -> int:
    """Steps with a clipping since the step before, all in front of the first backward pass."""
    count = 0
    since: list[str] = []
    for event in events:
        if event == "step":
            last = max((k for k, e in enumerate(since) if e == "clip"), default=None)
            first = next((k for k, e in enumerate(since) if e == "backward"), len(since))
            count += last is not None and last < first < len(since)
            since = []
        else:
            since.append(event)
    return count


def _cleared_in_front_of(trace: Trace, step: Step) -> bool:
    if not step.backward:
        return False
    passes = trace.backward[step.backward - 1]
    left = passes.after[[n for n in step.numbers if n < len(passes.after)]]
    return not passes.inside_step and bool((left > 0).any()) and not (step.gradients > 0).any()


def _steps_without_backward(trace: Trace) -> int:
    last: dict[int, int] = {}
    idle = 0
    for step in trace.steps:
        idle += step.backward <= last.get(step.optimizer, 0)
        last[step.optimizer] = step.backward
    return idle


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
        if call.phase != "validation"
        and call.gradient
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


def _origin(
    context: Context, trace: Trace, losses: list[int]
) -> tuple[str, tuple[str, str] | None]:
    """Sign, (what was seen, place) of what broke first: loss, gradient, or a loss that explodes."""
    gradients = [
        number
        for number, passes in enumerate(trace.backward, 1)
        if not passes.skipped and not passes.after.isfinite().all()
    ]
    loss, gradient = min(losses, default=math.inf), min(gradients, default=math.inf)
    seen = [abs(value) for value in trace.losses if math.isfinite(value)]
    if 1 < min(loss, gradient) < math.inf and max(seen) > EXPLODES * max(seen[0], 1e-30):
        text = f"the loss grows from {seen[0]:.3g} to {max(seen):.3g} before it breaks"
        return "loss-explodes", (text, place_of_optimiser(context.subject, trace))
    if gradient < loss:
        return "gradient-operation-not-finite", backward_break(context.subject, trace)
    return "operation-not-finite", forward_break(context.subject) if losses else None


@check(
    "L020",
    "finite-everywhere",
    title="Losses, gradients and weights stay finite",
    what="Looks at every loss, every gradient norm and every weight norm of the watched steps.",
    why="The first NaN poisons all weights; what comes after it says nothing about its cause.",
    sources=("B1", "S6"),
    signs=(
        "operation-not-finite",
        "gradient-operation-not-finite",
        "loss-explodes",
        "loss-not-finite",
        "values-not-finite",
    ),
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
    sign, first = _origin(context, trace, losses)
    if first is not None:
        context.problem(
            first[0],
            sign=sign,
            place=first[1],
            next_step="lower the learning rate, or clip the gradient"
            if sign == "loss-explodes"
            else "keep the argument of logarithms, roots and quotients away from zero, in front "
            "of them: where() behind them doesn't help the gradient",
        )
    if losses:
        context.problem(
            f"{len(losses)} of {len(trace.losses)} losses are not finite, the first in backward "
            f"pass {losses[0]}",
            sign="loss-not-finite",
            place=trace.backward[losses[0] - 1].place,
            next_step="look at denominators, roots and logarithms of the loss at zero",
        )
    if len(broken) > context.limit("max_broken"):
        context.problem(
            f"{len(broken)} gradients or weights are not finite: "
            f"{listed([f'{name} ({when})' for name, when in broken.items()])}",
            sign="values-not-finite",
            place=place_of_training(context.subject, trace),
            next_step="torch.autograd.detect_anomaly() names the operation; look at the learning "
            f"rate ({trace.learning_rates}) where the loss was finite before",
        )
