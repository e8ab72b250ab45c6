"""Labels and inputs together: labels depend on their inputs, and don't stand in them. B4."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.dependence import deviations, features, gaussian, label_features, linear
from ris_diag.measure import listed
from ris_diag.samples import (
    Samples,
    lent_of,
    not_judged,
    numbers_of,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
    splits_apart,
)

FEWEST = 32
MOST_COLUMNS = 64
EXACT = 1 - 1e-9
SHIFTS = 8
MANY, SMALL = 96, 7  # batches, samples in each
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
            value=10.0,
            unit="standard deviations over permutations",
            why="what one split shows by so much, the other shows by 5 at the very least",
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
        found = {"train": _dependence(train, known.inputs, label, count, clear)}
        if apart and label in validation.rows:
            found["validation"] = _dependence(validation, known.inputs, label, count, clear)
        context.measure(**{label: {split: d.value for split, d in found.items()}})
        for split, here in found.items():
            other = max((d.value for s, d in found.items() if s != split), default=0.0)
            text = ""
            if here.value > chance:
                continue
            if here.best >= clear:
                text = f"{here.order} they do, by {here.best:.0f}"
            elif other >= clear:
                text = f"in the other split they do, by {other:.0f}"
            else:
                mixed = _mixed(subject, known.inputs, label, split, clear, chance)
                text = (
                    f"means of {SMALL} samples do, by {mixed:.0f}: labels are mixed within a batch"
                    if mixed
                    else ""
                )
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
    found: Samples, inputs: tuple[str, ...], label: str, count: int, clear: float
) -> Dependence:
    x = features({name: t[:count] for name, t in found.of(inputs).items()})
    y = label_features({label: found.rows[label][:count]})
    if not x.shape[1] or not y.shape[1]:
        return Dependence(value=0.0)
    kernels, target = [linear(x), gaussian(x)], linear(y)
    value = max(deviations(kernel, target) for kernel in kernels)
    if value >= clear:
        return Dependence(value=value)
    rows = torch.arange(count)
    orders = {"in reversed order": rows.flip(0)}
    for shift in range(1, SHIFTS + 1):
        orders[f"{shift} samples earlier"] = rows.roll(-shift)
        orders[f"{shift} samples later"] = rows.roll(shift)
    tried = {
        name: max(deviations(kernel, target, order) for kernel in kernels)
        for name, order in orders.items()
    }
    best = max(tried, key=lambda name: tried[name])
    return Dependence(value=value, best=tried[best], order=best)


def _mixed(
    subject: Subject, inputs: tuple[str, ...], label: str, split: str, clear: float, chance: float
) -> float:
    """How far the means of small batches depend, where samples within them don't; 0 for no.

    Mixing the labels of a batch leaves their mean in its place.
    """
    first = samples(subject, split)
    row = sum(t[:1].numel() for t in first.rows.values())
    if lent_of(subject) is not None or row * MANY * SMALL > MOST_IN_SMALL:
        return 0.0
    batches = [
        rows_of_batch(subject, subject.batch(split, SMALL, offset=1 + k)) for k in range(MANY)
    ]
    wanted = {*first.of(inputs), label}
    shapes = {tuple(b[n].shape if n in b else () for n in sorted(wanted)) for b in batches}
    if len(shapes) > 1 or any(shape[:1] != (SMALL,) for shape in next(iter(shapes))):
        return 0.0
    together = {name: torch.cat([b[name] for b in batches]) for name in wanted}
    x = features({name: together[name] for name in first.of(inputs)})
    y = label_features({label: together[label]})
    if not x.shape[1] or not y.shape[1]:
        return 0.0
    parts = [v.reshape(MANY, SMALL, -1) for v in (x, y)]
    for part in parts:  # samples of a batch that are alike may depend through their batch
        spread = part.mean(1).var(0).mean() * SMALL / part.flatten(0, 1).var(0).mean()
        if float(spread) > ALIKE:
            return 0.0
    within = [(part - part.mean(1, keepdim=True)).flatten(0, 1) for part in parts]
    between = [part.mean(1) for part in parts]
    strong, weak = (
        max(deviations(kernel(a), linear(b)) for kernel in (linear, gaussian))
        for a, b in (between, within)
    )
    return strong if strong >= clear and weak <= chance else 0.0


@check(
    "D007",
    "label-not-in-input",
    title="The label doesn't stand in the input",
    what="Compares every number of the inputs with every label of a few numbers: copies, also "
    "scaled and shifted, a one-hot class, and near copies that no other feature comes close to. "
    "Labels that are the whole input (autoencoders), sequences of tokens, and inputs of a single "
    "feature are left alone.",
    why="With the answer among the features every result is excellent, until the day on which the "
    "answer is not known beforehand.",
    sources=("B4",),
    signs=("label-in-input",),
    needs=("model", "batch"),
    thresholds=(
        Threshold(
            name="max_correlation",
            value=0.999,
            unit="between a feature and a label",
            why="measured features of a label leave more noise than that",
        ),
        Threshold(
            name="min_next",
            value=0.95,
            unit="between the next feature and the label",
            why="in smooth series the neighbours come as close; a leaked label stands alone",
        ),
    ),
)
def label_not_in_input(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    if known.unknown or known.unlabelled:
        return not_judged(context, known.unknown or known.unlabelled)
    found = samples(subject, "train")
    if found.count < FEWEST:
        return not_judged(context, f"{found.count} samples")
    inputs = {n: t for n, t in found.of(known.inputs).items() if len(t) == found.count}
    features_of = {name: numbers_of(values) for name, values in inputs.items()}
    judged = False
    most, following = context.limit("max_correlation"), context.limit("min_next")
    for label in found.of(known.labels):
        forms = _forms(found.rows[label])
        for name, values in features_of.items():
            leaks = [
                _leak(columns, values, most, following)
                for columns in forms
                # A label as long as the input is the input, changed.
                if columns.shape[1] < values.shape[1] and values.isfinite().all()
            ]
            judged = judged or bool(leaks)
            leak = next(filter(None, leaks), "")
            if leak:
                context.measure(**{f"{label} in {name}": leak})
                context.problem(
                    f"{label} stands in {name}: {leak} (limit {most:g})",
                    sign="label-in-input",
                    place=place_of_samples(subject),
                    next_step="take these features out of the input",
                )
    if not judged:
        not_judged(context, "no label of a few numbers beside an input of more features")
    return None


def _forms(label: Tensor) -> list[Tensor]:
    """Numbers [B, C]: of a class its number and a column for each class; none for token labels."""
    numbers = numbers_of(label)
    if not numbers.isfinite().all():
        return []
    if label.is_floating_point():
        return [numbers] if numbers.shape[1] <= MOST_COLUMNS else []
    values, classes = torch.unique(numbers[:, 0], return_inverse=True)
    if numbers.shape[1] > 1 or len(values) > MOST_COLUMNS:
        return []
    one_hot = torch.nn.functional.one_hot(classes, len(values)).double()
    return [numbers, one_hot] if len(values) > 2 else [numbers]


def _leak(columns: Tensor, values: Tensor, most: float, following: float) -> str:
    """Where the label stands among the features, in words; "" if nowhere."""
    varying = columns[:, (columns != columns[:1]).any(0)]
    if not varying.shape[1]:
        return ""
    correlations = (_unit(varying).T @ _unit(values)).abs()
    top, place = correlations.max(1)
    if bool((top > EXACT).all()) and len(torch.unique(place)) == len(top):
        return (
            f"feature {listed([str(p) for p in place.tolist()])} of {values.shape[1]} is the "
            "label, up to scale and shift, correlation 1"
        )
    if (
        len(top) > 1
        or len(torch.unique(columns)) <= 2
        or float(top[0]) <= most
        or values.shape[1] < 3
    ):
        return ""
    second = float(correlations[0].topk(2).values[1])
    if second >= following:
        return ""
    return (
        f"feature {int(place[0])} of {values.shape[1]} has a correlation of {float(top[0]):.6f} "
        f"with the label, the next has {second:.2f}"
    )


def _unit(values: Tensor) -> Tensor:
    centred = values - values.mean(0)
    norm: Tensor = centred.norm(dim=0)
    return torch.where(norm > 1e-12 * values.abs().amax(0).clamp(min=1e-30), centred / norm, 0.0)
