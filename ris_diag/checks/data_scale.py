"""The size of the numbers that the first layers get. B4."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.measure import listed
from ris_diag.origins import Raw
from ris_diag.places import where
from ris_diag.samples import (
    named_tensors,
    not_judged,
    numbers_of,
    place_of_samples,
    probe,
    roles,
)
from ris_diag.script_data import entered

FEWEST = 8
MOST_FEATURES = 256  # of a table; longer rows are signals, whose entries may differ by decades
EVEN = 1e-3  # spread of the norms of rows that were normalised by row


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the numbers that enter a layer.

    Attributes:
        size: root mean square about zero.
        spread: largest standard deviation of a feature from sample to sample.
        decades: largest standard deviation of a feature over the smallest; 1 where that says
            nothing.
        extremes: the two features.
    """

    size: float
    spread: float
    decades: float = 1.0
    extremes: tuple[int, int] = (0, 0)


@check(
    "D003",
    "inputs-are-scaled",
    title="Inputs have the size for which layers are initialised",
    what="Looks at what the linear, convolutional and recurrent layers get that see the input "
    "first, behind whatever normalises it: its size, its spread from sample to sample, and, in "
    "tables, how far its features are apart. Of a script that is what the first layer of its model "
    "gets in the first steps. Only decades count. Rows that are normalised each by "
    "itself, sparse features and layers of one's own are left alone.",
    why="Layers start for inputs of size 1: raw bytes saturate them, a second division by 255 "
    "leaves nothing but the bias, and a feature 10 000 times the others is the only one learnt.",
    sources=("B4",),
    signs=("input-scale-off",),
    needs=("inputs",),
    thresholds=(
        Threshold(
            name="max_size",
            value=64.0,
            unit="root mean square",
            why="a quarter of the range of bytes: raw images have 70 to 150, percentages up to 58",
        ),
        Threshold(
            name="min_spread",
            value=0.005,
            unit="standard deviation of the feature that varies most",
            why="pixels divided by 255 twice have 0.002 at most",
        ),
        Threshold(
            name="max_decades",
            value=1e4,
            unit="largest over smallest standard deviation of a table's features",
            why="physical units of one table are some hundreds apart",
        ),
    ),
)
def inputs_are_scaled(context: Context) -> None:
    subject = context.subject
    script = not (subject.case.offers("model") and subject.case.offers("batch"))
    if not script and roles(subject).unknown:
        return not_judged(context, roles(subject).unknown)
    seen = entered(subject).raw if script else roles(subject).raw
    entering = [raw for raw in seen if _is_input(raw)]
    if not entering:
        return not_judged(context, "no linear, convolutional or recurrent layer sees real inputs")
    top, least = context.limit("max_size"), context.limit("min_spread")
    apart = context.limit("max_decades")
    measured, wrong = {}, {}
    for raw in entering:
        sizes = _sizes(raw.values)
        name = _name(raw)
        measured[name] = {"size": sizes.size, "spread": sizes.spread, "decades": sizes.decades}
        if sizes.size > top:
            wrong[name] = f"has a root mean square of {sizes.size:.3g} (limit {top:g})"
        elif 0 < sizes.spread < least:
            wrong[name] = (
                f"varies by {sizes.spread:.2g} from sample to sample at most (limit {least:g})"
            )
        elif sizes.decades > apart:
            first, last = sizes.extremes
            wrong[name] = (
                f"has features that differ by a factor of {sizes.decades:.2g} (limit {apart:g}): "
                f"number {first} varies most, number {last} least"
            )
    context.measure(inputs=measured)
    if wrong:
        context.problem(
            "; ".join(f"{name} {text}" for name, text in wrong.items()),
            sign="input-scale-off",
            place=entered(subject).place or where(subject.case.main)
            if script
            else _place(subject, [raw for raw in entering if _name(raw) in wrong]),
            next_step="normalise once, each feature by its mean and spread over the training set",
        )
    return None


def _name(raw: Raw) -> str:
    return f"{listed(sorted(raw.names))} at {raw.layer}"


def _place(subject: Subject, wrong: list[Raw]) -> str:
    """The batch's maker, or the loss where that is what changed the scale."""
    made = named_tensors(probe(subject))
    changed = [
        raw
        for raw in wrong
        for name in raw.names
        if not 0.5 < _size(raw.values) / max(_size(made[name]), 1e-30) < 2
    ]
    loss = subject.case.loss
    return where(loss) if changed and loss is not None else place_of_samples(subject)


def _size(values: Tensor) -> float:
    numbers = numbers_of(values) if values.ndim else values
    return float(numbers.abs().double().square().mean().sqrt())


def _is_input(raw: Raw) -> bool:
    real = raw.values.is_floating_point() or raw.values.is_complex()
    return real and len(raw.values) >= FEWEST and bool(torch.isfinite(raw.values).all())


def _sizes(values: Tensor) -> Sizes:
    numbers = numbers_of(values)
    deviations = numbers.std(0)
    size, spread = float(numbers.square().mean().sqrt()), float(deviations.max())
    norms = torch.stack([numbers.abs().sum(1), numbers.norm(dim=1)])
    even = norms.std(1) < EVEN * norms.mean(1)
    if numbers.shape[1] > 1 and bool(even.any()):  # by row: histograms, unit vectors
        return Sizes(size=size, spread=0.0)
    if values.ndim != 2 or values.is_complex() or not 2 <= numbers.shape[1] <= MOST_FEATURES:
        return Sizes(size=size, spread=spread)
    dense = (numbers != 0).double().mean(0) > 0.5
    varies = deviations > 1e-6 * numbers.abs().amax(0)
    kept = (dense & varies).nonzero()[:, 0]
    if len(kept) < 2:
        return Sizes(size=size, spread=spread)
    most, fewest = (int(kept[f(deviations[kept])]) for f in (torch.argmax, torch.argmin))
    decades = float(deviations[most] / deviations[fewest])
    return Sizes(size=size, spread=spread, decades=decades, extremes=(most, fewest))
