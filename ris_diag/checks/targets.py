"""Whether the loss sees the labels, and leads to them. B2."""

from collections.abc import Callable

import torch
from torch import Tensor

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.graph import map_leaves
from ris_diag.measure import LITMUS_EPOCHS, litmus, nudged_model
from ris_diag.plan import Progress
from ris_diag.samples import named_tensors, not_judged, roles
from ris_diag.watched import place_of_loss

SIZE = 8
PROGRESS = Progress(epoch=1, epochs=LITMUS_EPOCHS)


@check(
    "G013",
    "loss-sees-target",
    title="The loss depends on the labels",
    what="Computes the loss from one random state for a batch, for the same batch with the labels "
    "of Case.truth moved on by one sample, and with that of the first sample for all. Where the "
    "truth is no tensor of the batch there is nothing to move.",
    why="A loss of the prediction and a constant, or of the prediction and itself, has a minimum "
    "and falls to it.",
    sources=("B2",),
    signs=("target-ignored",),
    needs=("model", "batch", "loss", "truth"),
    thresholds=(
        Threshold(
            name="min_change",
            value=0.0,
            unit="of the loss",
            why="from one random state the same numbers give the same loss to the digit",
        ),
    ),
)
def loss_sees_target(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    batch = subject.batch("train", SIZE)
    named = named_tensors(batch)
    moving = [t for name, t in named.items() if name not in known.inputs and _is_truth(context, t)]
    if not moving:
        return not_judged(
            context, known.unknown or known.unlabelled or "no label that differs between samples"
        )
    chosen = {id(tensor) for tensor in moving}
    others = [
        _with_labels(batch, chosen, lambda labels: labels.roll(1, 0)),
        # What doesn't differ between samples can't tell whose label it is, but what it is.
        _with_labels(batch, chosen, lambda labels: labels[:1].expand_as(labels).clone()),
    ]
    first, *rest = (_loss_from_one_state(subject, b) for b in (batch, *others))
    change = max(abs(first - value) for value in rest)
    context.measure(loss=first, loss_of_other_labels=rest)
    if change <= context.limit("min_change"):
        context.problem(
            f"with the labels of other samples the loss is the same, {first:.6g} (limit: any "
            "change)",
            place=place_of_loss(subject),
            next_step="compare the prediction with this batch's labels, not with itself or with a "
            "constant",
        )
    return None


def _is_truth(context: Context, leaf: Tensor) -> bool:
    """Whether the truth of a batch is another one if this tensor's samples are moved on by one."""
    truth_of, batch = context.subject.case.truth, context.subject.batch("train", SIZE)
    here = next((t for t in named_tensors(batch).values() if _same(t, leaf)), None)
    if truth_of is None or here is None or leaf.ndim < 1 or len(leaf) < 2:
        return False
    if torch.equal(leaf, leaf.roll(1, 0)):
        return False
    other = _with_labels(batch, {id(here)}, lambda labels: labels.roll(1, 0))
    return not torch.equal(truth_of(batch), truth_of(other))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _with_labels(batch: Batch, chosen: set[int], change: Callable[[Tensor], Tensor]) -> Batch:
    return map_leaves(batch, lambda leaf: change(leaf) if id(leaf) in chosen else leaf)


def _loss_from_one_state(subject: Subject, batch: Batch) -> float:
    with subject.seeded("G013 loss"):
        model = nudged_model(subject).eval()
        return float(subject.loss(model, batch, PROGRESS).total.detach())


@check(
    "L042",
    "loss-leads-to-truth",
    title="As the loss falls, the prediction comes nearer to the truth",
    what="Compares prediction and truth, where both are numbers of one shape, in front of the five "
    "litmus steps and behind them, by their squared error, which owes nothing to the loss. Classes "
    "are judged by O001.",
    why="A minus in front of a term, a similarity that is minimised or a likelihood without its "
    "minus falls, too, and leads away.",
    sources=("B2",),
    signs=("moves-away",),
    needs=("model", "batch", "loss", "loop", "predict", "truth"),
    thresholds=(
        Threshold(
            name="min_fall",
            value=0.02,
            unit="share of the loss at first",
            why="a loss that hardly moves says nothing",
        ),
        Threshold(
            name="max_rise",
            value=0.1,
            unit="share of the plain error at first",
            why="another norm than the loss's own may rise a little while the loss falls",
        ),
    ),
)
def loss_leads_to_truth(context: Context) -> None:
    run = litmus(context.subject)
    if run.plain is None or run.plain.classes:
        context.say("not judged: prediction and truth are not numbers of one kind")
        return
    (first, last), (before, behind) = run.equal_beta, (run.plain.before, run.plain.behind)
    fall = (first - last) / abs(first) if first else 0.0
    rise = (behind - before) / abs(before) if before else 0.0
    context.measure(fall=fall, error_first=before, error_last=behind, rise=rise)
    if fall > context.limit("min_fall") and rise > context.limit("max_rise"):
        context.problem(
            f"the loss falls from {first:.4g} to {last:.4g} in five steps, and the error of the "
            f"prediction rises from {before:.4g} to {behind:.4g} ({rise:+.0%}, limit "
            f"{context.limit('max_rise'):+.0%})",
            place=place_of_loss(context.subject),
            next_step="look for a sign: a minus in front of the loss or of a term, a similarity "
            "without 1 -, a likelihood without its minus",
        )
