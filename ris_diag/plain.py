"""An error of predictions that owes nothing to the author's loss or metric."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.case import Batch
from ris_diag.context import Subject


@dataclass(frozen=True, kw_only=True)
class PlainError:
    """How far a prediction is from the truth, before and behind some training.

    Attributes:
        classes: whether it is one of classes: 2 where the outputs don't tell the true class from
            the others, less where they do; else the mean squared error.
    """

    before: float
    behind: float
    classes: bool

    @property
    def rise(self) -> float:
        """Share of what it was."""
        return _rise(self.before, self.behind)


def plain_error(
    subject: Subject, model: nn.Module, batch: Batch
) -> tuple[tuple[float, ...], bool] | None:
    """Errors of the prediction in eval mode, by no loss of the author's, and whether of classes.

    Mean squared error for numbers of one shape; where all labels lie between 0 and 1 that of the
    sigmoid, too, as the numbers may be logits. For class numbers [B] beside outputs [B, C], 2 and
    the mean of all outputs less that of the true class, over their spread; for yes and no, the
    outputs of the one less those of the other. None for other kinds.
    """
    predict, truth_of = subject.case.predict, subject.case.truth
    if predict is None or truth_of is None:
        return None
    model.eval()
    with torch.no_grad():
        prediction: Any = predict(model, batch)
        truth: Any = truth_of(batch)
    model.train()
    if not isinstance(prediction, Tensor) or not isinstance(truth, Tensor):
        return None
    whole = not (truth.is_floating_point() or truth.is_complex())
    if whole and prediction.ndim == 2 and truth.shape == prediction.shape[:1]:
        if not bool(((truth >= 0) & (truth < prediction.shape[1])).all()):
            return None
        own = prediction.gather(1, truth.long()[:, None]).double().mean()
        spread = prediction.double().std(1).mean().clamp(min=1e-12)
        return (2.0 + float((prediction.double().mean() - own) / spread),), True
    if whole or prediction.shape != truth.shape:
        return None
    if bool(((truth == 0) | (truth == 1)).all()) and bool(truth.any()) and not bool(truth.all()):
        numbers, yes = prediction.double(), truth == 1
        return (2.0 + float((numbers[~yes].mean() - numbers[yes].mean()) / numbers.std()),), True
    readings = [prediction]
    if not prediction.is_complex() and bool(((truth >= 0) & (truth <= 1)).all()):
        readings.append(prediction.sigmoid())
    return tuple(float((r - truth).abs().double().square().mean()) for r in readings), False


def compared(
    first: tuple[tuple[float, ...], bool] | None, last: tuple[tuple[float, ...], bool] | None
) -> PlainError | None:
    """The two of `plain_error`, where both could be said; of two readings the one that rises less.

    A batch may hold yes and no at one time and no alone at another: then nothing is said.
    """
    if first is None or last is None or first[1] != last[1] or len(first[0]) != len(last[0]):
        return None
    before, behind = min(zip(first[0], last[0], strict=True), key=lambda pair: _rise(*pair))
    return PlainError(before=before, behind=behind, classes=first[1])


def _rise(before: float, behind: float) -> float:
    return (behind - before) / abs(before) if before else 0.0
