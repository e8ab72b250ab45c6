"""The gradient that backward() leaves is that of the loss. B1, B2."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.functions import kept
from ris_diag.measure import (
    LITMUS_BATCH,
    LITMUS_EPOCHS,
    LITMUS_STEPS,
    nudged_model,
)
from ris_diag.operations import Operations
from ris_diag.places import where
from ris_diag.plan import Progress
from ris_diag.watched import derivatives_of, functions_of, place_of_model

AGREE = 0.1  # two sizes of a step
# What reads numbers for the log, or takes a shape alone.
VALUELESS = ("item", "tolist", "ones_like", "zeros_like", "empty_like", "full_like")


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
    leaving = [cut.name for cut in cuts.cuts if not cut.name.startswith(VALUELESS)]
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


@check(
    "L048",
    "backward-is-derivative",
    title="The backward of an own autograd function is the derivative of its forward",
    what="Calls every autograd function of the user's own that the first steps use once more, a "
    "little way along the gradient that its backward gives, forth and back, and compares the "
    "change with what backward promises. A forward that hands on its input (a reversed or scaled "
    "gradient) or that rounds (a straight-through estimate) means another backward: it isn't "
    "judged.",
    why="A sign or a factor that is missing in a backward written by hand trains what is in front "
    "of it in a wrong direction, while what is behind learns.",
    sources=("B2",),
    signs=("backward-not-derivative",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_off",
            value=0.2,
            unit="of the promised change",
            why="rounding of float32 and the bend of a function take some percent",
        ),
    ),
)
def backward_is_the_derivative(context: Context) -> None:
    off = {}
    for call in functions_of(context.subject):
        with context.subject.seeded("function"):
            ratios = kept(call)
        context.measure(**{call.kind.__name__: ratios})
        if ratios is None:
            context.say(f"{call.kind.__name__} not judged: it rounds, or hands on its input")
        elif abs(ratios[0] - ratios[1]) > AGREE * max(1.0, abs(ratios[1])):
            context.say(f"{call.kind.__name__} not judged: it bends too much {ratios}")
        elif abs(ratios[1] - 1) > context.limit("max_off"):
            off[call.kind] = ratios[1]
    for kind, ratio in off.items():
        context.problem(
            f"{kind.__name__}: along its gradient forward changes by {ratio:.2f} of what "
            f"backward() promises (limit 1 +- {context.limit('max_off'):g})",
            sign="backward-not-derivative",
            place=where(kind.backward),
            next_step="compare the function with torch.autograd.gradcheck in float64",
        )


@check(
    "L049",
    "derivatives-keep-their-graph",
    title="A derivative in the loss has a graph of its own",
    what="Follows what torch.autograd.grad() gives for an input (a residual of a differential "
    "equation, a gradient penalty, a force). Where it was taken without create_graph and is put "
    "together with the network's output, the loss treats it as a constant. Gradients with respect "
    "to parameters, and those that change an input, are meant so.",
    why="The loss has the right value, and the part of its gradient that goes through the "
    "derivative is missing.",
    sources=("B2",),
    signs=("derivative-is-constant",),
    needs=("run",),
    thresholds=(
        Threshold(name="max_constant", value=0, unit="derivatives", why="each is to be trained"),
    ),
)
def derivatives_keep_their_graph(context: Context) -> None:
    constants = derivatives_of(context.subject).constants
    context.measure(constants=constants)
    if len(constants) > context.limit("max_constant"):
        shown = "; ".join(f"taken at {a}, used at {b}" for a, b in constants.items())
        context.problem(
            f"{len(constants)} derivatives enter the loss as constants ({shown}; limit "
            f"{context.limit('max_constant'):g})",
            sign="derivative-is-constant",
            place=next(iter(constants)),
            next_step="pass create_graph=True to torch.autograd.grad()",
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
