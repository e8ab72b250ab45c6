"""Does one thing depend on another: a kernel test against all permutations of the rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.samples import numbers_of

MOST_FEATURES = 512
MOST_WORDS = 512
MOST_CLASSES = 64
OUTLIER = 3.0  # standard deviations, beyond which values count as that far


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A centred positive semidefinite matrix [n, n] with its permutation moments.

    Attributes:
        trace, square, diagonal: sums of the eigenvalues, of their squares, of the squared diagonal.
    """

    matrix: Tensor
    trace: float
    square: float
    diagonal: float


def features(rows: Mapping[str, Tensor]) -> Tensor:
    """Standardised columns, float64 [n, F]; of whole numbers also how often each one occurs."""
    parts = []
    for tensor in rows.values():
        numbers = _fewer(numbers_of(tensor), MOST_FEATURES)
        parts.append(_standardised(numbers))
        if not (tensor.is_floating_point() or tensor.is_complex()):
            words = numbers.long() - int(numbers.min())
            if int(words.max()) < MOST_WORDS:
                counts = torch.zeros(len(words), int(words.max()) + 1, dtype=torch.float64)
                parts.append(counts.scatter_add_(1, words, torch.ones_like(numbers)))
                parts[-1] = _standardised(parts[-1])
    return torch.cat(parts, 1)


def label_features(rows: Mapping[str, Tensor]) -> Tensor:
    """The same for labels: single whole numbers as classes."""
    parts = []
    for tensor in rows.values():
        numbers = _fewer(numbers_of(tensor), MOST_FEATURES)
        if not tensor.is_floating_point() and numbers.shape[1] == 1:
            values, classes = torch.unique(numbers[:, 0], return_inverse=True)
            if len(values) <= MOST_CLASSES:
                numbers = torch.nn.functional.one_hot(classes, len(values)).double()
        parts.append(_standardised(numbers))
    return torch.cat(parts, 1)


def _fewer(numbers: Tensor, most: int) -> Tensor:
    return numbers[:, :: -(-numbers.shape[1] // most)]


def _standardised(numbers: Tensor) -> Tensor:
    numbers = torch.nan_to_num(numbers, posinf=0.0, neginf=0.0)
    centred = numbers - numbers.mean(0)
    spread = centred.std(0)
    kept = spread > 1e-9 * numbers.abs().amax(0).clamp(min=1e-30)
    return (centred[:, kept] / spread[kept]).clamp(-OUTLIER, OUTLIER)


def linear(columns: Tensor) -> Kernel:
    """<x, x'>."""
    return _kernel(columns @ columns.T)


def gaussian(columns: Tensor) -> Kernel:
    """exp(-|x - x'|^2 / 2 s^2), s the median distance."""
    squares = torch.cdist(columns, columns).square()
    return _kernel(torch.exp(-squares / squares.median().clamp(min=1e-12)))


def _kernel(gram: Tensor) -> Kernel:
    centred = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    diagonal = centred.diagonal()
    return Kernel(
        matrix=centred,
        trace=float(diagonal.sum()),
        square=float(centred.square().sum()),
        diagonal=float(diagonal.square().sum()),
    )


def deviations(one: Kernel, other: Kernel, order: Tensor | None = None) -> float:
    """By how many standard deviations <K, L> is above its mean over all permutations of rows.

    Mean and variance over all n! permutations in closed form: Kazi-Aoual, Hitier, Sabatier and
    Lebreton, Refined approximations to permutation tests for multivariate inference (1995).

    Args:
        order: of the rows of `other`; as they are without it.
    """
    n = len(one.matrix)
    matrix = other.matrix if order is None else other.matrix[order][:, order]
    value = float((one.matrix * matrix).sum())
    mean = one.trace * other.trace / (n - 1)

    def spread(k: Kernel) -> float:
        return (n - 1) * k.square - k.trace**2

    def corners(k: Kernel) -> float:
        return n * (n + 1) * k.diagonal - (n - 1) * (k.trace**2 + 2 * k.square)

    variance = 2 * spread(one) * spread(other) / ((n - 1) ** 2 * (n + 1) * (n - 2))
    variance += corners(one) * corners(other) / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    if variance <= 1e-18 * max(mean**2, 1e-30):
        return 0.0
    return float((value - mean) / variance**0.5)
