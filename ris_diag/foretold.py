"""How much a symbol tells about the label of a step, at several distances from it."""

import torch
from torch import Tensor

FEWEST = 400  # labels
PER_PAIR = 4  # labels for each symbol and class
MOST_CLASSES = 64


def foretold(tokens: Tensor, labels: Tensor, furthest: int) -> dict[int, float]:
    """Share of the labels' entropy that the symbol so many steps on takes away.

    {} for too few labels, and where they may be the symbols themselves. Labels below zero are left
    out. What chance takes away, in the order of another permutation of the symbols, is taken off.

    Args:
        tokens, labels: whole numbers [B, T].
    """
    length = min(tokens.shape[1], labels.shape[1])
    inside = torch.arange(furthest, length - furthest)
    if len(inside) < 1:
        return {}
    given = labels[:, inside]
    kept = given >= 0
    classes = torch.unique(given[kept], return_inverse=True)[1]
    kinds = int(classes.max()) + 1 if len(classes) else 0
    symbols, numbered = torch.unique(tokens, return_inverse=True)
    own = numbered[:, inside][kept]
    # Masked or corrupted symbols that are to be restored: labels of the symbols' own kind.
    if 2 * kinds > len(symbols) or 2 * _entropy(own) < _entropy(numbered.flatten()):
        return {}
    few = len(classes) < max(FEWEST, PER_PAIR * kinds * len(symbols))
    if few or not 2 <= kinds <= MOST_CLASSES:
        return {}
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    found = {}
    for shift in range(-furthest, furthest + 1):
        ahead = numbered[:, inside + shift][kept]
        chance = _shared(ahead[order.to(ahead.device)], classes)
        entropy = _entropy(classes)
        found[shift] = (_shared(ahead, classes) - chance) / max(entropy - chance, 1e-12)
    return found


def _shared(one: Tensor, other: Tensor) -> float:
    """Mutual information in nats."""
    both = one * (int(other.max()) + 1) + other
    return _entropy(one) + _entropy(other) - _entropy(both)


def _entropy(values: Tensor) -> float:
    counts = torch.unique(values, return_counts=True)[1].double()
    shares = counts / counts.sum()
    return -float((shares * shares.log()).sum())
