"""Weights of classes beside how often the classes occur."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CLEAR = 1.5  # times, by which weights and numbers must differ
ALIKE = 0.8  # cosine between the logarithms of weights and numbers
FEWEST = 3  # labels of a class, fewer of which say nothing
ERRORS = 3.0


@dataclass(frozen=True, kw_only=True)
class Upside:
    """The two entries that differ most: what is rare and its weight, what is frequent and its."""

    rare: str
    frequent: str
    counts: tuple[int, int]
    weights: tuple[float, float]


def weights_of_classes(weight: Tensor, labels: Tensor) -> Upside | None:
    """Whether rarer classes have the smaller weights, clearly; None where they don't.

    Args:
        weight: [C].
        labels: numbers of classes, any shape; others are left out.
    """
    weight = weight.detach().double().cpu()
    labels = labels[(labels >= 0) & (labels < len(weight))].long().cpu()
    counts = torch.bincount(labels, minlength=len(weight)).double()
    kept = ((counts >= FEWEST) & (weight > 0)).nonzero().flatten()
    if len(kept) < 2:
        return None
    w, n = weight[kept].log(), counts[kept].log()
    w, n = w - w.mean(), n - n.mean()
    least, most = int(n.argmin()), int(n.argmax())
    error = float(1 / counts[kept[least]] + 1 / counts[kept[most]]) ** 0.5
    apart = float(n[most] - n[least]) > max(math.log(CLEAR), ERRORS * error)
    unequal = float(w[most] - w[least]) > math.log(CLEAR)
    if not (apart and unequal and float(w @ n) > ALIKE * float(w.norm() * n.norm())):
        return None
    rare, frequent = int(kept[least]), int(kept[most])
    return Upside(
        rare=f"class {rare}",
        frequent=f"class {frequent}",
        counts=(int(counts[rare]), int(counts[frequent])),
        weights=(float(weight[rare]), float(weight[frequent])),
    )


def weights_of_yes(weight: Tensor, labels: Tensor) -> Upside | None:
    """The same for the weight of yes, beside 1 for no.

    Args:
        weight: [] or [C], of each output.
        labels: 0 and 1, [..., C].
    """
    if not bool(((labels == 0) | (labels == 1)).all()) or not bool((weight > 0).all()):
        return None
    weight = weight.detach().double().cpu().flatten()
    if weight.numel() > 1 and labels.shape[-1:] != weight.shape:
        return None
    rows = labels.cpu().reshape(-1, weight.numel())
    # Each output is asked by itself: yes is class 1.
    found = [
        weights_of_classes(torch.stack([torch.ones_like(w), w]), column)
        for w, column in zip(weight, rows.T, strict=True)
    ]
    wrong = [one for one in found if one is not None]
    # Of several outputs one may be turned round on purpose.
    return wrong[0] if len(wrong) > len(found) / 2 else None
