"""The gradient that backward() leaves is that of the loss. B1, B2."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import (
    LITMUS_BATCH,
    LITMUS_EPOCHS,
    LITMUS_STEPS,
    nudged_model,
)
from ris_diag.operations import Operations
from ris_diag.plan import Progress
from ris_diag.watched import place_of_model


@check(
    "L043",
    "gradient-is-of-the-loss",
    title="The gradient is that of the loss",
    what="Walks a small way along the gradient that backward() leaves, forth and back, in eval "
    "mode, and compares the change of the loss with what the gradient promises. Where an operation "
    "leaves the graph on purpose (a stopped gradient, a straight-through estimate) nothing is "
    "compared.",
    why="A hook on a tensor, a backward() of one's own or a loss that is altered on the way trains "
    "something else than what is shown.",
    sources=("B1", "B2"),
    signs=("gradient-not-of-loss", "gradient-reversed"),
    needs=("model", "batch", "loss"),
    thresholds=(
        Threshold(
            name="max_off",
            value=0.5,
            unit="of the promised change",
            why="float32 and the bend of the loss take some percent; a foreign gradient all of it",
        ),
    ),
)
def gradient_is_of_the_loss(context: Context) -> None:
    subject = context.subject
    model = nudged_model(subject).eval()
    batch = subject.batch("train", LITMUS_BATCH)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = None
    cuts = Operations()

    def loss() -> Tensor:
        with subject.seeded("gradient"):
            return subject.loss(model, batch, PROGRESS).total

    with cuts:
        total = loss()
    leaving = [cut.name for cut in cuts.cuts if not cut.name.startswith(("item", "tolist"))]
    if leaving or not total.requires_grad:
        context.say(f"not judged: {', '.join(dict.fromkeys(leaving)) or 'no gradient at all'}")
        return
    torch.autograd.backward(total)
    moving = [p for p in parameters if p.grad is not None and not p.grad.is_sparse]
    squared = sum(float(p.grad.abs().double().square().sum()) for p in moving if p.grad is not None)
    if not 0 < squared < math.inf or not math.isfinite(float(total.detach())):
        context.say("not judged: the gradient is zero or not finite")
        return
    directions = [p.grad.detach().clone() for p in moving if p.grad is not None]
    ratios = [_kept(loss, moving, directions, squared, share) for share in (1e-2, 1e-3)]
    context.measure(ratios=ratios)
    best = min(ratios, key=lambda ratio: abs(ratio - 1))
    if not math.isfinite(best) or abs(best - 1) <= context.limit("max_off"):
        return
    reversed_ = all(ratio < -context.limit("max_off") for ratio in ratios)
    if not reversed_ and not all(abs(ratio) < NOTHING for ratio in ratios):
        context.say(f"not judged: the loss bends too much ({ratios[0]:.2f}, {ratios[1]:.2f})")
        return
    context.problem(
        f"along the gradient the loss changes by {best:.2f} of what the gradient promises "
        f"(limit 1 +- {context.limit('max_off'):g})",
        sign="gradient-reversed" if reversed_ else "gradient-not-of-loss",
        place=place_of_model(model, subject),
        next_step="look for register_hook(), for an autograd.Function whose backward() is wrong, "
        "and for what else writes into .grad",
    )


NOTHING = 0.1  # of the promised change


PROGRESS = Progress(epoch=LITMUS_STEPS, epochs=LITMUS_EPOCHS)


def _kept(
    loss: Callable[[], Tensor],
    moving: Sequence[Tensor],
    directions: Sequence[Tensor],
    squared: float,
    share: float,
) -> float:
    """Measured over promised change of the loss, for a step that changes it by about `share`."""

    def shifted(by: float) -> float:
        with torch.no_grad():
            for parameter, direction in zip(moving, directions, strict=True):
                parameter.add_(direction, alpha=by)
        value = float(loss().detach().double())
        with torch.no_grad():
            for parameter, direction in zip(moving, directions, strict=True):
                parameter.sub_(direction, alpha=by)
        return value

    size = share * max(abs(float(loss().detach())), 1e-6) / squared
    return (shifted(size) - shifted(-size)) / (2 * size * squared)
