"""What the loader serves in an epoch: other samples every time, mixed, once each. B4."""

import math
from collections import Counter

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_labels import class_numbers
from ris_diag.context import Context, Subject
from ris_diag.samples import (
    first_batches,
    hashes,
    is_continuous,
    lent_of,
    not_judged,
    place_of_loader,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
)
from ris_diag.stores import spread

SMALL, SEEDS = 7, 6
FEWEST_BATCHES = 4
FEWEST_ROWS = 4
MANY_MORE = 4  # times as many: nobody trains on a batch and validates on a data set
Rows = dict[str, Tensor]


@check(
    "D010",
    "loader-moves-on",
    title="The loader goes through the samples, mixed, in batches of the declared size",
    what="Goes through the first batches of an epoch, or, without a loader, through batches of "
    "several seeds: the same samples in all of them although there are others, batches of one "
    "class each or one class behind the other, samples with a twin in their batch, and, where "
    "declared, the batch size. A small data set that is served whole is left alone.",
    why="An iterator that starts anew serves one batch for ever, and the training loss falls "
    "beautifully; sorted batches are learnt and forgotten one by one.",
    sources=("B4",),
    signs=("same-batch-served", "batches-sorted", "samples-repeated", "batch-size-not-declared"),
    needs=("batch",),
    thresholds=(
        Threshold(name="min_different", value=2, unit="batches", why="where there are samples"),
        Threshold(
            name="max_pure",
            value=0.9,
            unit="mean share of a batch's largest class",
            why="where all batches together have at most 0.6 in one class",
        ),
        Threshold(
            name="max_order",
            value=1e-9,
            unit="probability",
            why="that each class stands in one piece by chance",
        ),
        Threshold(
            name="max_twins",
            value=0.5,
            unit="of the samples with a twin in their batch",
            why="drawing with replacement from a few samples gives less",
        ),
    ),
)
def loader_moves_on(context: Context) -> None:
    subject = context.subject
    served = first_batches(subject)
    batches = served if served is not None else _by_seed(subject)
    batches = [rows for rows in batches if rows]
    if len(batches) < 2:
        not_judged(context, f"{len(batches)} batch in the epoch")
    elif _same(context, batches, served is not None):
        return
    else:
        _repeated(context, batches)
    if served is not None:
        _sorted(context, batches)
        _size(context, batches)


def _by_seed(subject: Subject) -> list[Rows]:
    if lent_of(subject) is not None:
        return []
    return [rows_of_batch(subject, subject.batch("train", SMALL, offset=k)) for k in range(SEEDS)]


def _same(context: Context, batches: list[Rows], served: bool) -> bool:
    subject = context.subject
    numbers = [frozenset(hashes(rows)) for rows in batches]
    different = len(set(numbers))
    context.measure(batches=len(batches), different=different)
    if different >= context.limit("min_different"):
        return False
    others = hashes(samples(subject, "train").rows)
    beyond = set(others) - numbers[0]
    held_out = _held_out(subject)
    if not beyond and len(batches) >= FEWEST_BATCHES and held_out > MANY_MORE * len(numbers[0]):
        context.problem(
            f"{len(batches)} batches hold the same {len(numbers[0])} samples, though validation "
            f"has {held_out} at least: 1 different batch (limit "
            f"{context.limit('min_different'):g})",
            sign="same-batch-served",
            place=place_of_loader(subject),
            next_step="advance the index, the iterator or the seed: next(iter(loader)) in a loop "
            "starts anew every time",
        )
        return True
    if not beyond:
        return False
    count = len(next(iter(batches[0].values())))
    if not served and others[:count] == hashes(batches[0]):
        not_judged(context, "Case.batch gives the first samples of a fixed set, whatever the seed")
        return False
    context.problem(
        f"{len(batches)} batches hold the same {len(numbers[0])} samples, though there are "
        f"{len(beyond)} others at least: 1 different batch (limit "
        f"{context.limit('min_different'):g})",
        sign="same-batch-served",
        place=place_of_loader(subject) if served else place_of_samples(subject),
        next_step="advance the index, the iterator or the seed: next(iter(loader)) in a loop "
        "starts anew every time",
    )
    return True


def _held_out(subject: Subject) -> int:
    """Distinct samples that a validation loader of its own was seen to serve."""
    lent = lent_of(subject)
    if lent is None or lent.validation is None:
        return 0
    return len(set(hashes(samples(subject, "validation").rows)))


def _repeated(context: Context, batches: list[Rows]) -> None:
    """Samples with a twin in their batch, labels included."""
    total = twins = 0
    for rows in batches:
        real = [t for t in rows.values() if is_continuous(t)]
        if not real:
            return
        counts = Counter(hashes(rows))
        total += sum(counts.values())
        twins += sum(count for count in counts.values() if count > 1)
    share = twins / max(total, 1)
    context.measure(samples=total, twins=twins)
    if share > context.limit("max_twins"):
        context.problem(
            f"{twins} of {total} samples have a twin in their batch ({share:.0%}, limit "
            f"{context.limit('max_twins'):.0%})",
            sign="samples-repeated",
            place=place_of_loader(context.subject),
            next_step="look at the concatenation, or the sampling with replacement",
        )


def _sorted(context: Context, batches: list[Rows]) -> None:
    subject = context.subject
    for name in roles(subject).labels:
        labels = [_classes(rows[name]) for rows in batches if name in rows]
        found = [values for values in labels if values is not None and len(values) >= FEWEST_ROWS]
        if len(found) < FEWEST_BATCHES:
            continue
        ahead = [_classes(rows[name]) for rows in spread(subject) if name in rows]
        everything = torch.cat([values for values in ahead if values is not None] or found)
        largest = [float(torch.unique(v, return_counts=True)[1].max() / len(v)) for v in found]
        pure = sum(largest) / len(largest)
        usual = float(torch.unique(everything, return_counts=True)[1].max() / len(everything))
        context.measure(**{f"{name} purity": pure, f"{name} largest class": usual})
        classes = len(torch.unique(everything))
        if pure > context.limit("max_pure") and usual <= 0.6:
            text = (
                f"each of {len(found)} batches is of one class of {name} ({pure:.0%} on average, "
                f"limit {context.limit('max_pure'):.0%}), of which there are {classes}"
            )
        elif _by_class(torch.cat(found)) < context.limit("max_order"):
            text = (
                f"the {sum(map(len, found))} samples of {len(found)} batches come class by class "
                f"of {name}, each of {len(torch.unique(torch.cat(found)))} in one piece (limit: "
                f"chance below {context.limit('max_order'):g})"
            )
        else:
            continue
        context.problem(
            text,
            sign="batches-sorted",
            place=place_of_loader(subject),
            next_step="shuffle=True, or shuffle the samples once",
        )


def _classes(labels: Tensor) -> Tensor | None:
    """Whole numbers [B], also where they are written as real ones, as for a binary loss."""
    flat = labels.reshape(len(labels), -1)
    if labels.is_floating_point() and flat.shape[1] == 1 and bool((flat == flat.round()).all()):
        return flat[:, 0].long() if len(torch.unique(flat)) <= len(flat) // 2 + 1 else None
    return class_numbers(labels)


def _by_class(labels: Tensor) -> float:
    """How likely samples in a random order have each class in one piece; 1 if they haven't."""
    counts = torch.unique(labels, return_counts=True)[1].tolist()
    if int((labels[1:] != labels[:-1]).sum()) + 1 > len(counts):
        return 1.0
    orders = math.lgamma(len(counts) + 1) + sum(math.lgamma(count + 1) for count in counts)
    return math.exp(orders - math.lgamma(len(labels) + 1))


def _size(context: Context, batches: list[Rows]) -> None:
    declared = context.subject.case.declared
    wanted = None if declared is None else declared.batch_size
    # The last one of an epoch may be smaller.
    sizes = [len(next(iter(rows.values()))) for rows in batches]
    sizes = sizes[:-1] if len(sizes) > 1 else sizes
    wrong = Counter(size for size in sizes if size != wanted)
    if wanted is None or not sizes:
        return
    context.measure(declared_batch_size=wanted, batch_sizes=sorted(set(sizes)))
    if wrong:
        context.problem(
            f"{sum(wrong.values())} of {len(sizes)} batches hold "
            f"{', '.join(str(size) for size in sorted(wrong))} samples, {wanted} are declared",
            sign="batch-size-not-declared",
            place=place_of_loader(context.subject),
            next_step="pass the configured batch size to the loader, or correct "
            "Declared(batch_size=...)",
        )
