"""Five steps on one frozen batch: S1 and S6."""

import math

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.flow import flow_of
from ris_diag.measure import (
    LITMUS_BATCH,
    LITMUS_EPOCHS,
    LITMUS_STEPS,
    accumulation,
    litmus,
    run_fit,
)
from ris_diag.places import where
from ris_diag.plan import Plan

NOTE_EPOCHS = 30
WALK_EPOCHS = 10  # a warm-up of two of them, then the final value


@check(
    "L001",
    "one-batch-learns",
    title="Five steps of the real loop on one frozen batch lower the loss",
    what="Freezes one batch, lets the author's own loop take five optimiser steps while beta walks "
    "from its start to its final value, and compares the loss of the first and of the last "
    "weights at the same, last beta; NMSE(R_pred) by itself must fall too. Keeps `losses`, `beta` "
    "and, by module, `gradient_norm`, `update_to_weight`, `zero_gradients` (the share of exactly "
    "zero entries) of every step.",
    why="The walk of beta alone lowers the loss wherever R_samp is nearer to the truth than an "
    "untrained R_pred: a loss that falls along the walk can belong to a frozen network.",
    sources=("S6",),
    signs=(
        "litmus-steps-differ",
        "litmus-not-finite",
        "litmus-climbs",
        "litmus-does-not-fall",
        "prediction-does-not-fall",
        "gradient-trivial",
    ),
    needs=("model", "batch", "loss", "loop"),
    thresholds=(
        Threshold(
            name="min_drop",
            value=0.05,
            unit="share of the loss at equal beta",
            why="the note's loose bound; it expects 0.20 to 0.30, a fall below 0.05 is marginal",
        ),
        Threshold(
            name="min_promised",
            value=0.3,
            unit="of <gradient, -update>",
            why="small learning rates fall by less than min_drop; without covariances a fall that "
            "the gradients promise to first order will do, and noise may take most of it",
        ),
        Threshold(
            name="min_gradient_norm",
            value=1e-8,
            unit="mean norm over the parameters",
            why="far below any gradient that moves a weight, far above rounding noise around zero",
        ),
    ),
)
def one_batch_learns(context: Context) -> None:
    subject = context.subject
    run = litmus(subject)
    trace, steps = run.fitted.trace, run.fitted.steps
    place = trace.step_place or where(subject.fit)
    judged = "loss at equal beta" if subject.case.offers("covariance.blend") else "loss"
    means = trace.mean_gradients or [float(s.gradients.clamp(min=0).mean()) for s in trace.steps]
    for number, loss in enumerate(trace.losses, start=1):
        step = steps[number - 1] if number <= len(steps) else None
        beta = "" if step is None or step.beta is None else f"beta={abs(step.beta):.3f}, "
        context.say(
            f"Step {number}/{LITMUS_STEPS}: {beta}loss={loss:.6f}, "
            f"avg_grad_norm={means[number - 1]:.4f}"
        )
    first, last = run.equal_beta
    drop = (first - last) / abs(first) if first else 0.0  # a likelihood may be negative
    context.measure(
        losses=trace.losses,
        mean_gradient_norms=means,
        beta=[step.beta for step in steps],
        modules=flow_of(trace),
        loss_first_weights=first,
        loss_last_weights=last,
        drop=drop,
    )
    if run.prediction is not None:
        context.measure(prediction_first=run.prediction[0], prediction_last=run.prediction[1])

    minimum = context.limit("min_drop")
    by_hand = trace.without_optimiser
    if trace.rounds != LITMUS_STEPS and not by_hand:
        context.problem(
            f"the loop took {trace.rounds} optimiser steps, {LITMUS_STEPS} were asked for",
            sign="litmus-steps-differ",
            place=place,
            next_step="call optimizer.step() once a batch"
            if trace.rounds < LITMUS_STEPS
            else "let the exception that ends the loop pass: a bare `except:` swallows it",
        )
    if not math.isfinite(first) or not math.isfinite(last):
        context.problem(
            f"the loss is not finite (first weights {first:g}, last weights {last:g})",
            sign="litmus-not-finite",
            place=place,
            next_step="look at the scale of the input, the learning rate and the loss's "
            "denominators",
        )
    elif drop < minimum and not _as_promised(context, first - last):
        climbs = last > first and (by_hand or sum(step.expected for step in trace.steps) < 0)
        context.problem(
            f"{judged} went from {first:.6f} to {last:.6f} in five steps: it fell by {drop:.1%}, "
            f"limit {minimum:.0%}" + ("; the updates climb the gradient" if climbs else ""),
            sign="litmus-climbs" if climbs else "litmus-does-not-fall",
            place=place,
            next_step="look for maximize=True, a minus in front of the loss, or a gradient with "
            "the wrong sign"
            if climbs
            else "look whether the learning rates "
            f"{trace.learning_rates} are above zero "
            "and whether the optimiser holds this model's parameters",
        )
    if run.prediction is not None and not run.prediction[1] < run.prediction[0]:
        context.problem(
            f"NMSE(R_pred) did not fall: {run.prediction[0]:.6f} before, {run.prediction[1]:.6f} "
            "after five steps",
            sign="prediction-does-not-fall",
            place=place,
            next_step="look whether the loss reaches R_pred, not the blend alone",
        )
    floor = context.limit("min_gradient_norm")
    skipped = {number for number, passes in enumerate(trace.backward, start=1) if passes.skipped}
    odd = [
        f"step {number}: {value:g}"
        for number, value in enumerate(means, start=1)
        if (not math.isfinite(value) or value < floor) and number not in skipped
    ]
    if odd or not means:
        context.problem(
            f"the mean gradient norm is not finite or trivial ({', '.join(odd) or 'no backward'}; "
            f"limit {floor:g})",
            sign="gradient-trivial",
            place=place,
            next_step="look for detach(), no_grad() or a weight of 0 between network and loss",
        )
    verdict = "PASS" if not context.findings else "FAIL"
    if verdict == "PASS" and drop < 0.20:
        verdict = "PASS (below the 20 % that the note expects)"
    context.say(f"Litmus: {judged} {first:.6f} -> {last:.6f} ({-drop:+.1%}): {verdict}")


def _as_promised(context: Context, fall: float) -> bool:
    """Whether the loss fell by what the gradients promise; never for the documented litmus."""
    if context.subject.case.offers("covariance.blend"):
        return False
    promised = sum(step.expected for step in litmus(context.subject).fitted.trace.steps)
    context.measure(promised_fall=promised)
    return fall > 0 and promised > 0 and fall >= context.limit("min_promised") * promised


@check(
    "L002",
    "beta-walk",
    title="beta follows its declared schedule",
    what="Measures the blend weight in effect in each of the five litmus steps from R_blend, "
    "R_pred and R_samp themselves, and compares it with the declared schedule; the same over a "
    "whole run of ten epochs on every path of the loop (where a path leaves samples out, nothing "
    "is compared), and over 30 epochs for the schedule that inference uses.",
    why="A warm-up that is stuck, off by one step or never applied trains another objective than "
    "the declared one, and nothing else shows it.",
    sources=("S1",),
    signs=("beta-off-schedule", "beta-off-on-a-path", "inference-schedule-differs"),
    needs=(
        *("model", "batch", "loss", "loop", "declared", "covariance.sample", "covariance.beta"),
    ),
    thresholds=(
        Threshold(
            name="max_deviation",
            value=1e-3,
            unit="beta",
            why="rounding of complex64 in the measured beta is below 1e-4, one step of the walk "
            "is 0.075",
        ),
    ),
)
def beta_walk(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_deviation")
    declared = subject.declared
    seen = [step.beta for step in litmus(subject).fitted.steps[:: accumulation(subject)]]
    wanted = [declared.beta(epoch, LITMUS_EPOCHS) for epoch in range(1, LITMUS_STEPS + 1)]
    context.measure(beta=seen, declared=wanted)
    tolerance = limit + declared.beta_jitter
    off = [
        f"step {number}: {got:.3f}, declared {want:.3f}"
        for number, (got, want) in enumerate(zip(seen, wanted, strict=False), start=1)
        if got is not None and abs(got - want) > tolerance
    ]
    if None in seen:
        context.say("not judged: R_blend and R_pred of some steps don't tell beta")
    if len(seen) < len(wanted):
        off.append(f"{len(seen)} of {len(wanted)} steps were shown to Plan.on_step")
    if off:
        context.problem(
            f"beta in effect leaves its schedule ({'; '.join(off)}; limit {tolerance:g})",
            sign="beta-off-schedule",
            place=where(subject.fit),
            next_step="pass the schedule's beta of this epoch (counted from 1) to the blend",
        )
    for path, seen in _walks(subject).items():
        off = [
            f"epoch {epoch}: {got:.3f}, declared {declared.beta(epoch, WALK_EPOCHS):.3f}"
            for epoch, got in enumerate(seen, start=1)
            if got is not None and abs(got - declared.beta(epoch, WALK_EPOCHS)) > tolerance
        ]
        if off:
            context.problem(
                f"path {path}: beta in effect leaves its schedule in {len(off)} of {WALK_EPOCHS} "
                f"epochs ({'; '.join(off[:3])}; limit {tolerance:g})",
                sign="beta-off-on-a-path",
                place=where(subject.case.paths.get(path, subject.fit)),
                next_step="pass the schedule's beta of this epoch to the blend on this path, too",
            )
    schedule = [subject.covariance.beta(e, NOTE_EPOCHS) for e in range(1, NOTE_EPOCHS + 1)]
    context.measure(schedule=schedule)
    off = [
        f"epoch {epoch}: {got:.3f}, declared {declared.beta(epoch, NOTE_EPOCHS):.3f}"
        for epoch, got in enumerate(schedule, start=1)
        if abs(got - declared.beta(epoch, NOTE_EPOCHS)) > limit
    ]
    if off:
        context.problem(
            f"the schedule of inference differs in {len(off)} of {NOTE_EPOCHS} epochs "
            f"({'; '.join(off[:3])}; limit {limit:g})",
            sign="inference-schedule-differs",
            place=where(subject.covariance.beta),
            next_step="beta = start + (final - start) (epoch - 1) / (W - 1) for epoch <= W = "
            "max(2, int(share * epochs)), without jitter",
        )


def _walks(subject: Subject) -> dict[str, list[float | None]]:
    """Beta in effect in every epoch of a whole run, by path; None where it can't be measured."""
    walks = {}
    for path, fit in (subject.case.paths or {"fit": subject.fit}).items():
        plan = Plan(epochs=WALK_EPOCHS, train=[subject.batch("train", LITMUS_BATCH)])
        fitted = run_fit(subject, fit, subject.model(), plan, planned=WALK_EPOCHS)
        walks[path] = [step.beta for step in fitted.steps]
    return walks
