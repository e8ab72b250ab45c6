"""What the toolkit and the author's training hand each other: the plan, the losses, the epochs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ris_diag.covariance import Batch


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training stands: epoch (from 1) of epochs."""

    epoch: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Losses:
    """A training loss, still attached to its graph.

    Attributes:
        total: real scalar, what `backward()` is called on.
        terms: name to real scalar, unweighted; total must be computed from these very tensors.
        prediction: the network's output, R_pred complex [B, N, N].
        blended: what the main term was computed from, R_blend complex [B, N, N].
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    prediction: Tensor | None = None
    blended: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What a loop reports of an epoch: its mean loss in `train`, `validation` if it has one."""

    train: float
    validation: float | None = None


def _ignore(epoch: int, losses: Any) -> None:
    """Default of `Plan.on_step`."""


def _from_the_start(*kept: Any) -> int:
    """Default of `Plan.resume`."""
    return 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a loop is asked to do.

    Attributes:
        epochs: how often to go through `train`, one optimiser step a batch.
        train, validation: batches on the device, to be iterated anew in every epoch.
        on_step: to be called in front of every backward pass with the epoch, counted from 1, and
            the loss: `Losses`, or the scalar tensor alone.
        beta: a constant blend weight in place of the schedule; None leaves the schedule alone.
        resume: to be called in front of the first epoch with what the loop keeps beside the model:
            everything with `state_dict`, and torch.Generators. Gives the epoch to begin with, 1
            in a fresh training; in one that a search takes up again, the model and what was given
            stand where they stood behind the epoch before. Without the call a trial that was
            interrupted begins anew.
    """

    epochs: int
    train: Iterable[Batch]
    validation: Iterable[Batch] = ()
    on_step: Callable[[int, Any], None] = _ignore
    beta: float | None = None
    resume: Callable[..., int] = _from_the_start


Fit = Callable[[nn.Module, Plan], Sequence[Epoch]]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training step of one's own works on: all of it made by the case's factories.

    Attributes:
        model, optimizer, scheduler: as `Case.model`, `.optimizer`, `.scheduler` gave them.
        state: what the step keeps from batch to batch: a GradScaler, a moving average, counters.
            Empty at the start of every run.
    """

    model: nn.Module
    optimizer: Any
    scheduler: Any = None
    state: dict[str, Any] = field(default_factory=dict)
