"""Labels by themselves: they vary, hold all classes, and are not cut off. B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.measure import listed
from ris_diag.samples import (
    LOADER,
    first_batches,
    is_continuous,
    lent_of,
    not_judged,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
    sources,
    splits_apart,
)
from ris_diag.stores import spread

FEWEST = 16
FEWEST_BATCHES, FEWEST_ROWS = 4, 4
SECOND_LOOKS = 4


def class_numbers(labels: Tensor) -> Tensor | None:
    """Whole numbers [B], where a label is one whole number."""
    flat = labels.reshape(len(labels), -1)
    whole = not (labels.is_floating_point() or labels.is_complex())
    return flat[:, 0].long() if whole and flat.shape[1] == 1 else None


def in_order(labels: Tensor) -> bool:
    """Whether equal classes stand together, as in a set that was never shuffled."""
    different = len(torch.unique(labels))
    changes = int((labels[1:] != labels[:-1]).sum())
    shares = torch.unique(labels, return_counts=True)[1].double() / len(labels)
    expected = float(1 - shares.square().sum()) * (len(labels) - 1)
    return different < 2 or changes < 0.3 * expected


def _constant(labels: dict[str, Tensor]) -> bool:
    return bool(labels) and all(not bool((t != t[:1]).any()) for t in labels.values())


@check(
    "D004",
    "labels-vary",
    title="Labels vary, and no split lacks a class of the other",
    what="Compares the labels of some hundred samples, and, where they are classes, the number of "
    "each in training and validation: a class that is missing in one by less chance than 1 in "
    "10 000, or nearly all labels in one class where it is not so in the other. Rare positives in "
    "both splits are a property of the data and left alone, as are samples in the order of their "
    "classes.",
    why="A constant label is learnt at once, with a perfect accuracy; a missing class is never "
    "learnt at all.",
    sources=("B4",),
    signs=("labels-constant", "classes-imbalanced"),
    needs=("model", "batch"),
    thresholds=(
        Threshold(
            name="max_share",
            value=0.98,
            unit="of the labels in one class",
            why="where validation has them in others, too",
        ),
        Threshold(
            name="max_chance",
            value=1e-4,
            unit="probability",
            why="that a class is missing by chance, or a label constant",
        ),
    ),
)
def labels_vary(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    if known.unknown or known.unlabelled:
        return not_judged(context, known.unknown or known.unlabelled)
    labels = {found.split: found.of(known.labels) for found in sources(subject)}
    train, validation = labels["train"], labels["validation"]
    count = max(map(len, train.values()), default=0)
    if count < FEWEST:
        return not_judged(context, f"{count} training samples")
    constant = {split for split, values in labels.items() if _constant(values)}
    context.measure(samples=count, constant=sorted(constant))
    if constant >= {"train", "validation"}:
        if known.derivatives:
            not_judged(context, "the loss takes derivatives: its labels may be residuals")
        elif _problem_of_batches(context, [train, *_more(subject, train)], "train"):
            return None
        elif lent_of(subject) is not None and not _everywhere(subject, train):
            not_judged(context, "the first samples of the loader are of one class")
        elif _stay_constant(subject, train):
            _problem_of_constant(context, "train", train, "in every batch and split")
        return None
    served = [{n: t for n, t in b.items() if n in train} for b in first_batches(subject) or ()]
    if not known.derivatives and _problem_of_batches(context, served, LOADER):
        return None
    for name, values in labels.get(LOADER, {}).items():
        if name in train:
            _compare_constant(context, LOADER, name, values, train[name])
    if splits_apart(subject):
        for name in train.keys() & validation.keys():
            _compare(context, name, {"train": train[name], "validation": validation[name]})
    return None


def _problem_of_constant(
    context: Context, split: str, labels: dict[str, Tensor], beyond: str
) -> None:
    value = ", ".join(f"{name} is {_shown(t)}" for name, t in labels.items())
    context.problem(
        f"all {len(next(iter(labels.values())))} {split} labels are the same, {beyond} ({value}): "
        "1 different label (limit 2)",
        sign="labels-constant",
        place=place_of_samples(context.subject, split),
        next_step="look where the labels are read: a default, an index that doesn't move, a "
        "type that rounds all of them to one number",
    )


def _compare_constant(context: Context, split: str, name: str, here: Tensor, there: Tensor) -> bool:
    """Whether a label is constant here and not there, beyond chance; reported."""
    same = float((there == here[:1]).reshape(len(there), -1).all(1).double().mean())
    constant = not bool((here != here[:1]).any())
    if not constant or same ** len(here) >= context.limit("max_chance"):
        return False
    if not samples_are_mixed(context.subject, split, here):
        return False
    if split == LOADER and not _everywhere(context.subject, {name: here}):
        return False
    _problem_of_constant(context, split, {name: here}, f"{1 - same:.0%} of the others are not")
    return True


def _shown(labels: Tensor) -> str:
    first = labels[0].reshape(-1)
    return f"{first[0].item():g}" if not labels.is_complex() and len(first) == 1 else "one row"


def _more(subject: Subject, train: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The labels of more batches: rare positives may be absent from the first."""
    size = max(map(len, train.values()))
    batches = (subject.batch("train", size, offset=k) for k in range(1, SECOND_LOOKS + 1))
    rows = [rows_of_batch(subject, batch) for batch in batches]
    return [{name: t for name, t in found.items() if name in train} for found in rows]


def _stay_constant(subject: Subject, train: dict[str, Tensor]) -> bool:
    """Whether more batches hold the same label."""
    return all(
        name in more and not bool((more[name] != labels[:1]).any())
        for more in _more(subject, train)
        for name, labels in train.items()
    )


def _everywhere(subject: Subject, train: dict[str, Tensor]) -> bool:
    """Whether a label that is constant in the first samples is so all over the data set."""
    found = spread(subject)
    if found:
        return all(
            bool((rows[name] == labels[:1]).all())
            for rows in found
            for name, labels in train.items()
            if name in rows
        )
    return all(samples_are_mixed(subject, "train", values) for values in train.values())


def _problem_of_batches(context: Context, batches: list[dict[str, Tensor]], split: str) -> bool:
    """Whether each batch has one real number for all its labels, and others another; reported."""
    long = [rows for rows in batches if rows and min(map(len, rows.values())) >= FEWEST_ROWS]
    if len(long) < FEWEST_BATCHES or not all(map(_constant, long)):
        return False
    names = [name for name in long[0] if all(name in rows for rows in long)]
    firsts = {name: torch.stack([rows[name][0].reshape(-1)[0] for rows in long]) for name in names}
    moving = [name for name, t in firsts.items() if is_continuous(t) and bool((t != t[0]).any())]
    if not moving:
        return False
    shown = {name: listed([f"{value:.4g}" for value in firsts[name].tolist()]) for name in moving}
    context.problem(
        f"all labels of a batch are the same, in {len(long)} of {len(long)} batches "
        f"({'; '.join(f'{name} is {text}' for name, text in shown.items())}): 1 different label "
        "in a batch (limit 2)",
        sign="labels-constant",
        place=place_of_samples(context.subject, split),
        next_step="look for a mean over the batch, one index or one label for all samples of it",
    )
    return True


def _compare(context: Context, name: str, labels: dict[str, Tensor]) -> None:
    """Labels of the two splits, by split."""
    subject = context.subject
    for split, reference in (("train", "validation"), ("validation", "train")):
        if _compare_constant(context, split, name, labels[split], labels[reference]):
            return None
    numbers = {split: class_numbers(values) for split, values in labels.items()}
    found = {split: values for split, values in numbers.items() if values is not None}
    if len(found) < 2 or any(int(values.min()) < 0 for values in found.values()):
        return None
    if not all(samples_are_mixed(subject, split, values) for split, values in found.items()):
        return not_judged(context, f"{name}: samples come in the order of their classes")
    fewest = min(map(len, found.values()))
    classes = max(int(values.max()) for values in found.values()) + 1
    if classes > fewest:
        return not_judged(context, f"{name}: {classes} classes, {fewest} samples")
    counts = {split: torch.bincount(values, minlength=classes) for split, values in found.items()}
    for split, reference in (("train", "validation"), ("validation", "train")):
        _compare_classes(context, name, split, reference, counts)
    return None


def samples_are_mixed(subject: Subject, split: str, labels: Tensor) -> bool:
    """Whether the samples seen stand for their split: all of it, or not sorted by class.

    What a loader that was lent serves first may be the first classes alone.
    """
    if lent_of(subject) is None or samples(subject, split).whole:
        return True
    numbers = class_numbers(labels)
    return numbers is None or not in_order(numbers)


def _compare_classes(
    context: Context, name: str, split: str, reference: str, counts: dict[str, Tensor]
) -> None:
    here, there = counts[split], counts[reference]
    samples_here, limit = int(here.sum()), context.limit("max_share")
    # Each of k labels of a class falls into the other split with its share of all samples.
    falls = there.sum() / (there.sum() + here.sum())
    chance = len(here) * falls.double() ** there
    missing = ((here == 0) & (chance < context.limit("max_chance"))).nonzero()[:, 0].tolist()
    largest = int(here.argmax())
    share, usual = float(here[largest] / here.sum()), float(there[largest] / there.sum())
    context.measure(**{f"{split} {name}": {"largest_share": share, "missing": missing}})
    # The other way round it is a sampler that balances the classes of the training.
    if split == "train" and share > limit and usual < 0.9:
        text = (
            f"{share:.1%} of the {split} labels are of class {largest}, {usual:.1%} in "
            f"{reference} (limit {limit:.0%})"
        )
    elif missing:
        text = (
            f"none of {samples_here} {split} labels is of class "
            f"{listed([str(m) for m in missing])}, of which {reference} has "
            f"{listed([str(int(there[m])) for m in missing])} (limit: chance below "
            f"{context.limit('max_chance'):g})"
        )
    else:
        return
    context.problem(
        f"{name}: {text}",
        sign="classes-imbalanced",
        place=place_of_samples(context.subject, split),
        next_step="look at the selection of the samples, a filter, a split by class; weigh or "
        "resample",
    )
