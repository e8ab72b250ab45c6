"""The description of a training under test. Every optional part unlocks checks."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor, nn

from ris_diag.covariance import Batch, Covariance, Scene
from ris_diag.errors import CaseError
from ris_diag.plan import Epoch, Fit, Losses, Plan, Progress, Training


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the author says is in effect.

    Attributes:
        weights: name of a loss term to its weight, the main term first.
        learning_rate: of every parameter group, at every step or by the number of the step from 1.
        frozen: patterns of the names of parameters that must not move, as in "backbone.*".
        tied: groups of names of parameters that are one tensor; None declares nothing.
        optimizer: settings of every parameter group by their names in it, as in
            {"weight_decay": 1e-4, "betas": (0.9, 0.999)}.
        accumulation: backward passes for one optimiser step.
        clip_norm: largest gradient norm at a step.
        batch_size: samples in a batch of `Case.loader`.
        shift: of a sequence, label[t] is input[t + shift].
        trace: of every covariance.
        floor: loss of a perfect prediction.
        beta_start, beta_final, warmup_share, beta_jitter: of the blend schedule.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float | Callable[[int], float] | None = None
    frozen: Sequence[str] = ()
    tied: Sequence[Sequence[str]] | None = None
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    accumulation: int = 1
    clip_norm: float | None = None
    batch_size: int | None = None
    shift: int | None = None
    trace: float | None = None
    floor: float = 0.0
    beta_start: float = 0.0
    beta_final: float = 0.30
    warmup_share: float = 0.2
    beta_jitter: float = 0.0

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.accumulation, int) or self.accumulation < 1:
            problems.append(f"accumulation={self.accumulation!r}: expected a whole number from 1")
        if isinstance(self.frozen, str) or not all(isinstance(name, str) for name in self.frozen):
            problems.append(f"frozen={self.frozen!r}: expected a list of patterns, ['backbone.*']")
        groups = self.tied or ()
        if any(isinstance(group, str) or len(group) < 2 for group in groups):
            problems.append(
                f"tied={self.tied!r}: expected groups of names, [['a.weight', 'b.weight']]"
            )
        rate = self.learning_rate
        if not (rate is None or callable(rate) or _is_number(rate)):
            problems.append(f"learning_rate={rate!r}: expected a number, or step -> number")
        if not isinstance(self.optimizer, Mapping):
            problems.append(f"optimizer={self.optimizer!r}: expected a dict, {{'eps': 1e-8}}")
        for name in ("batch_size", "shift"):
            value = getattr(self, name)
            if not (value is None or (isinstance(value, int) and value > 0)):
                problems.append(f"{name}={value!r}: expected a whole number from 1")
        for name in ("clip_norm", "trace"):
            value = getattr(self, name)
            if not (value is None or (_is_number(value) and value > 0)):
                problems.append(f"{name}={value!r}: expected a number above 0")
        problems += [
            f"weights[{name!r}]={weight!r}: expected a number"
            for name, weight in self.weights.items()
            if not _is_number(weight)
        ]
        if not _is_number(self.floor):
            problems.append(f"floor={self.floor!r}: expected a number")
        if problems:
            raise CaseError("Declared: " + "; ".join(problems))

    def beta(self, epoch: int, epochs: int) -> float:
        """Declared blend weight: linear over W = max(2, int(warmup_share epochs)) epochs."""
        warmup = max(2, int(self.warmup_share * epochs))
        progress = min(1.0, (epoch - 1) / (warmup - 1))
        return self.beta_start + (self.beta_final - self.beta_start) * progress


@dataclass(frozen=True, kw_only=True)
class Override:
    """A threshold of one's own: its value, with the reason."""

    value: float
    reason: str


# Names that a check may need for what several parts can give.
EITHER = {
    "prediction": "Case.predict (or Case.loss)",
    "loop": "Case.fit (or Case.optimizer with Case.loss or Case.step)",
    "run": "Case.fit with Case.model and Case.batch (or another training, or Case.main)",
    "inputs": "Case.model with Case.batch (or Case.main)",
    "served": "Case.loader (or Case.from_xy)",
    "ranks": "torchrun --nproc-per-node=2",
}


def unlocking(part: str) -> str:
    """How a part that a check needs is called in the case."""
    return EITHER.get(part, f"Case.{part}")


CALLABLE = (
    "model",
    "batch",
    "loss",
    "fit",
    "optimizer",
    "step",
    "scheduler",
    "main",
    "loader",
    "predict",
    "truth",
    "oracle",
    "metric",
    "distance",
    "restore",
    "stored",
    "distributed",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training under test, or a part of one: each part that is there unlocks checks.

    Attributes:
        name: shown in reports; part of every seed.
        model: () -> a fresh model on the CPU, initialised from torch's global random state.
        batch: (split, seed, size) -> `size` fixed samples; split is "train", "validation", "test".
        loss: (model, batch, progress) -> the training loss exactly as the loop computes it.
        fit: (model, plan) -> epochs; the author's own loop, in place. Where a curriculum leaves
            samples of a batch out, give the path without it here.
        optimizer: (model) -> the optimiser, or several. With `loss` it stands for a loop of
            zero_grad, backward and step for every batch.
        step: (training, batch, progress) -> the loss it reports; the author's own training step,
            for a loop that goes through the batches.
        scheduler: (optimizer, as `optimizer` gave it) -> an object with a method `step()`, called
            behind every epoch; a step of one's own may call it instead, see `Training`.
        main: () -> anything; a script that trains. It runs under observation for some optimiser
            steps and is ended by an exception.
        paths: name to a loop, for every path that builds the loss (with and without a
            curriculum); `fit` is one of them.
        loader: (split, seed) -> the batches of a full training, as the author serves them; of
            several processes, those of this rank.
        distributed: (model) -> the model as a training on several processes wraps it, as
            `DistributedDataParallel(model)`; the process group is there. The loop gets what it
            gives where torchrun started the checks.
        predict: (model, batch) -> what inference gives out, a tensor; the model is in eval mode.
        truth: batch -> what the prediction should be, a tensor.
        oracle: batch -> what the model's output would be if it were perfect: what `model(...)`
            returns, in whatever structure. Without it, it is found from `truth` and from the loss.
        metric: (model, batch) -> the number by which validation judges, lower is better; the model
            is in eval mode.
        baselines: name to batch -> the same number for an answer that needs no training.
        distance: (estimate, truth) -> one real value a sample, [B]; the metric, differentiable with
            respect to the estimate. Both are complex [B, N, N].
        covariance: the covariance parts.
        stored: split -> all of its samples, piece by piece, each with the name of its place, as
            that of its file; for data that are kept and not simulated.
        declared: weights and schedule as the author declares them.
        expected_failures: check ID to the reason why it is known to fail. Strict: a pass fails.
        exempt: what this case isn't meant to keep, to the reason: checks by ID, slug, prefix or
            family, which don't run, or a part that it doesn't have, "covariance".
        restore: () -> None; puts back what `model` and `optimizer` lent, behind every check.
        thresholds: "ID.name" to an `Override`.
    """

    name: str
    model: Callable[[], nn.Module] | None = None
    batch: Callable[[str, int, int], Batch] | None = None
    loss: Callable[[nn.Module, Batch, Progress], Losses | Tensor] | None = None
    fit: Fit | None = None
    optimizer: Callable[[nn.Module], Any] | None = None
    step: Callable[["Training", Batch, Progress], Tensor | float] | None = None
    scheduler: Callable[[Any], Any] | None = None
    main: Callable[[], Any] | None = None
    paths: Mapping[str, Fit] = field(default_factory=dict)
    loader: Callable[[str, int], Iterable[Batch]] | None = None
    predict: Callable[[nn.Module, Batch], Tensor] | None = None
    truth: Callable[[Batch], Tensor] | None = None
    oracle: Callable[[Batch], Any] | None = None
    metric: Callable[[nn.Module, Batch], float | Tensor] | None = None
    baselines: Mapping[str, Callable[[Batch], float | Tensor]] = field(default_factory=dict)
    distance: Callable[[Tensor, Tensor], Tensor] | None = None
    covariance: Covariance | None = None
    stored: Callable[[str], Iterable[tuple[str, Batch]]] | None = None
    distributed: Callable[[nn.Module], nn.Module] | None = None
    declared: Declared | None = None
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, Override] = field(default_factory=dict)
    restore: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be callable, not {getattr(self, name)!r}"
            for name in CALLABLE
            if getattr(self, name) is not None and not callable(getattr(self, name))
        ]
        if not isinstance(self.name, str) or not self.name:
            problems.append(f"name must be a text that isn't empty, not {self.name!r}")
        problems += [
            f"{part} must be a dict, not {getattr(self, part)!r}"
            for part in ("paths", "baselines", "expected_failures", "exempt", "thresholds")
            if not isinstance(getattr(self, part), Mapping)
        ]
        for part, kind in (("declared", Declared), ("covariance", Covariance)):
            if not isinstance(getattr(self, part), kind | None):
                problems.append(
                    f"{part} must be a ris_diag.{kind.__name__}, not {getattr(self, part)!r}"
                )
        if problems:
            raise CaseError(f"case {self.name!r}: " + "; ".join(problems))
        for part in ("expected_failures", "exempt"):
            for key, reason in getattr(self, part).items():
                if not isinstance(reason, str) or not reason.strip():
                    problems.append(f"{part}[{key!r}] needs a reason, not {reason!r}")
        both = self.expected_failures.keys() & self.exempt.keys()
        problems += [f"{key!r} is in expected_failures and in exempt" for key in sorted(both)]
        for key, override in self.thresholds.items():
            if not isinstance(override, Override) or not override.reason.strip():
                problems.append(f"thresholds[{key!r}] needs an Override with a reason")
        if problems:
            raise CaseError(f"case {self.name!r}: " + "; ".join(problems))

    @classmethod
    def from_xy(
        cls,
        model: nn.Module,
        loader: Iterable[Any],
        loss_fn: Callable[[Any, Any], Tensor],
        optimizer: Any,
        *,
        validation: Iterable[Any] | None = None,
        **parts: Any,
    ) -> "Case":
        """A case of what a script has at hand: a model, its loader of (x, y), a loss, an optimiser.

        The model and the optimiser are lent, not copied: every check starts from the state that
        they have now and puts it back.

        Args:
            loss_fn: (model(x), y) -> a scalar.
            validation: the loader of (x, y) by which the training is judged.
            parts: any other part of the case, by name.

        Raises:
            CaseError: no module, no optimiser; later, a loader that gives no pairs.
        """
        from ris_diag.lent import Lent

        lent = Lent(model, loader, loss_fn, optimizer, validation)
        return cls(**{"name": type(model).__name__, **lent.parts(), **parts})

    def offers(self, part: str) -> bool:
        """Whether a part is there: "model", "covariance.baselines", ...

        "loop" is whatever trains on batches that it is given: `fit`, `step` with `optimizer`, or
        `loss` with `optimizer`. "run" is a loop or `main`, "prediction" is `predict`, also that of
        `covariance`, or what `loss` gets from the model. "inputs" is `model` with `batch`,
        or `main`. "served" is `loader`, or that of `from_xy`. "ranks" is no part of a case: who
        runs the checks has them or not.
        """
        if part == "ranks":
            return False
        if part == "loop":
            return self.fit is not None or (
                self.optimizer is not None and (self.step is not None or self.loss is not None)
            )
        if part == "prediction":
            return (
                self.predict is not None
                or self.offers("covariance.predict")
                or (self.model is not None and self.loss is not None)
            )
        if part == "served":
            from ris_diag.lent import lent_to

            return self.loader is not None or lent_to(self) is not None
        if part == "run":
            return self.main is not None or all(map(self.offers, ("model", "batch", "loop")))
        if part == "inputs":
            return self.main is not None or all(map(self.offers, ("model", "batch")))
        value: Any = self
        for name in part.split("."):
            if name not in {item.name for item in fields(value)}:
                raise AttributeError(f"{type(value).__name__} has no part {name!r}")
            value = getattr(value, name)
            if value is None or value == {}:
                return False
        return True


TrainingCase = Case
"""The name in full, for a file that has cases of other kinds."""

__all__ = [
    "Batch",
    "Case",
    "Covariance",
    "Declared",
    "Epoch",
    "Fit",
    "Losses",
    "Override",
    "Plan",
    "Progress",
    "Scene",
    "Training",
    "TrainingCase",
    "unlocking",
]
