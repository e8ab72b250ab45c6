"""The loop around a training step, for a case that has no loop of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ris_diag.case import Case
from ris_diag.errors import CaseError
from ris_diag.places import where
from ris_diag.plan import Epoch, Fit, Losses, Plan, Progress, Training


def fit_of(case: Case) -> Fit | None:
    """The case's own loop, or one around its step, or one made of its loss and optimiser."""
    if case.fit is not None:
        return case.fit
    return StepLoop(case) if case.offers("loop") else None


def as_losses(value: Any, source: str) -> Losses:
    """What a case's loss returned or its loop showed, as `Losses`.

    Raises:
        CaseError: neither a real scalar tensor nor `Losses` with one; `source` says whose it is.
    """
    losses = Losses(total=value) if isinstance(value, Tensor) else value
    total = losses.total if isinstance(losses, Losses) else None
    if not isinstance(total, Tensor) or total.numel() != 1 or total.is_complex():
        given = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.60}"
        raise CaseError(
            f"{source} gave {given}: expected a real scalar tensor, or ris_diag.Losses with one"
        )
    return losses


class StepLoop:
    """A `Fit`: goes through the batches, one step each, a scheduler step behind every epoch.

    `begin` and `epoch` are the same in pieces, for who stops or resumes a training in between.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.__wrapped__ = case.step or case.loss  # whose place a report names
        self.place = where(self.__wrapped__)

    def __call__(self, model: nn.Module, plan: Plan) -> list[Epoch]:
        """A whole training, in place."""
        training = self.begin(model)
        return [self.epoch(training, epoch, plan) for epoch in range(1, plan.epochs + 1)]

    def begin(self, model: nn.Module) -> Training:
        """A training of a model, with the optimiser and the scheduler of the case."""
        case = self.case
        if case.optimizer is None:
            raise CaseError(f"case {case.name!r} has no optimizer")
        optimizer = case.optimizer(model)
        scheduler = None if case.scheduler is None else case.scheduler(optimizer)
        return Training(model=model, optimizer=optimizer, scheduler=scheduler)

    def epoch(self, training: Training, epoch: int, plan: Plan) -> Epoch:
        """One epoch, counted from 1."""
        model, scheduler, step = training.model, training.scheduler, self.case.step
        progress = Progress(epoch=epoch, epochs=plan.epochs)
        model.train()
        losses = [self._step(training, batch, progress, plan) for batch in plan.train]
        if isinstance(scheduler, ReduceLROnPlateau) and step is None:
            scheduler.step(sum(losses) / max(1, len(losses)))
        elif scheduler is not None and step is None:
            scheduler.step()
        return Epoch(
            train=sum(losses) / max(1, len(losses)),
            validation=self._validate(model, progress, plan),
        )

    def _step(self, training: Training, batch: Any, progress: Progress, plan: Plan) -> float:
        if self.case.step is not None:
            return _number(self.case.step(training, batch, progress), self.place)
        if self.case.loss is None:
            raise CaseError(f"case {self.case.name!r} has neither step nor loss")
        losses = as_losses(self.case.loss(training.model, batch, progress), self.place)
        plan.on_step(progress.epoch, losses)
        optimizers = optimizers_of(training.optimizer)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(losses.total)
        for optimizer in optimizers:
            optimizer.step()
        return float(losses.total.detach())

    def _validate(self, model: nn.Module, progress: Progress, plan: Plan) -> float | None:
        if self.case.loss is None:
            return None
        model.eval()
        # Not under no_grad: a loss may need derivatives of its own.
        values = [
            float(as_losses(self.case.loss(model, batch, progress), self.place).total.detach())
            for batch in plan.validation
        ]
        return sum(values) / len(values) if values else None


def optimizers_of(value: Any) -> Sequence[torch.optim.Optimizer]:
    """What a case's `optimizer` gave, as a sequence."""
    return value if isinstance(value, list | tuple) else [value]


def _number(reported: Any, place: str) -> float:
    """The loss that a step reports.

    Raises:
        CaseError: it is no number.
    """
    try:
        return float(reported.detach() if isinstance(reported, torch.Tensor) else reported)
    except (TypeError, ValueError, RuntimeError):
        raise CaseError(
            f"the training step ({place}) returned {reported!r:.60}: expected the loss that it "
            "reports, a number or a scalar tensor"
        ) from None
