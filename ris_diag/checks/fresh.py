"""A short training judged by the author's own metric on fresh samples. S7, B6."""

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context, DeviceBatches, Subject
from ris_diag.dependence import deviations, features, gaussian, label_features, linear
from ris_diag.errors import MissingSplitError
from ris_diag.measure import length_of, mean_and_error, run_fit
from ris_diag.places import where
from ris_diag.plan import Losses, Plan
from ris_diag.samples import lent_of, place_of_samples, served

EPOCHS = 30
BATCHES, BATCH = 8, 32
FEWEST, MOST = 128, 512  # samples on which the dependence is judged


@check(
    "O004",
    "metric-improves",
    title="A short training improves the metric on fresh samples, beyond what is free",
    what="Trains 30 epochs with the author's loop and loader and compares the metric on eight "
    "fresh batches with that of the first weights and with every baseline, batch by batch. With "
    "Case.truth it measures, too, whether predictions go with the truth, on samples of the "
    "training and on fresh ones (HSIC, in standard deviations over all permutations).",
    why="A loss that falls on known samples says little; a metric that a constant or a classical "
    "estimator reaches says nothing.",
    sources=("S7", "B6"),
    signs=("metric-does-not-improve", "no-better-than-free", "learnt-nothing-general"),
    needs=("model", "batch", "loop", "served", "metric"),
    thresholds=(
        Threshold(
            name="min_drop",
            value=0.05,
            unit="share of the metric of the first weights",
            why="as the loose bound of the litmus; thirty epochs give more",
        ),
        Threshold(
            name="min_errors",
            value=2.0,
            unit="standard errors of the difference to the best baseline",
            why="a difference that chance alone gives in one of forty runs",
        ),
        Threshold(
            name="min_general",
            value=3.0,
            unit="standard deviations above chance, of fresh predictions and their truth",
            why="chance alone exceeds it in one of a thousand trainings; what was learnt of "
            "anything general gives tens",
        ),
        Threshold(
            name="min_learnt",
            value=20.0,
            unit="standard deviations above chance, of predictions and truth in the training",
            why="less was not learnt, and can't be missing elsewhere",
        ),
    ),
)
def metric_improves(context: Context) -> None:
    subject, case = context.subject, context.subject.case
    model = subject.model()
    fresh = _fresh(subject)
    before = _metric(context, model, fresh)
    with served(subject) as loader:
        train = DeviceBatches(loader or (), subject.device)
        steps = EPOCHS * length_of(loader or ())
        with subject.progress("training", steps) as advance:

            def on_step(epoch: int, losses: Losses) -> None:
                advance(f"epoch {epoch}/{EPOCHS}, loss {float(losses.total.detach()):.3f}")

            plan = Plan(epochs=EPOCHS, train=train, validation=fresh, on_step=on_step)
            run_fit(subject, subject.fit, model, plan, planned=steps)
        learnt = _dependence(subject, model, islice(train, BATCHES))
    after = _metric(context, model, fresh)
    free = {name: [float(b(batch)) for batch in fresh] for name, b in case.baselines.items()}
    rows = {"untrained": before, "trained": after, **free}
    means = {name: mean_and_error(values) for name, values in rows.items()}
    for name, (mean, error) in means.items():
        context.say(f"{name:<20}{mean:10.4f} +- {error:.4f}")
    first, last = means["untrained"][0], means["trained"][0]
    drop = (first - last) / abs(first) if first else 0.0
    context.measure(metric={name: mean for name, (mean, _) in means.items()}, drop=drop)
    if not drop >= context.limit("min_drop"):
        context.problem(
            f"the metric on fresh samples went from {first:.4f} to {last:.4f}: it fell by "
            f"{drop:.1%}, limit {context.limit('min_drop'):.0%}",
            sign="metric-does-not-improve",
            place=where(subject.fit),
            next_step="look whether the metric sees the current weights, and at O001: does the "
            "network memorise?",
        )
    _judge_dependence(context, learnt, _dependence(subject, model, fresh))
    best = min(free, key=lambda name: means[name][0], default=None)
    if best is None:
        return
    gain, error = mean_and_error([b - a for a, b in zip(after, free[best], strict=True)])
    context.measure(best_baseline=best, gain=gain, gain_standard_error=error)
    if not gain > context.limit("min_errors") * error:
        context.problem(
            f"the metric is {last:.4f} and {best}, which needs no training, has "
            f"{means[best][0]:.4f}: a gain of {gain:.4f} +- {error:.4f}, limit "
            f"{context.limit('min_errors'):g} standard errors",
            sign="no-better-than-free",
            place=where(case.metric),
            next_step="more data, another model or another input: so far it learnt nothing beyond "
            "what is free",
        )


def _judge_dependence(context: Context, learnt: float | None, general: float | None) -> None:
    if learnt is None or general is None:
        return
    context.measure(learnt=learnt, general=general)
    limit = context.limit("min_general")
    if learnt >= context.limit("min_learnt") and general <= limit:
        context.problem(
            f"behind the training predictions go with the truth of known samples, by {learnt:.0f} "
            f"standard deviations above chance, and not with that of fresh ones, {general:.1f} "
            f"(limit {limit:g}): all that was learnt is by heart",
            sign="learnt-nothing-general",
            place=place_of_samples(context.subject),
            next_step="look whether labels belong to their inputs, in training and validation: two "
            "lists that are sorted or shuffled apart; else the task is too hard for these data",
        )


def _dependence(subject: Subject, model: nn.Module, batches: Iterable[Batch]) -> float | None:
    """Of truth on prediction, in standard deviations above chance; None where it can't be said."""
    case = subject.case
    if case.truth is None or not case.offers("prediction"):
        return None
    pairs = []
    model.eval()
    with torch.no_grad():
        for batch in batches:
            pair = subject.predict(model, batch), case.truth(batch)
            if (
                not all(isinstance(t, Tensor) and t.ndim for t in pair)
                or len({*map(len, pair)}) > 1
            ):
                return None
            pairs.append(pair)
    model.train()
    shapes = {tuple(t.shape[1:] for t in pair) for pair in pairs}
    if len(shapes) != 1 or sum(len(truth) for _, truth in pairs) < FEWEST:
        return None
    prediction, truth = (torch.cat(side)[:MOST].cpu() for side in zip(*pairs, strict=True))
    x, y = features({"": prediction}), label_features({"": truth})
    if not x.shape[1] or not y.shape[1]:
        return None
    return max(deviations(kernel, linear(y)) for kernel in (linear(x), gaussian(x)))


def _metric(context: Context, model: nn.Module, batches: list[Batch]) -> list[float]:
    metric = context.subject.case.metric
    model.eval()
    with torch.no_grad():
        values = [] if metric is None else [float(metric(model, batch)) for batch in batches]
    model.train()
    return values


def _fresh(subject: Subject) -> list[Batch]:
    """Batches that the training doesn't see; of a loader that was lent its first samples."""
    lent = lent_of(subject)
    if lent is None:
        return [subject.batch("validation", BATCH, offset=k) for k in range(BATCHES)]
    if lent.validation is None:
        raise MissingSplitError("needs fresh samples, Case.from_xy(validation=...)")
    x, y = subject.batch("validation", BATCHES * BATCH)
    size = -(-len(x) // BATCHES)
    return list(zip(x.split(size), y.split(size), strict=True))
