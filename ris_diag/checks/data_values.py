"""Samples as numbers: finite, and not all the same. B4."""

import torch
from torch import Tensor

from ris_diag.case import Progress
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import LITMUS_EPOCHS, listed
from ris_diag.samples import (
    Samples,
    first_batches,
    not_judged,
    place_of_samples,
    roles,
    samples,
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
    seen = 0
    bad: dict[str, int] = {}
    for split in SPLITS:
        try:
            sets = [("", samples(subject, split))]
        except (KeyError, ValueError, IndexError) as error:
            if split != "test":
                raise
            context.say(f"no test split: {type(error).__name__}: {error}")
            continue
        if split == "train" and not bad:
            sets += [
                (f"batch {number} of the loader, ", Samples(split=split, rows=rows))
                for number, rows in enumerate(first_batches(subject) or ())
            ]
        for source, found in sets:
            seen += found.count
            wrong = {name: t for name, t in found.rows.items() if not _finite(t).all()}
            if wrong and not (source == "" and _masked(context, split, found)):
                bad |= {
                    _named(f"{split} {source}{name}", t): _samples(t) for name, t in wrong.items()
                }
    context.measure(samples=seen, not_finite=bad)
    context.say(f"{seen} samples seen: a fault in fewer than {3 / max(seen, 3):.1%} may be missed")
    if sum(bad.values()) > limit:
        context.problem(
            f"NaN or infinity in {'; '.join(bad)} (limit {limit:g} samples)",
            sign="nan-in-data",
            place=place_of_samples(subject),
            next_step="look at these samples where they are made or read: divisions by zero, "
            "logarithms, missing values",
        )


def _finite(values: Tensor) -> Tensor:
    return torch.isfinite(values).reshape(len(values), -1).all(1)


def _samples(values: Tensor) -> int:
    return int((~_finite(values)).sum())


def _named(name: str, values: Tensor) -> str:
    """`train batch[0]: 3 of 257 samples (sample 4, feature 2)`."""
    flat = torch.isfinite(values).reshape(len(values), -1)
    sample, feature = (~flat).nonzero()[0].tolist()
    return f"{name}: {_samples(values)} of {len(values)} samples (sample {sample}, entry {feature})"


def _masked(context: Context, split: str, found: Samples) -> bool:
    """Whether the loss of a batch with such samples is finite: it leaves them out."""
    subject = context.subject
    if not (subject.case.offers("loss") and subject.case.offers("model")):
        return False
    batch = subject.batch(split, found.count)
    try:
        loss = subject.loss(subject.model(), batch, Progress(epoch=1, epochs=LITMUS_EPOCHS))
    except Exception as error:  # noqa: BLE001  # a loss may refuse them
        context.say(f"the loss of {split} samples raises {type(error).__name__}: {error}")
        return False
    finite = bool(torch.isfinite(loss.total).all())
    if finite:
        context.say(f"the loss of {split} samples with NaN or infinity is finite: they are masked")
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
    for split in ("train", "validation"):
        rows = samples(subject, split).of(known.inputs)
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
