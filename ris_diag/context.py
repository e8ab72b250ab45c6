"""What a check sees: the case on a device, shared measurements, a place for findings."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ris_diag.case import Batch, Case, Declared
from ris_diag.check import ANY_CHECK, Check
from ris_diag.covariance import CovarianceParts
from ris_diag.errors import CaseError
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.loop import as_losses, fit_of
from ris_diag.places import where
from ris_diag.plan import Fit, Losses, Progress
from ris_diag.progress import ProgressFactory, silent
from ris_diag.randomness import derived_seed, seeded
from ris_diag.result import Finding, Result

if TYPE_CHECKING:
    from ris_diag.ranks import Ranks

log = logging.getLogger("ris_diag")
T = TypeVar("T")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`: tensors inside tuples, named tuples, lists and dicts are moved."""
    # Batches of their own kind, as those of graphs, know how to move.
    return map_leaves(
        batch, lambda leaf: leaf.to(device) if callable(getattr(leaf, "to", None)) else leaf
    )


class DeviceBatches:
    """An iterable of batches that moves each one, anew in every iteration."""

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self.batches = batches
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        return (to_device(batch, self.device) for batch in self.batches)


@dataclass
class Subject:
    """A case on a device. Measurements that several checks read are made once.

    Attributes:
        ranks: all processes that run the same checks; None where there is one.
    """

    case: Case
    device: torch.device
    seed: int
    progress: ProgressFactory = silent
    ranks: "Ranks | None" = None
    _measured: dict[str, Any] = field(default_factory=dict)

    def once(self, key: str, measure: Callable[["Subject"], T]) -> T:
        """`measure(self)`, made at the first call under `key`, from a seed of its own.

        An exception is kept as well: the second reader gets it without a second attempt.
        """
        if key not in self._measured:
            try:
                with self.seeded(key):
                    self._measured[key] = measure(self)
            except (Exception, SystemExit) as error:
                self._measured[key] = error
                raise
        measured = self._measured[key]
        if isinstance(measured, Exception | SystemExit):
            raise measured
        return measured  # type: ignore[no-any-return]  # what measure returned

    def seeded(self, key: str) -> Any:
        """Scope with seeds derived from the user's seed, `key` and the case's name."""
        return seeded(derived_seed(self.seed, key, self.case.name))

    def model(self) -> nn.Module:
        """A fresh model on the device."""
        return _present("model", self.case.model)().to(self.device)

    def batch(self, split: str, size: int, *, offset: int = 0) -> Batch:
        """`size` fixed samples of a split on the device; another `offset` gives other samples."""
        seed = derived_seed(self.seed + offset, "batch", split)
        return to_device(_present("batch", self.case.batch)(split, seed, size), self.device)

    def loss(self, model: nn.Module, batch: Batch, progress: Progress) -> Losses:
        """The case's training loss."""
        loss = _present("loss", self.case.loss)
        return as_losses(loss(model, batch, progress), f"Case.loss ({where(loss)})")

    @property
    def distance(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The metric."""
        return _present("distance", self.case.distance)

    @property
    def predict(self) -> Callable[[nn.Module, Batch], Tensor]:
        """What inference gives out: the case's own, else what its loss gets from the model."""
        if self.case.predict is not None:
            return self.case.predict
        if self.case.offers("covariance.predict"):
            return self.covariance.predict
        return self._output_in_loss

    def _output_in_loss(self, model: nn.Module, batch: Batch) -> Any:
        """The first tensor that the model gives while its loss is computed; None without any."""
        from ris_diag.measure import LITMUS_EPOCHS  # it imports this module

        outputs: list[Any] = []
        hook = model.register_forward_hook(lambda module, args, output: outputs.append(output))
        try:
            with torch.enable_grad():  # a loss may need derivatives of its own
                self.loss(model, batch, Progress(epoch=1, epochs=LITMUS_EPOCHS))
        finally:
            hook.remove()
        found = [tensor for output in outputs for tensor in tensors_in(output)]
        if not found:
            return None
        return found[0] if torch.is_grad_enabled() else found[0].detach()

    @property
    def covariance(self) -> CovarianceParts:
        """The covariance parts that the check needs."""
        return CovarianceParts(_present("covariance", self.case.covariance))

    @property
    def declared(self) -> Declared:
        """The declared values."""
        return _present("declared", self.case.declared)

    @property
    def fit(self) -> Fit:
        """The author's loop, or the one around his step."""
        return _present("loop", fit_of(self.case))


def _present(name: str, part: T | None) -> T:
    if part is None:
        raise CaseError(f"a check read Case.{name} without declaring that it needs it")
    return part


@dataclass
class Context:
    """One check at work on a subject."""

    check: Check
    subject: Subject
    result_of: Callable[[str], Result]
    measurements: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def limit(self, name: str) -> float:
        """Value of a declared threshold, or the case's own."""
        override = self.subject.case.thresholds.get(f"{self.check.id}.{name}")
        if override is not None:
            return override.value
        return next(t.value for t in self.check.thresholds if t.name == name)

    def measure(self, **values: Any) -> None:
        """Record measurements by name."""
        self.measurements.update(values)

    def say(self, line: str) -> None:
        """A line for the reader, logged at once and kept in the result."""
        self.lines.append(line)
        log.info("%s", line)

    def problem(self, cause: str, *, place: str, next_step: str, sign: str | None = None) -> None:
        """Record a reason to fail. All of them are reported together.

        Args:
            sign: which of the check's signs it is; the only one where it has one.

        Raises:
            ValueError: the check doesn't declare the sign.
        """
        (sign,) = (sign,) if sign is not None else self.check.signs
        if sign not in (*self.check.signs, *ANY_CHECK):
            raise ValueError(f"{self.check.id} declares no sign {sign!r}: {self.check.signs}")
        self.findings.append(Finding(sign=sign, cause=cause, place=place, next_step=next_step))
