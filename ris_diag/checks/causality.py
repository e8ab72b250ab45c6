"""A prediction of the next symbol doesn't see it. B1, B4."""

from functools import partial

import torch
from torch import Tensor, nn

from ris_diag.check import Threshold, check
from ris_diag.checks.data_sequences import (
    share_in_step,
    tokens_of_the_batch,
    tokens_of_the_loss,
)
from ris_diag.checks.inference import relative_difference
from ris_diag.context import Context
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.innermost import Agree, place_of_parting
from ris_diag.measure import LITMUS_EPOCHS, nudged_model
from ris_diag.plan import Progress
from ris_diag.samples import not_judged, roles
from ris_diag.watched import place_of_model

SIZE = 8


PROGRESS = Progress(epoch=1, epochs=LITMUS_EPOCHS)


SAME = 1e-4  # of the largest entry
SHIFTED = 0.98  # share of the labels that are the next token


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
            place=place_of_parting(
                model,
                subject,
                [partial(output, t) for t in (tokens, changed)],
                _early(tokens, half),
            )
            or place_of_model(model, subject),
            next_step="apply the causal mask (is_causal=True), or read the sequence in one "
            "direction",
        )
    return None


def _early(tokens: Tensor, half: int) -> Agree:
    """Whether the first steps are the same; the second axis counts them, else the first."""

    def agree(first: Tensor, second: Tensor) -> bool | None:
        if first.shape != second.shape:
            return None
        axes = [a for a in (1, 0, 2) if a < first.ndim and first.shape[a] == tokens.shape[1]]
        if not axes:
            return None
        early, other = (t.narrow(axes[0], 0, half) for t in (first, second))
        return relative_difference(early, other) <= SAME

    return agree


def _whole_sequence(tensor: Tensor) -> bool:
    numbers = tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool
    return tensor.ndim == 2 and not numbers and tensor.shape[1] >= 4
