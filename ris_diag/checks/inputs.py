"""The prediction depends on all that enters the model. B1."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.check import Threshold, check
from ris_diag.checks.inference import SIZE, predicted
from ris_diag.context import Context
from ris_diag.graph import tensors_in
from ris_diag.measure import listed, nudged_model
from ris_diag.watched import (
    place_of_model,
)

SOURCES = ("B1",)
MOST_TRIED = 64  # columns, two forward passes each


@check(
    "L032",
    "input-is-used",
    title="The prediction depends on the input",
    what="Predicts seven different samples with slightly changed weights, in eval mode: their "
    "predictions must differ. With the samples of another batch they must be others.",
    why="A forward that overwrites its input, or reads another variable, learns the mean of the "
    "labels.",
    sources=SOURCES,
    signs=("input-ignored",),
    needs=("model", "batch", "prediction"),
    thresholds=(
        Threshold(
            name="min_difference",
            value=1e-6,
            unit="of the largest output",
            why="float32 rounds at 1e-7, sums above it; samples that differ give far more",
        ),
        Threshold(
            name="max_unread",
            value=0.25,
            unit="share of the features of a table that have no influence",
            why="a column of numbers or of weights may ride along; a quarter is a part of it",
        ),
    ),
)
def input_is_used(context: Context) -> None:
    subject, limit = context.subject, context.limit("min_difference")
    model = nudged_model(subject).eval()
    one, other = (subject.batch("validation", SIZE, offset=k) for k in range(2))
    first, second = (_numbers(context, model, batch) for batch in (one, other))
    if first.shape != second.shape or first.shape[:1] != (SIZE,):
        context.say(f"not judged: predictions {list(first.shape)} have no row for each sample")
        return
    values = torch.cat([first, second]).detach().reshape(2 * SIZE, -1)
    values = values.to(torch.complex128 if values.is_complex() else torch.float64)
    spread = float((values - values[:1]).abs().max() / values.abs().max().clamp(min=1e-30))
    context.measure(spread=spread)
    if not spread > limit:
        context.problem(
            f"the predictions of {2 * SIZE} samples differ by {spread:.2g} of the largest output "
            f"(limit {limit:g})",
            place=place_of_model(model, subject),
            next_step="look in forward() for an input that is overwritten, multiplied by zero, or "
            "never used, and for a softmax over one output",
        )
        return
    unread = _unread(context, model, one, context.limit("max_unread"))
    context.measure(unread=unread)
    if unread:
        context.problem(
            f"{len(unread)} of the tensors that enter the model have no influence on the "
            f"prediction ({listed(unread)}; limit 0)",
            place=place_of_model(model, subject),
            next_step="use each of them in forward(); look for one that is written twice",
        )


def _numbers(context: Context, model: nn.Module, batch: Any) -> Tensor:
    """The prediction; where it is a choice, as of a class, the network's own numbers [B, ...].

    A head that wasn't trained may choose one class for all samples.
    """
    outputs: list[Tensor] = []
    hook = model.register_forward_hook(lambda m, args, output: outputs.extend(tensors_in(output)))
    try:
        prediction = predicted(context, model, batch)
        # A softmax over one output is 1 everywhere, too, and has a gradient.
        with context.subject.seeded("numbers"):
            smooth = context.subject.predict(model, batch).requires_grad
    finally:
        hook.remove()
    if smooth or prediction.is_complex() or bool((prediction != prediction.round()).any()):
        return prediction
    own = [o.flatten(1) for o in outputs if o.is_floating_point() and o.shape[:1] == (SIZE,)]
    return torch.cat(own, 1) if own else prediction


def _answers(
    context: Context, model: nn.Module, batch: Any, change: Callable[[str, Tensor], Tensor]
) -> list[Tensor]:
    """What the model gives, with changed real tensors, a row for each sample, in its arguments."""

    def changed(module: nn.Module, args: Any, kwargs: Any) -> Any:
        def one(value: Any, name: str) -> Any:
            rows = isinstance(value, Tensor) and value.ndim and len(value) == SIZE
            real = rows and value.is_floating_point() and value.numel() >= 2 * SIZE
            return change(name, value) if real else value

        given = tuple(one(value, f"argument {k}") for k, value in enumerate(args, 1))
        return given, {name: one(value, name) for name, value in kwargs.items()}

    outputs: list[Tensor] = []
    hooks = (
        model.register_forward_pre_hook(changed, with_kwargs=True),
        model.register_forward_hook(lambda m, args, output: outputs.extend(tensors_in(output))),
    )
    try:
        with context.subject.seeded("answers"):
            context.subject.predict(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _matters(context: Context, model: nn.Module, batch: Any, name: str, columns: Any) -> bool:
    """Whether other values of an argument, of a table in some columns, change the output.

    What is compared, indexed or masked with has no gradient, and an influence all the same.
    """

    def moved(own: str, value: Tensor) -> Tensor:
        if own != name:
            return value
        other = value.detach().clone()
        other[:, columns] = value.detach().roll(1, 0)[:, columns]
        varied.append(not torch.equal(other, value))
        return other

    varied: list[bool] = []
    first = _answers(context, model, batch, lambda own, value: value)
    second = _answers(context, model, batch, moved)
    same = len(first) == len(second) and all(map(torch.equal, first, second))
    return not same or not any(varied)


def _still_unread(
    context: Context, model: nn.Module, batch: Any, name: str, columns: list[int]
) -> list[int]:
    """Those columns of a table whose values don't matter either; none of many if some do."""
    if not _matters(context, model, batch, name, columns):
        return columns
    few = columns if len(columns) <= MOST_TRIED else []
    return [k for k in few if not _matters(context, model, batch, name, [k])]


def _unread(context: Context, model: nn.Module, batch: Any, most: float) -> list[str]:
    """The real tensors among the model's arguments that have no influence on the output.

    Of a table [B, F] with the features that are not read, where they are more than a share `most`.
    """
    entered: dict[str, Tensor] = {}

    def follow(name: str, value: Tensor) -> Tensor:
        entered[name] = value.detach().clone().requires_grad_()
        return entered[name]

    outputs = _answers(context, model, batch, follow)
    following = [output for output in outputs if output.requires_grad]
    if not following or not entered:
        return []
    total = torch.stack([(o * torch.randn_like(o)).abs().sum() for o in following]).sum()
    gradients = torch.autograd.grad(total, list(entered.values()), allow_unused=True)
    found = []
    for (name, value), gradient in zip(entered.items(), gradients, strict=True):
        shape = list(value.shape)
        if gradient is None or not gradient.any():
            if len(entered) > 1 and not _matters(context, model, batch, name, slice(None)):
                found.append(f"{name} {shape}")
        elif value.ndim == 2:
            unread = (~gradient.any(0)).nonzero().flatten().tolist()
            if len(unread) > most * shape[1]:
                unread = _still_unread(context, model, batch, name, unread)
            if len(unread) > most * shape[1]:
                found.append(f"features {listed(list(map(str, unread)))} of {name} {shape}")
    return found
