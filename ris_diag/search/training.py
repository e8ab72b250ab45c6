"""One training of a search: epoch by epoch, with a look at the metric between them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.case import Batch, Case
from ris_diag.context import to_device
from ris_diag.errors import CaseError
from ris_diag.loop import StepLoop, as_losses, optimizers_of
from ris_diag.places import where
from ris_diag.plan import Plan
from ris_diag.randomness import derived_seed, seeded
from ris_diag.search.checkpoint import (
    can_be_kept,
    can_put_back,
    load,
    put_back,
    save,
    state_of,
    writing,
)

TRAIN_SAMPLES, BATCH = 512, 32  # of a case without `loader`
VALIDATION_SAMPLES = 256


class NotFinite(Exception):  # noqa: N818  # it says what was seen
    """A loss or the metric is NaN or infinite."""


class _Enough(BaseException):
    """Ends an author's loop; no `except Exception` of his keeps it."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What all trials of a search have in common.

    Attributes:
        patience: epochs without a better metric behind which a training ends.
        seed: of the data, and of the search that derives each trial's seed from it.
    """

    epochs: int
    patience: int
    seed: int = 0
    device: str = "cpu"


@dataclass
class Progression:
    """How far a training has come: the metric of every epoch, and the best weights."""

    values: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int:
        """Counted from 1; 0 in front of the first."""
        return self.values.index(min(self.values)) + 1 if self.values else 0

    @property
    def value(self) -> float:
        """The lowest metric, infinite in front of the first epoch."""
        return min(self.values, default=math.inf)


OnEpoch = Callable[[int, float], None]
"""Called behind every epoch with its number and the metric; ends the training by raising.

A training that is resumed calls it again for the epochs that it has behind it.
"""


def train(
    case: Case,
    conditions: Conditions,
    seed: int,
    *,
    validation: Batch | None = None,
    on_epoch: OnEpoch = lambda epoch, value: None,
    checkpoint: Path | None = None,
    data_seed: int | None = None,
) -> Progression:
    """Train a fresh model; the random state of the caller stays as it is.

    Args:
        seed: of weights, dropout, and whatever else the training draws.
        data_seed: of the training data, the search's own where none is given.
        validation: samples for the metric, the search's own where none are given.
        checkpoint: file that is written behind every epoch, and resumed from where it exists.
            A loop of the author's own (`Case.fit`) resumes if it calls `plan.resume`, and begins
            anew if it doesn't. So does a step that keeps more than numbers and tensors in
            `Training.state`.

    Raises:
        NotFinite: a loss or the metric is.
        SearchError: the checkpoint can't be written.
        Exception: what the code under test or `on_epoch` raises.
    """
    with seeded(seed):
        return _Run(case, conditions, validation, on_epoch, checkpoint, data_seed).train()


class _Run:
    def __init__(
        self,
        case: Case,
        conditions: Conditions,
        validation: Batch | None,
        on_epoch: OnEpoch,
        checkpoint: Path | None,
        data_seed: int | None,
    ) -> None:
        self.case, self.conditions, self.on_epoch = case, conditions, on_epoch
        self.device = torch.device(conditions.device)
        self.checkpoint = checkpoint
        self.progression = Progression()
        self.losses: list[Tensor] = []
        seed = conditions.seed if data_seed is None else data_seed
        self.batches = train_batches(case, seed)
        samples = validation_samples(case, conditions.seed) if validation is None else validation
        self.validation = to_device(samples, self.device)

    def train(self) -> Progression:
        if self.case.model is None:
            raise CaseError("the case has no model")
        model = self.case.model().to(self.device)
        try:
            if self.case.fit is not None:
                self._own_loop(model)
            else:
                self._step_by_step(model)
        except _Enough:
            pass
        return self.progression

    def _step_by_step(self, model: nn.Module) -> None:
        loop = StepLoop(self.case)
        training = loop.begin(model)
        parts = (*optimizers_of(training.optimizer), training.scheduler)
        kept = [part for part in parts if part is not None]
        first = self._taken_up(model, kept, training.state)
        plan = self._plan(self._moved())
        for epoch in range(first, self.conditions.epochs + 1):
            self._stop_if_patience_is_over()
            reported = loop.epoch(training, epoch, plan)
            if self.case.step is not None:
                self.losses.append(torch.tensor(reported.train))
            self._behind_epoch(model, lambda: state_of(model, kept, training.state))

    def _own_loop(self, model: nn.Module) -> None:
        fit = self.case.fit
        if fit is None:
            raise CaseError("the case has no fit")
        state: Callable[[], dict[str, Any]] | None = None

        def resume(*kept: Any) -> int:
            nonlocal state
            _refuse_what_can_not_be_kept(kept)
            state = lambda: state_of(model, kept, {})  # noqa: E731
            first = self._taken_up(model, kept, {})
            self._stop_if_patience_is_over()
            return first

        def served() -> Iterator[Batch]:
            if self.losses:  # the epoch before this one has come to its end
                self._behind_epoch(model, state)
                self._stop_if_patience_is_over()
            yield from self._moved()

        fit(model, replace(self._plan(_Anew(served)), resume=resume))
        if self.losses:
            self._behind_epoch(model, state)
        if len(self.progression.values) != self.conditions.epochs:
            raise CaseError(
                f"Case.fit ({where(fit)}) trained {len(self.progression.values)} epochs of "
                f"{self.conditions.epochs}: go through plan.train plan.epochs times, and call "
                "plan.on_step in front of every backward pass"
            )

    def _taken_up(self, model: nn.Module, kept: Sequence[Any], own: dict[str, Any]) -> int:
        """The epoch to begin with, behind those of the checkpoint where there is one."""
        state = load(self.checkpoint, self.device) if self.checkpoint else None
        if state is None or not can_put_back(state, kept):
            return 1
        for _ in range(state["epoch"]):  # a loader's own random state comes to where it was
            for _ in self.batches:
                pass
        put_back(state, model, kept)
        own.update(state["own"])
        self.progression = Progression(list(state["values"]), state["best"])
        for epoch, value in enumerate(self.progression.values, start=1):
            self.on_epoch(epoch, value)
        return int(state["epoch"]) + 1

    def _plan(self, batches: Any) -> Plan:
        return Plan(epochs=self.conditions.epochs, train=batches, on_step=self._on_step)

    def _moved(self) -> "_Anew":
        return _Anew(lambda: (to_device(batch, self.device) for batch in self.batches))

    def _on_step(self, epoch: int, losses: Any) -> None:
        self.losses.append(as_losses(losses, "plan.on_step").total.detach())

    def _behind_epoch(self, model: nn.Module, state: Callable[[], dict[str, Any]] | None) -> None:
        epoch = len(self.progression.values) + 1
        self._refuse_losses_that_are_not_finite(epoch)
        value = metric_of(self.case, model, self.validation)
        if not math.isfinite(value):
            raise NotFinite(f"the metric is {value} behind epoch {epoch}")
        if value < self.progression.value:
            self.progression.best = {
                name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()
            }
        self.progression.values.append(value)
        if self.checkpoint is not None and state is not None:
            progression = self.progression
            reached = {"epoch": epoch, "values": progression.values, "best": progression.best}
            with writing(self.checkpoint):
                save(self.checkpoint, {**state(), **reached})
        self.on_epoch(epoch, value)

    def _refuse_losses_that_are_not_finite(self, epoch: int) -> None:
        finite = torch.stack([loss.reshape(()) for loss in self.losses]).isfinite()
        if not finite.all():
            step = int(finite.int().argmin())
            raise NotFinite(
                f"the loss is {float(self.losses[step])} at epoch {epoch}, step {step + 1}"
            )
        self.losses.clear()

    def _stop_if_patience_is_over(self) -> None:
        values = self.progression.values
        if len(values) - self.progression.best_epoch >= self.conditions.patience and values:
            raise _Enough


def _refuse_what_can_not_be_kept(kept: Sequence[Any]) -> None:
    wrong = [f"{type(one).__name__} ({one!r:.40})" for one in kept if not can_be_kept(one)]
    if wrong:
        raise CaseError(
            f"plan.resume: {', '.join(wrong)} has no state_dict and is no torch.Generator; give it "
            "the optimiser, the scheduler, and whatever else the loop keeps beside the model"
        )


class _Anew:
    """An iterable that begins anew every time."""

    def __init__(self, iterate: Callable[[], Iterator[Batch]]) -> None:
        self._iterate = iterate

    def __iter__(self) -> Iterator[Batch]:
        return self._iterate()


def train_batches(case: Case, seed: int) -> Any:
    """The case's loader, or fixed batches."""
    if case.loader is not None:
        return case.loader("train", derived_seed(seed, "train"))
    count = TRAIN_SAMPLES // BATCH
    return [
        _samples(case, "train", derived_seed(seed, "train", str(k)), BATCH) for k in range(count)
    ]


def validation_samples(case: Case, seed: int) -> Batch:
    """The samples on which every trial of a search is judged."""
    return _samples(case, "validation", derived_seed(seed, "validation"), VALIDATION_SAMPLES)


def fresh_samples(case: Case, seed: int) -> Batch:
    """Samples that no trial has seen, of the split "test"."""
    return _samples(case, "test", derived_seed(seed, "test"), VALIDATION_SAMPLES)


def _samples(case: Case, split: str, seed: int, size: int) -> Batch:
    if case.batch is None:
        raise CaseError("the case has no batch")
    return case.batch(split, seed, size)


def metric_of(case: Case, model: nn.Module, batch: Batch) -> float:
    """The declared metric in eval mode; modes and random state are put back."""
    if case.metric is None:
        raise CaseError("the case has no metric")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), seeded(0):
            value = case.metric(model, batch)
        return float(value.detach() if isinstance(value, Tensor) else value)
    finally:
        for module, mode in modes:
            module.training = mode
