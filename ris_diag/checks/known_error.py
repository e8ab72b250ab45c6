"""The metric of answers whose error is known. B7."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ris_diag.answers import as_output, class_axis
from ris_diag.check import Threshold, check
from ris_diag.checks.evaluation import NEEDS, judged_by, metric_of
from ris_diag.context import Context
from ris_diag.measure import nudged_model
from ris_diag.oracle import SIZE, Path, Unreachable, changed, follow, numbers_in
from ris_diag.perfect import declared_truth, predicted_by, same_numbers
from ris_diag.places import where
from ris_diag.samples import named_tensors

CANCELS = "error 1 of mean 0"
BLIND = 1e-5  # of the span: float32 rounds at 1e-7
ERRORS = (0.1, 0.3, 1.0)  # of the truth's spread, or of the samples that get a wrong class


@check(
    "L055",
    "metric-knows-the-answer",
    title="The metric is best for the truth and worse with a known error",
    what="Puts the truth in the place of the model's output, then the truth with a known error: "
    "noise of 0.1, 0.3 and 1 of its spread, once without a mean, or wrong classes for as many of "
    "the samples; also what else the batch holds in the truth's shape, as a noisy input. Where the "
    "truth isn't best, it asks Case.predict first what it makes of Case.oracle.",
    why="A metric with the wrong sign keeps the worst model, and one that is blind to errors keeps "
    "the first.",
    sources=("B7",),
    signs=("metric-wrong-for-known-error", "prediction-of-oracle-off"),
    needs=NEEDS,
    thresholds=(
        Threshold(
            name="max_share",
            value=0.05,
            unit="of the span of all answers, by which another may be better",
            why="a smoothed value has its best a little beside the truth",
        ),
    ),
)
def metric_knows_the_answer(context: Context) -> None:
    try:
        values, others = _values(context)
    except Unreachable as reason:
        context.say(f"not judged: {reason}")
        return
    context.measure(values=values, others=others)
    if not all(map(math.isfinite, values.values())):
        context.say("not judged: the metric is not finite for some of the answers")
        return
    truth, worst = values["truth"], values[f"error {ERRORS[-1]:g}"]
    span = max(values.values()) - min(values.values())
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    if span <= 1e-9 * abs(truth):
        context.problem(
            f"the metric is blind: {shown} (limit: the truth is best)",
            sign="metric-wrong-for-known-error",
            place=judged_by(context),
            next_step="compute it from the model's output and this batch's labels",
        )
        return
    seen = abs(worst - truth) > BLIND * span  # labels that don't vary have no error of their spread
    cancel = seen and CANCELS in values and abs(values[CANCELS] - truth) <= BLIND * span
    limit = context.limit("max_share") * span
    closer = {name: value for name, value in others.items() if truth - value > limit}
    better = [name for name, value in values.items() if truth - value > limit]
    off = better and (truth >= worst or better == ["untrained"])
    if not (cancel or closer or off) or _inference_off(context):
        return
    if cancel:
        context.problem(
            f"errors cancel each other in the metric: {shown} (limit: the truth is best)",
            sign="metric-wrong-for-known-error",
            place=judged_by(context),
            next_step="take the absolute value or the square of each error in front of the mean",
        )
        return
    if closer:
        best = min(closer, key=lambda name: closer[name])
        context.problem(
            f"another tensor of the batch is better than the truth: {best} {closer[best]:.4g}, "
            f"{shown} (limit: nothing is better)",
            sign="metric-wrong-for-known-error",
            place=judged_by(context),
            next_step=f"compare the output with its label, not with {best}",
        )
        return
    sign = all(value < truth for name, value in values.items() if name != "truth")
    context.problem(
        f"the truth is not the best for the metric: {shown} (limit: nothing is better)",
        sign="metric-wrong-for-known-error",
        place=judged_by(context),
        next_step="higher is better here: give 1 - accuracy, or the negative value"
        if sign
        else "compare each output with its own label, in one convention and one scale",
    )


def _inference_off(context: Context) -> bool:
    """Whether Case.predict makes something else than the truth of the perfect output; reported."""
    subject, case = context.subject, context.subject.case
    if case.oracle is None or case.truth is None or case.predict is None:
        return False
    batch, model = subject.batch("validation", SIZE), nudged_model(subject).eval()
    truth = case.truth(batch)
    path = follow(subject, model, lambda: subject.predict(model, batch))
    with torch.no_grad():
        given = path.given([case.oracle(batch)])
    if not isinstance(given, Tensor) or given.shape != truth.shape:
        return False
    if not (truth.is_floating_point() and given.is_floating_point()):
        return False
    error = (given - truth).double()
    spread = float(truth.double().std(correction=0))
    off = float(error.square().mean().sqrt()) / max(spread, 1e-30)
    if not off > context.limit("max_share"):
        return False
    context.problem(
        f"Case.predict makes of Case.oracle, the perfect output, something that differs from "
        f"Case.truth by {off:.3g} of its spread ({float(error.mean()):+.4g} in the mean, limit "
        f"{context.limit('max_share'):g}): inference changes the output in another way than "
        "training does",
        sign="prediction-of-oracle-off",
        place=where(case.predict),
        next_step="undo in predict what the loss does to the label: the same mean, scale and order",
    )
    return True


def _values(context: Context) -> tuple[dict[str, float], dict[str, float]]:
    """The metric of the untrained output, of the truth and of each error; of tensors of the batch.

    Raises:
        Unreachable: there is nothing to compare.
    """
    subject, case = context.subject, context.subject.case
    batch, model = subject.batch("validation", SIZE), nudged_model(subject).eval()
    truth_of = declared_truth(case)
    if case.oracle is None and truth_of is None:
        raise Unreachable("neither Case.oracle nor Case.truth says what the output should be")

    def run() -> float:
        return metric_of(context, model, batch, "oracle")

    if case.oracle is not None:
        path = follow(subject, model, run)
        return _of(path, [case.oracle(batch)], None), {}
    truth: Tensor = truth_of(batch)  # type: ignore[misc]  # one of the two is there
    path = follow(subject, model, run, lambda o: any(as_output(truth, t) for t in numbers_in(o)))
    if len(path.outputs) > 1:
        raise Unreachable(f"the model is called {len(path.outputs)} times for one metric")
    leaves = [leaf for leaf in numbers_in(path.outputs[0]) if as_output(truth, leaf)]
    predicted = predicted_by(subject, model, batch)
    same = [leaf for leaf in leaves if predicted is not None and same_numbers(leaf, predicted)]
    whole = truth.is_floating_point() or truth.is_complex()
    classes = None if whole or not leaves else class_axis(truth, leaves[0])
    if len(leaves) != 1 or (classes is None and not same):
        raise Unreachable("Case.predict isn't the model's output")
    answers = as_output(truth, leaves[0])
    if classes is not None:
        return _of(path, answers, classes, leaves[0]), {}
    # What stands in the batch beside the truth, as the input, is no better than the truth.
    beside = {
        name: tensor
        for name, tensor in named_tensors(batch).items()
        if tensor.shape == leaves[0].shape and tensor.dtype == leaves[0].dtype
    }
    others = {name: _in_place(path, leaves[0], tensor) for name, tensor in beside.items()}
    return _of(path, answers[:1], None, leaves[0]), others


def _in_place(path: Path, slot: Tensor, answer: Tensor) -> float:
    """The metric with an answer at the place of one tensor of the output."""
    return float(path.given([changed(path.outputs[0], lambda t: answer if t is slot else t)]))


def _of(
    path: Path, answers: Sequence[object], classes: int | None, slot: Tensor | None = None
) -> dict[str, float]:
    def metric(answer: object) -> float:
        if slot is not None:
            return _in_place(path, slot, answer)  # type: ignore[arg-type]  # a tensor
        return float(path.given([answer]))

    untrained = float(path.given(path.outputs))
    # Of classes as confident as suits the metric: a smoothed one doesn't like too much of it.
    best = min(answers, key=metric)
    values = {"untrained": untrained, "truth": metric(best)}
    for share in ERRORS:
        wrong = [changed(best, lambda t, s=share, n=n: _wrong(t, s, classes, n)) for n in range(3)]  # type: ignore[misc]  # binds the loop's value
        values[f"error {share:g}"] = sum(map(metric, wrong)) / len(wrong)
    if classes is None and isinstance(best, Tensor) and best.ndim and len(best) > 1:
        centred = changed(best, lambda t: _centred(_wrong(t, ERRORS[-1], None, 0), t))
        values[CANCELS] = metric(centred)
    return values


def _centred(wrong: Tensor, answer: Tensor) -> Tensor:
    """The wrong answer with errors that sum to zero over the samples."""
    error = wrong - answer
    return answer + error - error.mean(0, keepdim=True)


def _wrong(answer: Tensor, share: float, classes: int | None, seed: int) -> Tensor:
    """The answer with a known error."""
    source = torch.Generator().manual_seed(seed)
    if classes is None:
        noise = torch.randn(answer.shape, generator=source, dtype=answer.dtype)
        spread = answer.std(correction=0) if answer.numel() > 1 else answer.abs()
        return answer + share * spread * noise.to(answer.device)
    count = max(1, round(share * len(answer)))
    rows = torch.randperm(len(answer), generator=source)[:count].to(answer.device)
    moved = answer.clone()
    moved[rows] = answer.roll(1, classes)[rows]
    return moved
