"""Labels are whole: not cut off, not rounded. B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_labels import labels_of
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.samples import not_judged, numbers_of, place_of_samples, roles, splits_apart

FEWEST = 16
MOST_COLUMNS = 16
EXACT = (torch.float32, torch.float64)


@check(
    "D005",
    "labels-are-whole",
    title="Labels are not cut off at a value, nor rounded",
    what="Looks for a value at an end of the range that many labels of a continuous kind share "
    "exactly, and compares the splits: labels that end where the other split's go on, whole "
    "numbers where the other's have fractions. Zero as the lowest value, shares between 0 and 1, "
    "and values that are discrete anyhow are left alone.",
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
    labels = {split: labels_of(subject, split) for split in ("train", "validation")}
    apart = splits_apart(subject)
    judged = False
    for split, reference in (("train", "validation"), ("validation", "train")):
        if split == "validation" and not apart:
            continue
        for name, values in labels[split].items():
            columns, others = _columns(values), _columns(labels[reference].get(name))
            if columns is None:
                continue
            judged = True
            wrong = [
                text
                for number in range(columns.shape[1])
                for text in _cut(
                    columns[:, number],
                    others[:, number] if apart and others is not None else None,
                    context.limit("max_share"),
                    reference,
                )
            ]
            context.measure(**{f"{split} {name}": len(wrong)})
            if wrong:
                context.problem(
                    f"{split} {name}: {listed(wrong, 2)} (limit {context.limit('max_share'):.0%})",
                    sign="labels-truncated",
                    place=place_of_samples(subject, split),
                    next_step="look for clamp, min, max, integer types and rounding where the "
                    "labels are made",
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


def _cut(values: Tensor, others: Tensor | None, limit: float, reference: str) -> list[str]:
    """What is wrong with one column of labels, in words."""
    found: list[str] = []
    if others is not None and _whole(values) and not _whole(others) and values.std() > 0:
        return ["all are whole numbers, unlike those of " + reference]
    for end, name in ((values.max(), "largest"), (values.min(), "smallest")):
        share = float((values == end).double().mean())
        rest = values[(values != values.max()) & (values != values.min())]
        if share <= limit or len(rest) < FEWEST or len(torch.unique(rest)) < 0.9 * len(rest):
            continue  # the other values are discrete, too
        beyond = 0.0
        if others is not None:
            beyond = float((others > end if name == "largest" else others < end).double().mean())
        bounded = float(values.min()) >= 0 and float(values.max()) <= 1
        natural = bounded or (name == "smallest" and float(end) == 0)
        if beyond > limit or not natural:
            further = f", where {beyond:.0%} of {reference} go on" if beyond > limit else ""
            found.append(f"{share:.0%} are exactly {float(end):.4g}, the {name} value{further}")
    return found


def _whole(values: Tensor) -> bool:
    return bool((values == values.round()).all())
