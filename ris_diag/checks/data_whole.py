"""Labels are whole: not cut off, not rounded. B4."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.fractions import are_whole, lost_fractions
from ris_diag.measure import listed
from ris_diag.samples import (
    not_judged,
    numbers_of,
    place_of_samples,
    roles,
    sources,
    splits_apart,
)

FEWEST = 16
MOST_COLUMNS = 16
FEWEST_PILED = 8
NEAR, CROWDED = 0.01, 0.05  # of the range; of the other values
EXACT = (torch.float32, torch.float64)


@check(
    "D005",
    "labels-are-whole",
    title="Labels are not cut off at a value, nor rounded",
    what="Looks for a value at an end of the range that many labels of a continuous kind share "
    "exactly, and compares the splits: labels that end where the other split's go on, whole "
    "numbers where the other's have fractions, or whole numbers of both signs that a straight line "
    "through continuous inputs foretells better than differences of counts can be foretold (their "
    "variance is at least the size of their mean). Where the splits agree, a pile at the smallest "
    "value alone or at 0 (amounts are often nothing), shares between 0 and 1, a function that "
    "saturates, and discrete values are left alone.",
    why="A forgotten clamp or an integer type changes a part of the labels only: training and "
    "validation look right, and the large values are never learnt.",
    sources=("B4",),
    signs=("labels-truncated",),
    needs=("model", "batch"),
    thresholds=(
        Threshold(
            name="max_share",
            value=0.05,
            unit="of the labels at one end of the range",
            why="two real numbers are equal by accident only",
        ),
    ),
)
def labels_are_whole(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    if known.unknown or known.unlabelled:
        return not_judged(context, known.unknown or known.unlabelled)
    found = sources(subject)
    train, validation = (samples.of(known.labels) for samples in found[:2])
    apart = splits_apart(subject)
    judged = False
    for samples in found if apart else (found[0], *found[2:]):
        split, reference = samples.split, "train" if samples.split == "validation" else "validation"
        for name, values in samples.of(known.labels).items():
            other = train if reference == "train" else validation
            columns, others = _columns(values), _columns(other.get(name))
            if columns is None:
                continue
            judged = True
            wrong = [
                text
                for number in range(columns.shape[1])
                for text in _cut(
                    columns[:, number],
                    others[:, number] if apart and others is not None else None,
                    _flags(samples.of(known.labels), len(columns)),
                    context.limit("max_share"),
                    reference,
                )
            ]
            if split == "train" and not wrong:
                wrong = lost_fractions(
                    samples.of(known.inputs), columns, context.limit("max_share")
                )
            context.measure(**{f"{split} {name}": len(wrong)})
            if wrong:
                context.problem(
                    f"{split} {name}: {listed(wrong, 2)}",
                    sign="labels-truncated",
                    place=place_of_samples(subject, split),
                    next_step="look for clamp, min, max, integer types and rounding where the "
                    "labels are made; Case.exempt is for labels that are so by nature",
                )
    if not judged:
        not_judged(context, "no label is a few real numbers a sample")
    return None


def _columns(labels: Tensor | None) -> Tensor | None:
    """Real labels [B, C], a few columns; None for all others."""
    if labels is None or labels.dtype not in EXACT or len(labels) < 2 * FEWEST:
        return None
    columns = numbers_of(labels)
    return columns if columns.shape[1] <= MOST_COLUMNS and columns.isfinite().all() else None


def _flags(labels: Mapping[str, Tensor], count: int) -> list[Tensor]:
    """The labels of yes and no, as whether an event was seen before the time was up."""
    columns = [numbers_of(t.double()) for t in labels.values() if len(t) == count]
    flat = [c[:, 0] for c in columns if c.shape[1] == 1]
    return [c for c in flat if bool(((c == 0) | (c == 1)).all())]


def _cut(
    values: Tensor, others: Tensor | None, flags: list[Tensor], limit: float, reference: str
) -> list[str]:
    """What is wrong with one column of labels, in words."""
    found: list[str] = []
    if others is not None and are_whole(values) and not are_whole(others) and values.std() > 0:
        return ["all are whole numbers, unlike those of " + reference]
    rest = values[(values != values.max()) & (values != values.min())]
    if len(rest) < FEWEST or len(torch.unique(rest)) < 0.9 * len(rest):
        return found  # discrete values
    ends = {"largest": values.max(), "smallest": values.min()}
    piled = {name: values == end for name, end in ends.items()}
    for name, end in ends.items():
        share = float(piled[name].double().mean())
        if share <= limit or int(piled[name].sum()) < FEWEST_PILED:
            continue
        # Times that ended with the observation, not with the event, are marked as such.
        if any(len(torch.unique(f[piled[name]])) == 1 and len(torch.unique(f)) > 1 for f in flags):
            continue
        beyond = 0.0
        if others is not None:
            beyond = float((others > end if name == "largest" else others < end).double().mean())
        low, high = float(values.min()), float(values.max())
        # Shares, and actions or cosines between -1 and 1.
        bounded = (low >= 0 and high <= 1) or (low, high) == (-1.0, 1.0)
        near = (rest - end).abs() < NEAR * (values.max() - values.min())
        saturates = float(near.double().mean()) > CROWDED  # as a tanh, which nears its bound
        # Amounts are often nothing, also where they were standardised.
        amounts = float(end) == 0 or (
            name == "smallest" and float(piled["largest"].double().mean()) <= limit
        )
        if beyond > limit or not (bounded or saturates or amounts):
            further = f", where {beyond:.0%} of {reference} go on" if beyond > limit else ""
            found.append(
                f"{share:.0%} are exactly {float(end):.4g}, the {name} value{further} "
                f"(limit {limit:.0%})"
            )
    return found
