"""The gradient of several ranks against that of one process on the same samples. B1."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.ranks import NEEDS, replicas_or_say
from ris_diag.context import Context
from ris_diag.one_process import Gradients, gradients
from ris_diag.places import where
from ris_diag.replicas import ranks_of

NOISE = 4.0  # what reordering changes is one draw of the rounding, the comparison another
HALF = 2**-7  # what rounding to 8 digits of a mantissa does in a few places, as autocast does
BLUR = 0.1  # a limit above it tells nothing apart


@check(
    "L064",
    "gradient-of-one-process",
    title="The ranks' gradient is that of one process on all of their samples",
    what="Takes the gradient at the first optimiser step of the author's loop, in eval mode and "
    "behind the exchange between the ranks, and that of the same loop in a world of one process "
    "on the ranks' batches put together, from the same weights. Says by which factor they differ, "
    "and whether sums were averaged, means averaged twice, or shares of other sizes averaged as "
    "equal ones. The limit is the larger of a bound for rounding, and four times what the order "
    "of the samples changes.",
    why="A gradient that is half of what it should be trains, slowly, and the learning rate that "
    "was found on one device is wrong on eight.",
    sources=("B1",),
    signs=(
        "summed-loss-averaged",
        "averaged-twice",
        "shares-weighted-equally",
        "gradient-not-of-one-process",
    ),
    needs=NEEDS,
    requires=("L061",),
    thresholds=(
        Threshold(
            name="max_error",
            value=16,
            unit="eps of the dtype x sqrt(values summed)",
            why="rounding errors of a sum of n values grow with sqrt(n) eps (Higham and Mary, A "
            "New Approach to Probabilistic Rounding Error Analysis, 2019); a network's layers "
            "add up a few such sums",
        ),
    ),
)
def gradient_of_one_process(context: Context) -> None:
    if not replicas_or_say(context):
        return
    if context.result_of("L061").findings:
        context.say("not judged: the ranks are no replicas of each other, see L061")
        return
    found = gradients(context.subject)
    if isinstance(found, str):
        context.say(f"not judged: {found}")
        return
    size = ranks_of(context.subject).size
    rounding = context.limit("max_error") * found.eps * found.summed**0.5
    noise = relative(found.reordered, found.global_)
    limit = max(rounding, NOISE * noise)
    error = relative(found.ranks, found.global_)
    factor = float(found.ranks @ found.global_ / found.global_.square().sum().clamp(min=1e-300))
    context.measure(error=error, limit=limit, noise=noise, factor=factor, samples=found.samples)
    if limit > BLUR:
        context.say(
            f"not judged: the gradient of one process changes by {noise:.0%} with the order of the "
            f"samples, by {rounding:.0%} in rounding"
        )
    elif error > limit:
        told = _reason(found, max(limit, HALF), size)
        if error <= HALF and not _shares_explain(found, limit):
            context.say(f"agrees within {error:.2%}: something in 16 bits is between them")
            return
        if told is None:
            context.say(
                "not judged: the loss compares the samples of a batch with each other, so that "
                "those of the ranks don't add up to that of one process"
            )
            return
        sign, reason, todo = told
        context.problem(
            f"the gradient of {size} ranks differs by {error:.2g} of its norm from that of one "
            f"process on the same {sum(found.samples)} samples (limit {limit:.1g}); it is "
            f"{factor:.3g} times as large: {reason}",
            sign=sign,
            place=where(context.subject.fit),
            next_step=todo,
        )


def relative(value: Tensor, reference: Tensor) -> float:
    """Norm of the difference over that of the reference."""
    return float((value - reference).norm() / reference.norm().clamp(min=1e-300))


def _reason(found: Gradients, limit: float, size: int) -> tuple[str, str, str] | None:
    """Sign, reason and next step; None where ranks can't add up to the loss of one process."""
    total = torch.stack(found.local).sum(0)
    if relative(size * found.ranks, found.global_) <= size * limit:
        if relative(total, found.global_) <= size * limit:
            return (
                "summed-loss-averaged",
                "the loss is a sum over the rank's batch, and the exchange divides by the ranks",
                "multiply the summed loss by the number of ranks, or take the mean over the "
                "samples of all ranks",
            )
        return (
            "averaged-twice",
            "a mean is divided by the number of ranks once more",
            "leave the division to DistributedDataParallel: it averages the gradients itself",
        )
    if relative(found.ranks, total / size) > limit:
        return (
            "gradient-not-of-one-process",
            "neither a share, a sum nor a mean of the ranks' own gradients",
            "look at what is done between backward() and step(), and at what uses the rank",
        )
    weights, rest = shares_of(found.global_, found.local)
    if rest > limit:
        return None
    wanted = ", ".join(f"{weight:.2f}" for weight in weights)
    return (
        "shares-weighted-equally",
        f"each rank's mean counts the same, of {', '.join(map(str, found.samples))} samples; by "
        f"what they hold of the mean they count {wanted}",
        "divide the rank's sum by the number of samples, or tokens, of all ranks (all_reduce) and "
        "multiply by the number of ranks; or drop the last batch",
    )


def _shares_explain(found: Gradients, limit: float) -> bool:
    """Whether the mean of the ranks is what there is, and other shares of them what should be."""
    mean = torch.stack(found.local).mean(0)
    rest = shares_of(found.global_, found.local)[1]
    return relative(found.ranks, mean) <= limit and rest <= NOISE * limit


def shares_of(whole: Tensor, parts: list[Tensor]) -> tuple[list[float], float]:
    """Weights with which vectors add up to another, and the norm of the rest, over its own."""
    matrix = torch.stack(parts)
    weights = torch.linalg.lstsq(matrix @ matrix.T, (matrix @ whole)[:, None]).solution[:, 0]
    return weights.tolist(), relative(weights @ matrix, whole)
