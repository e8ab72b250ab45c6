"""Labels belong to the inputs that they come with. B4."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.dependence import deviations, features, gaussian, label_features, linear
from ris_diag.samples import (
    Samples,
    lent_of,
    not_judged,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
    splits_apart,
)

FEWEST, FEWEST_OTHERS = 32, 16
SHIFTS = 4
MANY, SMALL = 128, 7  # batches, samples in each
MOST_IN_SMALL = 2**17  # numbers in all of them
ALIKE = 1.6  # spread of means over small batches, over that of independent samples


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """Standard deviations above chance, the larger of a linear and a Gaussian kernel.

    Attributes:
        best, order: the same for the labels in another order, and its name.
    """

    value: float
    best: float = 0.0
    order: str = ""


@check(
    "D006",
    "labels-belong-to-inputs",
    title="Labels depend on the inputs that they come with",
    what="Measures the dependence of labels on inputs with a linear and a Gaussian kernel (HSIC) "
    "in standard deviations over all permutations of the labels. Where there is none, it says so "
    "only on clear evidence: the other split has it at the same number of samples; the labels in "
    "another order (shifted, reversed) have it; the means of many small batches have it, so that "
    "labels were mixed within their batch. Labels of a whole data set that were permuted once, in "
    "all splits, can't be told from labels that are hard or random on purpose, and are not seen.",
    why="Labels that parted from their inputs are memorised without a murmur: the training loss "
    "falls, and only validation stays where it was.",
    sources=("B4",),
    signs=("labels-independent",),
    needs=("model", "batch"),
    thresholds=(
        Threshold(
            name="max_chance",
            value=3.0,
            unit="standard deviations over permutations",
            why="dependence that chance alone gives in one of a thousand samples is none",
        ),
        Threshold(
            name="min_elsewhere",
            value=20.0,
            unit="standard deviations over permutations",
            why="one feature and one label exceed it by chance in one of 10 million, and what one "
            "split shows by so much the other doesn't hide",
        ),
    ),
)
def labels_belong_to_inputs(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    if known.unknown or known.unlabelled:
        return not_judged(context, known.unknown or known.unlabelled)
    chance, clear = context.limit("max_chance"), context.limit("min_elsewhere")
    train, validation = samples(subject, "train"), samples(subject, "validation")
    apart = splits_apart(subject)
    count = min(train.count, validation.count) if apart else train.count
    if count < FEWEST:
        return not_judged(context, f"{count} samples")
    for label in train.of(known.labels):
        tried = {
            found.split: _dependence(found, known.inputs, label, count, chance)
            for found in ((train, validation) if apart else (train,))
            if label in found.rows
        }
        found = {split: value for split, value in tried.items() if value is not None}
        context.measure(**{label: {split: d.value for split, d in found.items()}})
        for split, here in found.items():
            other = max((d.value for s, d in found.items() if s != split), default=0.0)
            text = ""
            if here.value > chance:
                continue
            if here.best >= clear:
                text = f"they go with {here.order}, by {here.best:.0f}"
            elif other >= clear:
                text = f"in the other split they do, by {other:.0f}"
            elif split == "train" and _mixed(subject, known.inputs, label, clear, chance):
                text = f"the means of batches of {SMALL} do: labels are mixed within their batch"
            if text:
                context.problem(
                    f"{split} {label} don't depend on the inputs of their samples "
                    f"({here.value:.1f} standard deviations above chance for {count} samples, "
                    f"limit {chance:g}), but {text} (limit {clear:g})",
                    sign="labels-independent",
                    place=place_of_samples(subject, split),
                    next_step="shuffle inputs and labels by one index; look for two lists that "
                    "are sorted or shifted apart",
                )
    return None


def _dependence(
    found: Samples, inputs: tuple[str, ...], label: str, count: int, chance: float
) -> Dependence | None:
    """None where there is too little that varies."""
    x = features({name: t[:count] for name, t in found.of(inputs).items()})
    y = label_features({label: found.rows[label][:count]})
    if not x.shape[1] or not y.shape[1]:
        return None
    most = int(torch.unique(y, dim=0, return_counts=True)[1].max())
    if count - most < FEWEST_OTHERS:
        return None
    kernels, target = [linear(x), gaussian(x)], linear(y)
    value = max(deviations(kernel, target) for kernel in kernels)
    if value > chance:
        return Dependence(value=value)
    rows = torch.arange(count)
    orders = {"the label at the other end of the batch": rows.flip(0)}
    for shift in range(1, SHIFTS + 1):
        rows_off = f"{shift} row{'s' if shift > 1 else ''}"
        orders[f"the label {rows_off} below"] = rows.roll(-shift)
        orders[f"the label {rows_off} above"] = rows.roll(shift)
    tried = {
        name: max(deviations(kernel, target, order) for kernel in kernels)
        for name, order in orders.items()
    }
    best = max(tried, key=lambda name: tried[name])
    return Dependence(value=value, best=tried[best], order=best)


def _small_batches(subject: Subject) -> list[dict[str, Tensor]]:
    return [
        rows_of_batch(subject, subject.batch("train", SMALL, offset=1 + k)) for k in range(MANY)
    ]


def _mixed(
    subject: Subject, inputs: tuple[str, ...], label: str, clear: float, chance: float
) -> bool:
    """Whether the means of small batches depend, where samples within them don't.

    Mixing the labels of a batch leaves their mean in its place.
    """
    first = samples(subject, "train")
    row = sum(t[:1].numel() for t in first.rows.values())
    if lent_of(subject) is not None or row * MANY * SMALL > MOST_IN_SMALL:
        return False
    batches = subject.once("small batches", _small_batches)
    wanted = {*first.of(inputs), label}
    shapes = {tuple(b[n].shape if n in b else () for n in sorted(wanted)) for b in batches}
    if len(shapes) > 1 or any(shape[:1] != (SMALL,) for shape in next(iter(shapes))):
        return False
    together = {name: torch.cat([b[name] for b in batches]) for name in wanted}
    x = features({name: together[name] for name in first.of(inputs)})
    y = label_features({label: together[label]})
    if not x.shape[1] or not y.shape[1]:
        return False
    parts = [v.reshape(MANY, SMALL, -1) for v in (x, y)]
    for part in parts:  # samples of a batch that are alike may depend through their batch
        spread = part.mean(1).var(0).mean() * SMALL / part.flatten(0, 1).var(0).mean()
        if float(spread) > ALIKE:
            return False
    # Of samples fewer would do than of means.
    within = [(p - p.mean(1, keepdim=True))[: MANY // 2].flatten(0, 1) for p in parts]
    between = [part.mean(1) for part in parts]
    strong, weak = (
        max(deviations(kernel(a), linear(b)) for kernel in (linear, gaussian))
        for a, b in (between, within)
    )
    return strong >= clear and weak <= chance
