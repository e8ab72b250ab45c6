"""Whole numbers that were real ones: told from counts by how well they are foretold."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ris_diag.dependence import features
from ris_diag.samples import is_continuous

FEWEST = 5  # different ones; fewer are classes or the steps of a scale


def are_whole(values: Tensor) -> bool:
    """Whether no value has a fraction."""
    return bool((values == values.round()).all())


def lost_fractions(inputs: Mapping[str, Tensor], labels: Tensor, limit: float) -> list[str]:
    """Whole numbers [B, C] that were real ones before, in words.

    Counts have at least the variance of their mean (Poisson; Skellam for differences), so does
    what is left of them after the best guess.

    Args:
        inputs: one row a sample, by name.
        limit: share of a column that may stand at either end; more is a scale with few steps.
    """
    entered = {name: t for name, t in inputs.items() if len(t) == len(labels)}
    if not entered or not all(is_continuous(t) for t in entered.values()):
        return []
    columns = features(entered)
    half = len(labels) // 2
    if 2 * columns.shape[1] > half:
        return []
    ones = torch.ones(len(columns), 1, dtype=columns.dtype)
    columns = torch.cat([columns, ones], 1)
    found = []
    for number in range(labels.shape[1]):
        y = labels[:, number]
        ends = torch.stack([y == y.min(), y == y.max()]).double().mean(1)
        signed = bool(y.min() < 0 < y.max())
        if not are_whole(y) or not signed or len(torch.unique(y)) < FEWEST or ends.max() > limit:
            continue
        guess = columns[half:] @ torch.linalg.lstsq(columns[:half], y[:half, None]).solution
        left = float((y[half:, None] - guess).square().mean())
        size = float(guess.abs().mean())
        if left < size:
            found.append(
                f"all are whole numbers, {int(y.min())} to {int(y.max())}, yet a straight line "
                f"through the inputs leaves a variance of {left:.2g}, where differences of counts "
                f"of that size have at least {size:.2g}: their fractions seem to be lost"
            )
    return found
