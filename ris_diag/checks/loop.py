"""The author's own loop over a few epochs: S9, S10 and S13."""

import math
import re
from collections.abc import Callable
from functools import partial
from itertools import groupby, pairwise
from statistics import fmean

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import FIT_BATCHES, FIT_EPOCHS, accumulation, listed, short_fit
from ris_diag.places import where
from ris_diag.swallowed import swallowed
from ris_diag.trace import Backward, Trace
from ris_diag.watched import place_of_training, watch

MEAN_ROUNDING = Threshold(
    name="max_relative_difference",
    value=1e-3,
    unit="relative",
    why="float32 means of a few losses agree to 1e-6; weighting the last, smaller batch "
    "differently stays below this only where all batches have one size, as here",
)


@check(
    "L005",
    "weights-on-every-path",
    title="The declared loss weights are in effect on every path",
    what="Runs every path of the loop (with and without a curriculum; the loop itself where a case "
    "names no paths) for a few epochs and measures, at every optimiser step, the weight in effect "
    "of each term as d total / d term; the loss that is shown must be the one on which backward() "
    "is called.",
    why="One path that forgets to pass a weight trains without the term, with a loss that falls.",
    sources=("S10", "S4"),
    signs=("no-step-shown", "shows-another-loss", "weight-not-in-effect", "term-is-cut"),
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(
            name="max_relative_difference",
            value=1e-4,
            unit="relative",
            why="the slope of a weighted sum is its weight, up to float32 rounding",
        ),
    ),
)
def weights_on_every_path(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_relative_difference")
    declared = {} if subject.case.declared is None else subject.case.declared.weights
    seen_on: dict[str, dict[str, float | None]] = {}
    for path, fit in (subject.case.paths or {"loop": subject.fit}).items():
        fitted = short_fit(subject, path if subject.case.paths else None)
        if fitted.trace.by_hand:
            context.say("not judged: gradients are set without calling backward()")
            continue
        if not fitted.steps and not subject.case.paths:
            context.say("not judged: the loop shows no loss to plan.on_step")
            continue
        if not fitted.steps:
            context.problem(
                f"path {path}: no step was shown",
                sign="no-step-shown",
                place=where(fit),
                next_step="call plan.on_step(epoch, losses) in front of every backward pass",
            )
            continue
        shown = [step.total for step in fitted.steps]
        foreign = _foreign(shown, fitted.trace.losses, accumulation(subject))
        several = subject.case.covariance is None  # losses, as of two networks, beside the shown
        if foreign or (len(shown) != len(fitted.trace.losses) and not several):
            context.problem(
                f"path {path}: {len(fitted.steps)} losses shown, {len(fitted.trace.losses)} "
                f"differentiated, {foreign} of them another value",
                sign="shows-another-loss",
                place=where(fit),
                next_step="show plan.on_step the very loss on which backward() is called",
            )
        worst: dict[str, float | None] = {}
        for name, weight in declared.items():
            in_effect = [step.weights.get(name) for step in fitted.steps]
            cut = any(value is None for value in in_effect)
            values = [value for value in in_effect if value is not None]
            worst[name] = None if cut else max(values, key=lambda v: abs(v - weight))
        seen_on[path] = worst
        for sign, off in (
            (
                "term-is-cut",
                [f"{n} cut off, declared {declared[n]:g}" for n, v in worst.items() if v is None],
            ),
            (
                "weight-not-in-effect",
                [
                    f"{name} {value:g}, declared {declared[name]:g}"
                    for name, value in worst.items()
                    if value is not None
                    and abs(value - declared[name]) > limit * abs(declared[name])
                ],
            ),
        ):
            if off:
                context.problem(
                    f"path {path}: weight in effect at step time: {'; '.join(off)} "
                    f"(limit {limit:g} relative)",
                    sign=sign,
                    place=where(fit),
                    next_step="run L003: it tells which term's graph is cut"
                    if sign == "term-is-cut"
                    else "pass the declared weights to the loss on this path, too",
                )
    context.measure(weights=seen_on, declared=dict(declared))


@check(
    "L008",
    "reported-loss-is-observed",
    title="The reported training loss is the mean of the losses really seen",
    what="Compares the loss that the loop reports for every epoch with the mean of the losses on "
    "which backward() was called in it. Where a batch has several (two optimisers, a closure), "
    "their sum, their mean or one of them will do, and so will the mean of all. An NMSE must be "
    "above zero and fall, too.",
    why="A report of 0, of the last batch or of a stale variable looks like training.",
    sources=("S13",),
    signs=(
        "epochs-missing",
        "losses-not-finite",
        "reported-not-observed",
        "reported-not-positive",
        "reported-does-not-fall",
    ),
    needs=("model", "batch", "loop"),
    thresholds=(MEAN_ROUNDING,),
)
def reported_loss_is_observed(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_relative_difference")
    fitted = short_fit(subject)
    place = where(subject.fit)
    reported = [epoch.train for epoch in fitted.epochs]
    observed = _observed(fitted.trace.backward, reported, accumulation(subject))
    context.measure(reported=reported, observed=observed)
    if len(reported) != FIT_EPOCHS:
        context.problem(
            f"{len(reported)} epochs reported, {FIT_EPOCHS} were asked for",
            sign="epochs-missing",
            place=place,
            next_step="return one ris_diag.Epoch for every epoch of the plan",
        )
    if fitted.trace.by_hand:
        context.say("not compared: gradients are set without calling backward()")
        return
    wild = [
        number for number, value in enumerate(fitted.trace.losses, 1) if not math.isfinite(value)
    ]
    if wild:
        context.problem(
            f"{len(wild)} of {len(fitted.trace.losses)} losses seen are not finite, the first in "
            f"step {wild[0]}",
            sign="losses-not-finite",
            place=place,
            next_step="run L001: it shows the losses step by step",
        )
        return
    if not all(map(math.isfinite, observed)):
        context.say("not compared: the loop doesn't go through the batches, epoch by epoch")
        return
    off = [
        f"epoch {number}: reported {got:.6f}, observed mean {want:.6f}"
        for number, (got, want) in enumerate(zip(reported, observed, strict=True), start=1)
        if not abs(got - want) <= limit * abs(want)
    ]
    if off:
        context.problem(
            f"{len(off)} of {len(reported)} reported losses are not the mean of the losses seen "
            f"({'; '.join(off[:2])}; limit {limit:g} relative)",
            sign="reported-not-observed",
            place=place,
            next_step="average loss.detach() over all batches of the epoch",
        )
    if not subject.case.offers("covariance.loss"):
        return  # other losses may be negative, or rise: a likelihood, an adversary's
    low = [number for number, value in enumerate(reported, start=1) if not value > 0]
    if low:
        context.problem(
            f"the reported loss of epoch(s) {listed([str(n) for n in low])} is not above 0",
            sign="reported-not-positive",
            place=place,
            next_step="look whether the sum is filled before it is divided",
        )
    if reported and not reported[-1] < reported[0]:
        context.problem(
            f"the reported loss does not fall: {reported[0]:.6f} in epoch 1, "
            f"{reported[-1]:.6f} in epoch {len(reported)}",
            sign="reported-does-not-fall",
            place=place,
            next_step="run L001 first: it tells whether the weights learn at all",
        )


@check(
    "L009",
    "one-step-a-batch",
    title="The loop takes one optimiser step a batch, or as many as accumulation leaves",
    what="Counts optimiser steps and backward passes of the author's loop against the batches that "
    "it was given; of a script, backward passes against steps.",
    why="An optimiser step one indentation too far to the left makes one update an epoch: the "
    "loss falls, a hundred times too slowly.",
    sources=("S13", "B1"),
    signs=(
        "exceptions-swallowed",
        "steps-missing",
        "too-many-steps",
        "passes-without-steps",
    ),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_missing_share",
            value=0,
            unit="share of the planned steps",
            why="the plan asks for one step a batch; nothing else is declared",
        ),
        Threshold(
            name="max_passes",
            value=3,
            unit="backward passes for one step, where a script gives no plan",
            why="two losses, or two optimisers, have a pass each; many more are an accumulation "
            "that nobody declared",
        ),
    ),
)
def one_step_a_batch(context: Context) -> None:
    subject = context.subject
    fitted = watch(subject)
    trace, batches = fitted.trace, fitted.planned
    if not subject.case.offers("loop"):
        _passes_of_a_script(context, trace)
        return
    skipped = sum(passes.skipped for passes in trace.backward)  # a GradScaler may do so
    steps, planned = trace.rounds, batches // accumulation(subject)
    context.measure(
        steps=[len(group) for group in trace.groups],
        backward=len(trace.backward),
        batches=batches,
        planned=planned,
        raised=trace.raised,
    )
    if trace.raised:
        context.problem(
            f"the loop went on behind {len(trace.raised)} exceptions "
            f"({listed(list(dict.fromkeys(trace.raised)))})",
            sign="exceptions-swallowed",
            place=where(subject.fit),
            next_step="don't catch what you can't mend: let it end the training",
        )
    if trace.without_optimiser:
        context.say("not counted: weights are updated without an optimiser")
        return
    if abs(planned - steps - skipped) > context.limit("max_missing_share") * planned:
        caught = {} if trace.raised or steps >= planned else swallowed(subject)
        often = {key: times for key, times in caught.items() if times * 2 >= FIT_BATCHES}
        if often:
            (what, where_), times = next(iter(often.items()))
            context.problem(
                f"the loop went on behind exceptions of its own code: {what} ({times} times)",
                sign="exceptions-swallowed",
                place=f"{where_}, in {where(subject.fit)}",
                next_step="don't catch what you can't mend: let it end the training",
            )
        wanted = "" if planned == batches else f", {planned} were planned"
        context.problem(
            f"{steps} optimiser steps for {batches} batches ({FIT_EPOCHS} epochs){wanted}, "
            f"{len(trace.backward)} backward passes",
            sign="too-many-steps" if steps > planned else "steps-missing",
            place=fitted.trace.step_place or where(subject.fit),
            next_step="call zero_grad(), backward() and step() inside the loop over batches",
        )


def _passes_of_a_script(context: Context, trace: Trace) -> None:
    passes = sum(not p.inside_step for p in trace.backward) / accumulation(context.subject)
    steps = len(trace.steps) or trace.updated_by_hand
    if not trace.backward and trace.without_optimiser:
        context.say("not counted: weights are updated without an optimiser")
        return
    context.measure(steps=steps, backward=len(trace.backward))
    if not steps or passes > context.limit("max_passes") * steps:
        context.problem(
            f"{steps} optimiser steps for {len(trace.backward)} backward passes",
            sign="passes-without-steps",
            place=place_of_training(context.subject, trace),
            next_step="call step() inside the loop over batches, or declare what is accumulated: "
            "Declared(accumulation=...)",
        )


@check(
    "L010",
    "debug-lines-logged",
    title="The loop logs what a person needs to see once a run",
    what="Runs a few epochs and looks in the log for the loss weights, the value of each term, "
    "whether R_blend requires a gradient, ||R_hat - R_true||_F, beta on the first batch of "
    "every epoch, gradient norms in the first epoch and the announcement of the warm-up.",
    why="At two in the morning these lines are what tells a weight of 0 from a cut graph; printed "
    "lines can't be switched off or sent to a file.",
    sources=("S9",),
    needs=("model", "batch", "loop", "covariance.blend", "declared"),
    thresholds=(
        Threshold(name="max_missing", value=0, unit="lines", why="each answers another question"),
    ),
)
def debug_lines_logged(context: Context) -> None:
    subject = context.subject
    fitted = short_fit(subject)
    declared = subject.declared
    warmup = max(2, int(declared.warmup_share * FIT_EPOCHS))
    announcement = (
        f"[Beta Warmup] Annealing beta from {declared.beta_start:.2f} -> "
        f"{declared.beta_final:.2f} over {warmup} epochs"
    )
    wanted = {
        "the loss weights (lam_cov=...)": (r"lam_cov\s*[=:]\s*\S*\d", 1),
        "the value of each loss term (loss terms: ...)": (r"(?i)loss terms?\b.*\d", 1),
        "R_blend.requires_grad=...": (r"requires_grad\s*[=:]\s*(True|False)", 1),
        "||R_hat - R_true||_F=...": (r"\|\|R_hat - R_true\|\|_F\s*[=:]\s*\d", 1),
        f"beta=... in each of {FIT_EPOCHS} epochs": (r"\bbeta\s*[=:]\s*\d", FIT_EPOCHS),
        "grad_norm=... in the first epoch": (r"grad_norm\s*[=:]\s*\d", 1),
        announcement: (re.escape(announcement), 1),
    }
    missing = [
        text
        for text, (pattern, times) in wanted.items()
        if sum(bool(re.search(pattern, line)) for line in fitted.log) < times
    ]
    context.measure(lines=len(fitted.log), missing=missing)
    if len(missing) > context.limit("max_missing"):
        hint = ""
        if fitted.printed:
            hint = f" ({len(fitted.printed.splitlines())} lines were printed instead of logged)"
        context.problem(
            f"{len(missing)} of {len(wanted)} lines are missing from the log: "
            f"{'; '.join(missing)}{hint}",
            place=where(subject.fit),
            next_step="log them at INFO with logging.getLogger(__name__)",
        )


def _foreign(shown: list[float], seen: list[float], factor: int) -> int:
    """How many of the losses shown are no loss seen, nor the sum of two that follow each other.

    Args:
        factor: accumulated losses are divided by it.
    """
    candidates = [*seen, *(a + b for a, b in pairwise(seen))]
    return sum(
        not any(
            math.isclose(value, scale * candidate, rel_tol=1e-6, abs_tol=1e-12)
            for candidate in candidates
            for scale in {1, factor}
        )
        for value in shown
        if math.isfinite(value)
    )


def _observed(backward: list[Backward], reported: list[float], factor: int) -> list[float]:
    """Mean loss of every epoch by the reading that comes closest to what is reported.

    Args:
        factor: accumulated losses are divided by it.
    """
    windows = [
        [float(b.value) for b in passes] for _, passes in groupby(backward, lambda b: b.batch)
    ]
    epochs = len(reported)
    if not epochs or len(windows) < epochs:
        return [math.nan] * epochs
    readings: list[Callable[[list[float]], float]] = [math.fsum, fmean]
    shortest = min(map(len, windows))
    readings += [partial(_pick, position=k) for k in (*range(shortest), -1)]
    share = len(windows) / epochs
    parts = [windows[round(k * share) : round((k + 1) * share)] for k in range(epochs)]
    means = [
        [scale * fmean(read(window) for window in part) for part in parts]
        for read in readings
        for scale in {1, factor}
    ]
    means.append([fmean(value for window in part for value in window) for part in parts])
    return min(means, key=lambda m: math.dist(m, reported))


def _pick(window: list[float], position: int) -> float:
    return window[position]
