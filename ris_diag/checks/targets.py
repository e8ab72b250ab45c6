"""Whether the loss sees the labels, and leads to them; whether a sequence sees its future. B2."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ris_diag.case import Batch, Progress
from ris_diag.check import Threshold, check
from ris_diag.checks.data_sequences import (
    share_in_step,
    tokens_of_the_batch,
    tokens_of_the_loss,
)
from ris_diag.context import Context, Subject
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.measure import LITMUS_EPOCHS, litmus, nudged_model
from ris_diag.samples import named_tensors, not_judged, roles
from ris_diag.watched import place_of_loss, place_of_model

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
    "L040",
    "future-is-hidden",
    title="A prediction of the next symbol doesn't see it",
    what="Where the labels are the input tokens, shifted ahead, changes the second half of the "
    "tokens that enter the model in eval mode: the outputs of the first half must stay.",
    why="Without a causal mask the answer stands in the input: the loss is too good to be true, "
    "and the text that is generated is noise.",
    sources=("B1", "B4"),
    signs=("sees-future",),
    needs=("model", "batch", "loss"),
    thresholds=(
        Threshold(
            name="max_change",
            value=1e-4,
            unit="of the largest output",
            why="float32 rounds at 1e-6; a look ahead shows at 1e-1",
        ),
    ),
)
def future_is_hidden(context: Context) -> None:
    subject = context.subject
    known = roles(subject)
    pairs = [] if known.unknown else tokens_of_the_loss(subject) or tokens_of_the_batch(subject)
    ahead = [(t, y) for t, y in pairs if share_in_step(t, y, 1) >= SHIFTED]
    if not ahead:
        return not_judged(context, "the labels are no tokens of the input, one step ahead")
    model = nudged_model(subject).eval()
    calls: list[tuple[nn.Module, tuple[object, ...], dict[str, object]]] = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append((module, args, kwargs)), with_kwargs=True
    )
    try:
        subject.loss(model, subject.batch("train", SIZE), PROGRESS)
    finally:
        hook.remove()
    if not calls:
        return not_judged(context, "the loss doesn't call the model itself")
    _, args, kwargs = calls[0]
    tokens = next((t for t in tensors_in((args, kwargs)) if _whole_sequence(t)), None)
    if tokens is None:
        return not_judged(context, "no sequence of tokens enters the model")
    half = tokens.shape[1] // 2
    changed = tokens.clone()
    changed[:, half:] = tokens[:, half:].flip(0).roll(1, 1)

    def output(sequence: Tensor) -> Tensor | None:
        given = map_leaves((args, kwargs), lambda leaf: sequence if leaf is tokens else leaf)
        with torch.no_grad():
            found = tensors_in(model(*given[0], **given[1]))
        return next((t for t in found if t.shape[:2] == tokens.shape), None)

    first, second = output(tokens), output(changed)
    if first is None or second is None or torch.equal(tokens, changed):
        return not_judged(context, "no output for every token")
    early = (first[:, :half] - second[:, :half]).abs().double().max()
    share = float(early / first.abs().double().max().clamp(min=1e-30))
    context.measure(change=share)
    if share > context.limit("max_change"):
        context.problem(
            f"the outputs of the first {half} of {tokens.shape[1]} tokens change by {share:.2g} of "
            "the largest output with the tokens behind them, which are the labels (limit "
            f"{context.limit('max_change'):g})",
            place=place_of_model(model, subject),
            next_step="apply the causal mask (is_causal=True), or read the sequence in one "
            "direction",
        )
    return None


SHIFTED = 0.98  # share of the labels that are the next token


def _whole_sequence(tensor: Tensor) -> bool:
    numbers = tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
    return tensor.ndim == 2 and not numbers and tensor.shape[1] >= 4


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
