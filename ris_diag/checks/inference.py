"""What inference gives out: the same twice, and for each sample by itself. B1, B7."""

from functools import partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.errors import CaseError
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.innermost import Agree, place_of_parting
from ris_diag.measure import listed, nudged_model
from ris_diag.norms import hash_of
from ris_diag.places import where
from ris_diag.watched import place_of_prediction

SIZE, PART = 7, 3  # a length that few other axes have


@check(
    "L026",
    "inference-is-deterministic",
    title="Inference gives the same twice; dropout is inactive",
    what="Predicts the same batch twice in eval mode, from different random states.",
    why="A dropout that eval() doesn't reach, functional or held in a plain list, makes every "
    "validation another number, and the best epoch a matter of luck.",
    sources=("B1", "B7"),
    needs=("model", "batch", "prediction"),
    thresholds=(
        Threshold(
            name="max_difference",
            value=1e-5,
            unit="of the largest output",
            why="parallel sums may round differently",
        ),
    ),
)
def inference_is_deterministic(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_difference")
    model = nudged_model(subject).eval()
    batch = subject.batch("validation", SIZE)
    inputs: list[list[int]] = [[], []]
    predictions = []
    for seen in inputs:
        hook = model.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.extend(map(hash_of, tensors_in(args)))
        )
        try:
            predictions.append(predicted(context, model, batch))
        finally:
            hook.remove()
    first, second = predictions
    if subject.case.predict is None and inputs[0] != inputs[1]:
        context.say("not judged: the loss gives the model another input every time")
        return
    if not _finite(context, first, second):
        return
    difference = relative_difference(first, second)
    active = [name for name, module in model.named_modules() if module.training]
    context.measure(difference=difference, still_in_train_mode=active)
    if not difference <= limit:
        hint = f"; in train mode are {listed(active)}" if active else ""
        context.problem(
            f"two predictions of one batch in eval mode differ by {difference:.2g} of the largest "
            f"output (limit {limit:g}){hint}",
            place=_place(context, model, [batch, batch], _same_within(limit)),
            next_step="pass training=self.training to functional.dropout, keep modules where "
            "eval() finds them, and draw no noise at inference",
        )


@check(
    "L027",
    "samples-are-independent",
    title="A sample's prediction doesn't depend on its batch",
    what="Predicts seven samples together, and the first and the last three by themselves, in eval "
    "mode.",
    why="Statistics over the batch, a wrong dim of softmax or a view that mixes samples leak other "
    "samples into each one: good in validation, useless on a single input.",
    sources=("B1", "B7"),
    needs=("model", "batch", "prediction"),
    thresholds=(
        Threshold(
            name="max_difference",
            value=1e-3,
            unit="of the largest output",
            why="sums over another batch size round differently; a leak shows at 1e-1",
        ),
    ),
)
def samples_are_independent(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_difference")
    model = nudged_model(subject).eval()
    batch = subject.batch("validation", SIZE)
    together = predicted(context, model, batch)
    if not _finite(context, together):
        return
    worst, apart = 0.0, slice(0, PART)
    # Both ends: what came before a sample may leak into it, or what comes behind.
    for rows in (slice(0, PART), slice(SIZE - PART, SIZE)):
        try:
            alone = predicted(context, model, _rows(batch, rows))
        except Exception as error:  # noqa: BLE001  # a batch may hold what can't be cut by samples
            context.measure(raises=type(error).__name__)
            context.say(f"not compared: {PART} samples alone give {type(error).__name__}: {error}")
            return
        rows_each = together.shape[:1] == (SIZE,) and alone.shape[:1] == (PART,)
        if not rows_each or together.shape[1:] != alone.shape[1:]:
            context.say(
                f"not compared: predictions {list(together.shape)} of {SIZE} samples and "
                f"{list(alone.shape)} of {PART} have no row for each sample"
            )
            return
        change = relative_difference(together[rows], alone)
        worst, apart = (change, rows) if change > worst else (worst, apart)
    context.measure(difference=worst)
    if not worst <= limit:
        context.problem(
            f"a sample's prediction changes by {worst:.2g} of the largest output with the "
            f"samples beside it (limit {limit:g})",
            place=_place(
                context, model, [batch, _rows(batch, apart)], _same_rows_within(limit, apart)
            ),
            next_step="look for reductions over dimension 0, a recurrent or attention layer "
            "without batch_first, batch norm without running statistics, and views that mix "
            "dimensions",
        )


@check(
    "G007",
    "prediction-fits-truth",
    title="Prediction and truth have one shape where both are numbers",
    what="Compares the shape of a prediction with that of the truth. Labels of classes, which are "
    "whole numbers, are left alone.",
    why="[B, 1] beside [B] broadcasts to [B, B]: every prediction is compared with every label, "
    "and the loss falls to the spread of the labels.",
    sources=("B2", "B4"),
    signs=("shapes-differ",),
    needs=("model", "batch", "predict", "truth"),
    thresholds=(
        Threshold(name="max_differing", value=0, unit="dimensions", why="broadcasting hides one"),
    ),
)
def prediction_fits_truth(context: Context) -> None:
    subject, truth_of = context.subject, context.subject.case.truth
    if truth_of is None:
        return
    batch = subject.batch("validation", SIZE)
    prediction, truth = predicted(context, subject.model().eval(), batch), truth_of(batch)
    got, wanted = list(prediction.shape), list(truth.shape)
    context.measure(prediction=got, truth=wanted)
    numbers = truth.is_floating_point() or truth.is_complex()
    differing = sum(a != b for a, b in zip_longest(reversed(got), reversed(wanted)))
    if not numbers or differing <= context.limit("max_differing"):
        return
    if broadcast_shape(got, wanted) == got:
        context.say(f"not judged: a truth {wanted} stands beside several outputs {got}")
        return
    context.problem(
        f"the prediction is {got} and the truth {wanted} for {SIZE} samples (limit 0 dimensions "
        "that differ)" + (": they broadcast" if broadcast_shape(got, wanted) is not None else ""),
        sign="shapes-differ",
        place=where(truth_of),
        next_step="give both one shape, with squeeze(-1) or unsqueeze(-1) on one of them",
    )


def broadcast_shape(a: list[int], b: list[int]) -> list[int] | None:
    """The shape of both together; None where there is none."""
    try:
        return list(torch.broadcast_shapes(a, b))  # type: ignore[no-untyped-call]
    except RuntimeError:
        return None


def predicted(context: Context, model: nn.Module, batch: Batch) -> Tensor:
    """The prediction, without gradient.

    Raises:
        CaseError: it is no tensor.
    """
    predict = context.subject.predict
    with torch.no_grad():
        prediction: Any = predict(model, batch)
    if not isinstance(prediction, Tensor):
        raise CaseError(
            f"Case.predict ({where(predict)}) gave {type(prediction).__name__}: expected a tensor"
        )
    return prediction


def _place(context: Context, model: nn.Module, batches: list[Batch], agree: Agree) -> str:
    """The innermost module that parts predictions of these batches, and what predicts."""
    runs = [partial(predicted, context, model, batch) for batch in batches]
    inner = place_of_parting(model, context.subject, list(runs), agree)
    told = place_of_prediction(model, context.subject)
    return f"{inner}, prediction at {told.partition(', model at ')[0]}" if inner else told


def _same_within(limit: float) -> Agree:
    return lambda first, second: relative_difference(first, second) <= limit


def _same_rows_within(limit: float, rows: slice) -> Agree:
    """Whether some samples of the first are the second, whichever axis counts them."""

    def agree(first: Tensor, second: Tensor) -> bool | None:
        if first.shape == second.shape:
            return relative_difference(first, second) <= limit
        if first.ndim != second.ndim:
            return None
        pairs = zip(first.shape, second.shape, strict=True)
        axes = [axis for axis, (a, b) in enumerate(pairs) if a != b]
        each = first.shape[axes[0]] // SIZE  # entries a sample, where axes were put together
        if len(axes) != 1 or second.shape[axes[0]] != each * PART:
            return None
        part = first.narrow(axes[0], rows.start * each, PART * each)
        return relative_difference(part, second) <= limit

    return agree


def _finite(context: Context, *predictions: Tensor) -> bool:
    """Whether predictions can be compared; says why not."""
    finite = all(bool(prediction.isfinite().all()) for prediction in predictions)
    if not finite:
        spoilt = bool(context.result_of("D001").findings)
        reason = "the batch holds NaN, see D001" if spoilt else "the prediction isn't finite"
        context.say(f"not judged: {reason}")
    return finite


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest entry; infinite for other shapes."""
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    a, b = (t.to(torch.complex128 if t.is_complex() else torch.float64) for t in (a, b))
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-30))


def _rows(batch: Batch, rows: slice) -> Batch:
    """Some samples of a batch, whatever it nests; what has no row for each stays."""

    def cut(leaf: Any) -> Any:
        whole = isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == SIZE
        return leaf[rows] if whole else leaf

    return map_leaves(batch, cut)
