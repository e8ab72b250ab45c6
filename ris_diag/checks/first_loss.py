"""The loss of the first weights is near what guessing costs. B2."""

import math

from torch import Tensor

from ris_diag.anatomy import Called
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.watched import dissected, place_of_loss


@check(
    "G015",
    "first-loss-is-of-a-guess",
    title="The loss of the first weights is that of a guess, or better",
    what="Compares the first cross entropy of the real loop or script with that of equal shares "
    "for all classes, log(number of classes).",
    why="A network that is sure of wrong answers before it has learnt anything has weights or "
    "inputs of the wrong scale; the first epochs only unlearn them.",
    sources=("B2",),
    signs=("initial-loss-off",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_above",
            value=4.0,
            unit="nats above log(classes)",
            why="usual initialisations are within 1; at 4 the true class has 2 % of its share",
        ),
    ),
)
def first_loss_is_of_a_guess(context: Context) -> None:
    calls = [called for called in dissected(context.subject).losses if called.name in CLASSES]
    if not calls:
        context.say("not judged: no cross entropy is called")
        return
    called = calls[0]
    classes = _classes(called)
    value = called.output
    if classes < 2 or not isinstance(value, Tensor) or value.numel() != 1 or _summed(called):
        context.say("not judged: not the mean over samples of a loss over classes")
        return
    first, guess = float(value.detach()), math.log(classes)
    context.measure(first=first, guess=guess)
    if first - guess > context.limit("max_above"):
        context.problem(
            f"{called.name} begins at {first:.3g}, a guess among {classes} classes costs "
            f"{guess:.3g} (limit {context.limit('max_above'):g} above)",
            place=called.place or place_of_loss(context.subject),
            next_step="look at the scale of the inputs and of the first weights",
        )


CLASSES = ("cross_entropy", "binary_cross_entropy_with_logits")


def _classes(called: Called) -> int:
    """Number of classes that a prediction chooses from."""
    prediction = called.get("input", 0)
    if called.name != "cross_entropy":
        return 2
    return int(prediction.shape[1]) if isinstance(prediction, Tensor) and prediction.ndim > 1 else 0


def _summed(called: Called) -> bool:
    position = 6 if called.name == "cross_entropy" else 5
    weights = (called.get("weight", 2), called.args.get("pos_weight"))
    return called.get("reduction", position, "mean") != "mean" or any(
        weight is not None for weight in weights
    )
