"""The covariance parts of a case, each optional, and the view of those that a check needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch import Tensor, nn

from ris_diag.errors import CaseError

if TYPE_CHECKING:
    from ris_diag.plan import Losses

Batch = Any  # any structure of tensors: a tensor, tuple, named tuple, list, dict, nested
Predict = Callable[[nn.Module, Batch], Tensor]
OfBatch = Callable[[Batch], Tensor]
Blend = Callable[[Tensor, Tensor, float], Tensor]
Infer = Callable[[nn.Module, Batch, float], Tensor]
Beta = Callable[[int, int], float]
Criterion = Callable[[Mapping[str, float]], nn.Module]
LossOf = Callable[[nn.Module, Tensor, Tensor, Tensor, float], "Losses"]
T = TypeVar("T")

# What a check needs that computes the loss of a given estimate, of the network's, or compares
# the estimates of a training.
OF_CRITERION = tuple(f"covariance.{part}" for part in ("criterion", "loss", "truth", "sample"))
OF_LOSS = (*OF_CRITERION, "covariance.predict")
OF_ESTIMATES = tuple(
    f"covariance.{part}" for part in ("predict", "sample", "truth", "blend", "infer", "beta")
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene for the figures of a report, with what a subspace method needs to read it.

    Attributes:
        batch: as `Case.batch` gives it; its first sample is the scene.
        positions: azimuth and elevation [radians] and range [m] of each source, real [3, K].
        steering: (azimuth, elevation, range), each real [G] -> steering vectors, complex [G, N].
        azimuth, elevation, distance: where to look for sources, (low, high).
    """

    batch: Batch
    positions: Tensor
    steering: Callable[[Tensor, Tensor, Tensor], Tensor]
    azimuth: tuple[float, float]
    elevation: tuple[float, float]
    distance: tuple[float, float]

    def __post_init__(self) -> None:
        shape = list(self.positions.shape)
        if len(shape) != 2 or shape[0] != 3 or shape[1] < 1:
            raise CaseError(f"Scene: positions have the shape {shape}: expected [3, K], K from 1")


@dataclass(frozen=True, kw_only=True)
class Covariance:
    """Parts of a training that estimates covariances and blends them with the sample covariance.

    All covariances are complex [B, N, N]. Each part unlocks checks; data alone have `sample` and
    `truth`.

    Attributes:
        predict: (model, batch) -> R_pred.
        sample: batch -> R_samp.
        truth: batch -> R_true.
        blend: (R_pred, R_samp, beta) -> R_blend; the function that training uses.
        infer: (model, batch, beta) -> the estimate that inference hands out.
        beta: (epoch, epochs) -> the blend weight without jitter.
        criterion: weights by term -> the loss module; must refuse inadmissible weights.
        loss: (criterion, R_pred, R_samp, R_true, beta) -> Losses.
        baselines: name of a classical estimator to batch -> its estimate.
        snapshots: batch -> the snapshots X behind R_samp, complex [B, N, L].
        sources: batch -> K, the number of sources in each scene, whole numbers [B].
        positions: batch -> azimuth, elevation and range of each source, real [B, 3, K_max]; zeros
            behind the last one.
        scene: seed -> a `Scene`, not one of the training's, whose MUSIC spectrum a report shows.
    """

    predict: Predict | None = None
    sample: OfBatch | None = None
    truth: OfBatch | None = None
    blend: Blend | None = None
    infer: Infer | None = None
    beta: Beta | None = None
    criterion: Criterion | None = None
    loss: LossOf | None = None
    baselines: Mapping[str, OfBatch] = field(default_factory=dict)
    snapshots: OfBatch | None = None
    sources: OfBatch | None = None
    positions: OfBatch | None = None
    scene: Callable[[int], Scene] | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{item.name} must be callable, not {getattr(self, item.name)!r}"
            for item in fields(self)
            if item.name != "baselines"
            and getattr(self, item.name) is not None
            and not callable(getattr(self, item.name))
        ]
        if not isinstance(self.baselines, Mapping):
            problems.append(f"baselines must be a dict, not {self.baselines!r}")
        if problems:
            raise CaseError("Covariance: " + "; ".join(problems))


class _Needed(Generic[T]):
    """A part that is there, because the check at work says that it needs it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, parts: "CovarianceParts", owner: type) -> T:
        part: T | None = getattr(parts.given, self.name)
        if part is None:
            raise CaseError(
                f"a check read Case.covariance.{self.name} without declaring that it needs it"
            )
        return part


class CovarianceParts:
    """`Covariance` for checks whose needs name the parts that they read."""

    predict = _Needed[Predict]()
    sample = _Needed[OfBatch]()
    truth = _Needed[OfBatch]()
    blend = _Needed[Blend]()
    infer = _Needed[Infer]()
    beta = _Needed[Beta]()
    criterion = _Needed[Criterion]()
    loss = _Needed[LossOf]()
    snapshots = _Needed[OfBatch]()

    def __init__(self, given: Covariance) -> None:
        self.given = given
        self.baselines = given.baselines
