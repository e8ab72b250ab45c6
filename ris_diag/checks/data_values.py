"""Samples as numbers: finite, and not all the same. B4."""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject, to_device
from ris_diag.measure import LITMUS_EPOCHS, listed
from ris_diag.plan import Progress
from ris_diag.samples import (
    MOST_BATCHES,
    Samples,
    first_batches,
    not_judged,
    place_of_loader,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
    served,
    sources,
)

SPLITS = ("train", "validation", "test")
FEWEST = 4


@check(
    "D001",
    "samples-are-finite",
    title="No sample holds NaN or infinity",
    what="Looks at every number of some hundred samples of each split, and of the first batches of "
    "the loader. Where the loss of the samples concerned is finite, they are masked on purpose. A "
    "fault in less than 3/n of n samples is likely missed; the line says which share that is.",
    why="One NaN in a sample makes all weights NaN in the step that meets it, hours into an epoch.",
    sources=("B4",),
    signs=("nan-in-data",),
    needs=("batch",),
    thresholds=(
        Threshold(name="max_samples", value=0, unit="samples", why="one is enough to end it"),
    ),
)
def samples_are_finite(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_samples")
    bad: dict[str, int] = {}
    seen = 0
    place = place_of_samples(subject)
    for split in SPLITS:
        found = samples_or_none(context, split)
        rows = {} if found is None else found.rows
        seen += 0 if found is None else found.count
        if not _finite_rows(rows) and not _masked(context, _batches(subject, split), split):
            bad |= _named(f"{split} ", rows)
    for number, rows in enumerate(() if bad else first_batches(subject) or ()):
        seen += max(map(len, rows.values()), default=0)
        if not _finite_rows(rows) and not _masked(context, _served(subject, number), "loader"):
            bad |= _named(f"batch {number} of the loader, ", rows)
            place = place_of_loader(subject)
    context.measure(samples=seen, not_finite=bad)
    context.say(f"{seen} samples seen: a fault in fewer than {3 / max(seen, 3):.1%} may be missed")
    if sum(bad.values()) > limit:
        context.problem(
            f"NaN or infinity in {'; '.join(bad)} (limit {limit:g} samples)",
            sign="nan-in-data",
            place=place,
            next_step="look at these samples where they are made or read: divisions by zero, "
            "logarithms, missing values",
        )


def samples_or_none(context: Context, split: str) -> Samples | None:
    """Samples of a split; None, and a line, where the case has no test split."""
    try:
        return samples(context.subject, split)
    except (KeyError, ValueError, IndexError) as error:
        if split != "test":
            raise
        context.say(f"no test split: {type(error).__name__}: {error}")
        return None


def _finite(values: Tensor) -> Tensor:
    return torch.isfinite(values).reshape(len(values), -1).all(1)


def _finite_rows(rows: dict[str, Tensor]) -> bool:
    return all(bool(_finite(values).all()) for values in rows.values())


def _named(prefix: str, rows: dict[str, Tensor]) -> dict[str, int]:
    """`train batch[0]: 3 of 401 samples (sample 4, entry 2)`, and how many."""
    named = {}
    for name, values in rows.items():
        count = int((~_finite(values)).sum())
        if count:
            flat = torch.isfinite(values).reshape(len(values), -1)
            sample, entry = (~flat).nonzero()[0].tolist()
            text = f"{count} of {len(values)} samples (sample {sample}, entry {entry})"
            named[f"{prefix}{name}: {text}"] = count
    return named


def _batches(subject: Subject, split: str) -> Iterator[Batch]:
    """The batches that `samples` looked at."""
    size = samples(subject, split).count
    return (subject.batch(split, size, offset=offset) for offset in range(MOST_BATCHES))


def _served(subject: Subject, number: int) -> Iterator[Batch]:
    with served(subject) as batches:
        for batch in islice(batches or (), number, number + 1):
            yield to_device(batch, subject.device)


def _masked(context: Context, batches: Iterator[Batch], source: str) -> bool:
    """Whether the loss of the first batch with such samples is finite: it leaves them out."""
    subject = context.subject
    if not (subject.case.offers("loss") and subject.case.offers("model")):
        return False
    concerned = (b for b in batches if not _finite_rows(rows_of_batch(subject, b)))
    try:
        batch = next(concerned)
        loss = subject.loss(subject.model(), batch, Progress(epoch=1, epochs=LITMUS_EPOCHS))
    except Exception as error:  # noqa: BLE001  # a loss may refuse them
        context.say(f"the loss of {source} samples raises {type(error).__name__}: {error}")
        return False
    finite = bool(torch.isfinite(loss.total).all())
    if finite:
        context.say(f"the loss of {source} samples with NaN or infinity is finite: it masks them")
    return finite


@check(
    "D002",
    "inputs-vary",
    title="The input differs from sample to sample",
    what="Compares the inputs of some hundred samples. Masks, coordinates and other side inputs "
    "may be the same for all where another input varies.",
    why="From a constant input nothing but the mean of the labels can be learnt, and the loss "
    "falls to that.",
    sources=("B4",),
    signs=("input-constant",),
    needs=("model", "batch"),
    thresholds=(
        Threshold(name="min_different", value=2, unit="inputs", why="one for all carries nothing"),
    ),
)
def inputs_vary(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    if known.unknown:
        return not_judged(context, known.unknown)
    for found in sources(subject):
        split, rows = found.split, found.of(known.inputs)
        count = max(map(len, rows.values()), default=0)
        if count < FEWEST:
            not_judged(context, f"{split} has {count} inputs with one row a sample")
            continue
        constant = [name for name, t in rows.items() if _same(t)]
        context.measure(**{f"{split}_samples": count, f"{split}_constant": constant})
        if len(constant) == len(rows) and context.limit("min_different") > 1:
            context.problem(
                f"the input of all {count} {split} samples is the same ({listed(constant)}): 1 "
                f"different input, limit {context.limit('min_different'):g}",
                sign="input-constant",
                place=place_of_samples(subject, split),
                next_step="look at what the loader hands out, and at the normalisation: a "
                "division by a huge number, zeros that were never filled, one index for all",
            )
    return None


def _same(rows: Tensor) -> bool:
    """Whether all rows are equal; NaN equals NaN."""
    return not bool(((rows != rows[:1]) & ~((rows != rows) & (rows != rows)[:1])).any())
