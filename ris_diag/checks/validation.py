"""The validation inside of the author's loop. B7."""

import math
from collections.abc import Mapping
from fractions import Fraction

from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.measure import FIT_BATCH, FIT_EPOCHS
from ris_diag.places import where
from ris_diag.plan import Progress
from ris_diag.trace import Trace
from ris_diag.watched import place_of_training, watch

DENOMINATOR = 720  # of a share of few samples, or of a mean of such shares
DIGITS = 1e-5


@check(
    "L056",
    "validation-sees-current-weights",
    title="The validation that the loop reports is that of the weights it trains",
    what="Looks at the validation values of the short training. Where they stay one number while "
    "the weights move, compares it with the loss of the first and of the last weights.",
    why="A copy made in front of the loop, or a value that is computed once, gives a curve that "
    "looks like a plateau, and early stopping keeps the first epoch.",
    sources=("B7",),
    signs=("metric-ignores-weights",),
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(
            name="min_movement",
            value=1e-3,
            unit="of the weights' norm, or of the validation loss",
            why="less may leave a value as it was",
        ),
    ),
)
def validation_sees_current_weights(context: Context) -> None:
    subject, limit = context.subject, context.limit("min_movement")
    if subject.case.fit is None:
        context.say("not judged: the loop is not the author's")
        return
    fitted = watch(subject)
    reported = [e.validation for e in fitted.epochs if e.validation is not None]
    context.measure(validation=reported)
    if len(reported) < 2 or not all(map(math.isfinite, reported)):
        context.say("not judged: the loop reports no validation")
        return
    if max(reported) > min(reported):
        return
    moved = [
        float(step.moved.norm() / step.weights.norm().clamp(min=1e-30))
        for step in fitted.trace.steps
    ]
    first, last = (_loss(subject, numbers) for numbers in (fitted.before, fitted.after))
    context.measure(moved=sum(moved), first=first, last=last)
    if sum(moved) < limit:
        context.say("not judged: the weights hardly move")
        return
    if first is not None and last is not None and _off(first, last) < limit:
        context.say("not judged: the training hardly changes the validation loss")
        return
    value = reported[-1]
    stale = first is not None and _off(value, first) <= DIGITS
    share = abs(value) <= 100 and any(
        abs(float(Fraction(part).limit_denominator(most)) - part) <= 1e-7
        for part, most in ((value, DENOMINATOR), (value / 100, FIT_BATCH))
    )
    if not stale and share:
        context.say(f"not judged: {value:g} may be a share of few samples")
        return
    compared = (
        f": the loss of the weights before the training, {first:.6g}, not that of the last ones, "
        f"{last:.6g}"
        if stale
        else ""
    )
    context.problem(
        f"the validation is {value:.6g} in all {len(reported)} epochs while the weights move by "
        f"{sum(moved):.2g} of their norm{compared} (limit: it changes)",
        place=where(subject.case.fit),
        next_step="validate the very model that is trained, anew in every epoch: no copy, no cache",
    )


def _loss(subject: Subject, numbers: Mapping[str, Tensor]) -> float | None:
    """Validation loss in eval mode of these weights; None without a loss."""
    if subject.case.loss is None or not numbers:
        return None
    model = subject.model()
    model.load_state_dict(numbers, strict=False)
    batch = subject.batch("validation", FIT_BATCH)
    progress = Progress(epoch=FIT_EPOCHS, epochs=FIT_EPOCHS)
    with subject.seeded("validation"):
        return float(subject.loss(model.eval(), batch, progress).total.detach())


def _off(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b), 1e-30)


@check(
    "L057",
    "validation-leaves-weights",
    title="No step is taken on validation batches",
    what="Looks at the backward passes of the short training behind calls that saw a validation "
    "batch and none of the training batches, and whether a step used their gradient.",
    why="A network that trains on its validation looks as good as it remembers.",
    sources=("B7", "B4"),
    signs=("trains-on-validation",),
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(name="max_steps", value=0, unit="steps", why="one is training on the test"),
    ),
)
def validation_leaves_weights(context: Context) -> None:
    trace = watch(context.subject).trace
    if not trace.validated:
        context.say("not judged: the loop doesn't go through plan.validation")
        return
    passes = _on_validation(trace)
    held = {n for s in trace.steps if s.backward - 1 not in passes for n in s.numbers}
    steps = [
        step
        for step in trace.steps
        if step.backward - 1 in passes and (not held or held & set(step.numbers))
    ]
    left = [
        number
        for number in passes
        if number + 1 < len(trace.backward)
        and number + 1 not in passes
        and _left(trace, number + 1)
        and not any(step.backward == number + 1 for step in trace.steps)
    ]
    context.measure(passes=len(passes), steps=len(steps), left=len(left))
    found = [
        f"{len(these)} {what}"
        for these, what in (
            (steps, f"of {len(trace.steps)} optimiser steps are taken on validation batches"),
            (left, "backward passes on validation batches leave gradients to the next step"),
        )
        if len(these) > context.limit("max_steps")
    ]
    if found:
        context.problem(
            f"{' and '.join(found)} (limit 0)",
            place=steps[0].place if steps else place_of_training(context.subject, trace),
            next_step="keep backward() and step() out of the validation; look at which loader the "
            "loop goes through",
        )


def _left(trace: Trace, number: int) -> bool:
    """Whether a backward pass finds gradients in parameters that an optimiser holds."""
    before = trace.backward[number].before
    held = {n for step in trace.steps for n in step.numbers if n < len(before)}
    return bool((before[sorted(held)] > 0).any())


def _on_validation(trace: Trace) -> set[int]:
    """Numbers of the backward passes behind calls that saw validation and no training batch."""
    train = frozenset[int]().union(*trace.served)
    validation = frozenset[int]().union(*trace.validated) - train
    seen: dict[int, set[int]] = {}
    for call in trace.calls:
        # A loss that needs gradients of its own is validated with them, and not differentiated.
        behind = trace.backward[call.backward : call.backward + 1]
        judged = call.phase == "validation" and all(p.phase != "validation" for p in behind)
        if call.gradient and call.input_hash is not None and not judged:
            seen.setdefault(call.backward, set()).add(call.input_hash)
    if any(hashes & train for hashes in seen.values()):
        return {
            number
            for number, hashes in seen.items()
            if number < len(trace.backward) and hashes & validation and not hashes & train
        }
    # The network sees no batch as it was served: then only the phase tells, if it changes.
    phases = [backward.phase for backward in trace.backward]
    return {n for n, phase in enumerate(phases) if phase == "validation"} & (
        set(range(len(phases))) if "train" in phases else set()
    )


@check(
    "L058",
    "validation-on-its-own-data",
    title="The validation that the loop reports goes through validation batches",
    what="Where the loop reports a validation and never goes through plan.validation, looks at "
    "what the network computed without a gradient: training batches and nothing else, or other "
    "data, which may be a validation of its own.",
    why="A validation on the training batches falls as the training does, and never tells when the "
    "network begins to memorise.",
    sources=("B7",),
    signs=("validates-on-training",),
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(name="min_batches", value=1, unit="validation batches", why="none is no look"),
    ),
)
def validation_on_its_own_data(context: Context) -> None:
    fitted = watch(context.subject)
    trace = fitted.trace
    reported = [epoch for epoch in fitted.epochs if epoch.validation is not None]
    context.measure(reported=len(reported), validated=len(trace.validated))
    if len(trace.validated) >= context.limit("min_batches") or not reported:
        return
    train = frozenset[int]().union(*trace.served)
    judging = [
        c for c in trace.calls if not c.gradient and any(True for _ in c.module.parameters())
    ]
    on_train = [c for c in judging if c.phase == "train" and c.input_hash in train]
    if not on_train or len(on_train) < len(judging):
        context.say("not judged: the loop may have a validation of its own")
        return
    epochs = len(fitted.epochs)
    # A second pass serves each batch once more than the backward passes of an epoch took.
    if trace.batches <= len(trace.backward):
        context.say("not judged: no second pass over the training batches")
        return
    context.problem(
        f"the loop reports a validation in {len(reported)} of {epochs} epochs and goes through 0 "
        f"validation batches (limit {context.limit('min_batches'):g}): all {len(judging)} calls "
        "without a gradient are on training batches",
        place=where(context.subject.fit),
        next_step="go through plan.validation there, not through plan.train once more",
    )
