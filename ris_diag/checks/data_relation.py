"""Labels belong to the inputs that they come with. B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.dependence import deviations, features, gaussian, label_features, linear
from ris_diag.samples import (
    LOADER,
    Samples,
    lent_of,
    not_judged,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
    sources,
    splits_apart,
)

FEWEST, FEWEST_OTHERS = 32, 16
SHIFTS = 4
MANY, SMALL = 128, 7  # batches, samples in each
MOST_IN_SMALL = 2**17  # numbers in all of them
ALIKE = 1.6  # spread of means over small batches, over that of independent samples


@check(
    "D006",
    "labels-belong-to-inputs",
    title="Labels depend on the inputs that they come with",
    what="Measures the dependence of labels on inputs with a linear and a Gaussian kernel (HSIC) "
    "in standard deviations over all permutations of the labels. Where there is none, it says so "
    "only on clear evidence: the other split has it at the same number of samples; the labels in "
    "another order (shifted, reversed) have it; the means of many small batches have it, so that "
    "labels were mixed within their batch. Labels of a whole data set that were permuted once, in "
    "all splits, can't be told from labels that are hard or random on purpose, and are not seen "
    "here; O004 sees that nothing of them carries over to fresh samples.",
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
    found = sources(subject)
    found = found if splits_apart(subject) else [found[0], *found[2:]]
    if found[0].count < FEWEST:
        return not_judged(context, f"{found[0].count} samples")
    for label in found[0].of(known.labels):
        tried = {s.split: _dependence(s, known.inputs, label) for s in found if label in s.rows}
        measured = {split: value for split, value in tried.items() if value is not None}
        context.measure(**{label: measured})
        for here in found:
            if here.count < FEWEST or measured.get(here.split, chance + 1) > chance:
                continue
            text = _elsewhere(context, here, found, label, clear)
            if text:
                context.problem(
                    f"{here.split} {label} don't depend on the inputs of their samples "
                    f"({measured[here.split]:.1f} standard deviations above chance for "
                    f"{here.count} samples, limit {chance:g}), but {text} (limit {clear:g})",
                    sign="labels-independent",
                    place=place_of_samples(subject, here.split),
                    next_step="shuffle inputs and labels by one index; look for two lists that "
                    "are sorted or shifted apart",
                )
    return None


def _elsewhere(
    context: Context, here: Samples, found: list[Samples], label: str, clear: float
) -> str:
    """Where the dependence is that is missing here, in words; "" if nowhere."""
    inputs = roles(context.subject).inputs
    order, best = _best_order(here, inputs, label)
    if best >= clear:
        return f"they go with {order}, by {best:.0f}"
    for other in found:
        # What a loader serves is many batches, which may differ by more than their samples do.
        if other is not here and other.split != LOADER and label in other.rows:
            value = _dependence(other, inputs, label, here.count)
            if value is not None and value >= clear:
                return f"in as many {other.split} samples they do, by {value:.0f}"
    if here.split == "train" and _mixed(context, inputs, label, clear):
        return f"the means of batches of {SMALL} do: labels are mixed within their batch"
    return ""


def _columns(
    found: Samples, inputs: tuple[str, ...], label: str, count: int | None = None
) -> tuple[Tensor, Tensor] | None:
    """Inputs and labels as standardised columns; None where too little varies."""
    if not found.of(inputs):  # none has one row a sample
        return None
    x = features({name: t[:count] for name, t in found.of(inputs).items()})
    y = label_features({label: found.rows[label][:count]})
    if not x.shape[1] or not y.shape[1]:
        return None
    most = int(torch.unique(y, dim=0, return_counts=True)[1].max())
    return None if len(y) - most < FEWEST_OTHERS else (x, y)


def _dependence(
    found: Samples, inputs: tuple[str, ...], label: str, count: int | None = None
) -> float | None:
    """Standard deviations above chance, the larger of a linear and a Gaussian kernel."""
    columns = _columns(found, inputs, label, count)
    if columns is None:
        return None
    x, y = columns
    return max(deviations(kernel, linear(y)) for kernel in (linear(x), gaussian(x)))


def _best_order(found: Samples, inputs: tuple[str, ...], label: str) -> tuple[str, float]:
    """The order of labels on which inputs depend most, and by how much."""
    columns = _columns(found, inputs, label)
    if columns is None:
        return "", 0.0
    kernels, target = [linear(columns[0]), gaussian(columns[0])], linear(columns[1])
    rows = torch.arange(found.count)
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
    return best, tried[best]


def _small_batches(subject: Subject) -> list[dict[str, Tensor]]:
    return [
        rows_of_batch(subject, subject.batch("train", SMALL, offset=1 + k)) for k in range(MANY)
    ]


def _mixed(context: Context, inputs: tuple[str, ...], label: str, clear: float) -> bool:
    """Whether the means of small batches depend, where samples within them don't.

    Mixing the labels of a batch leaves their mean in its place.
    """
    subject, chance = context.subject, context.limit("max_chance")
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
