"""Simulated scenes: near-field sources, snapshots at the elements of the surface, the truth."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.array import PlanarArray
from model.estimators import sample_covariance, trace_normalised
from model.validate import require_count, require_covariance, require_number

# Disjoint streams: a split's scenes never depend on another split's seed or size.
SPLITS = {"train": 0, "validation": 1, "test": 2}


class Scenes(NamedTuple):
    """A batch of scenes.

    X: snapshots, complex [B, N, L], scaled so that `R_samp` has trace N.
    R_samp: sample covariance, complex [B, N, N], Hermitian, trace N.
    R_true: covariance of the signals, complex [B, N, N], Hermitian, positive definite, trace N.
    """

    X: Tensor
    R_samp: Tensor
    R_true: Tensor

    def take(self, index: Tensor) -> "Scenes":
        """The scenes at `index` (integer [b])."""
        return Scenes(self.X[index], self.R_samp[index], self.R_true[index])


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What a scene is drawn from; intervals are uniform, [low, high].

    Attributes:
        max_sources: K is uniform in 1..max_sources; all sources of a scene have equal power.
        snapshots: L.
        azimuth_deg, elevation_deg: field of view [degrees].
        distance: of a source from the centre of the array [m].
        snr_db: signal power over noise power at one element [dB].
    """

    array: PlanarArray = field(default_factory=PlanarArray)
    max_sources: int = 5
    snapshots: int = 16
    azimuth_deg: tuple[float, float] = (-60.0, 60.0)
    elevation_deg: tuple[float, float] = (-30.0, 30.0)
    distance: tuple[float, float] = (0.5, 10.0)
    snr_db: tuple[float, float] = (-5.0, 20.0)
    dtype: torch.dtype = torch.complex64

    def __post_init__(self) -> None:
        require_count("max_sources", self.max_sources, 1, 64)
        require_count("snapshots", self.snapshots, 2, 4096)
        for name, low, high, unit in (
            ("azimuth_deg", -90.0, 90.0, "degrees"),
            ("elevation_deg", -90.0, 90.0, "degrees"),
            ("distance", 0.1, 1e6, "m"),
            ("snr_db", -60.0, 100.0, "dB"),
        ):
            interval = getattr(self, name)
            if len(interval) != 2 or not interval[0] <= interval[1]:
                raise ValueError(f"{name}={interval!r}: expected (low, high) with low <= high")
            for end in interval:
                require_number(name, end, low, high, unit=unit)
        if self.dtype not in (torch.complex64, torch.complex128):
            raise ValueError(
                f"dtype={self.dtype}: admissible are torch.complex64 and torch.complex128"
            )


def simulate(settings: SceneSettings, count: int, *, split: str, seed: int) -> Scenes:
    """Draw `count` scenes of a split.

    Symbols and noise are circular complex Gaussian and drawn anew in every snapshot: symbols held
    constant would give data of rank 1 under a truth of rank K.

    Args:
        settings: the distribution of scenes.
        count: number of scenes, B.
        split: "train", "validation" or "test"; their seed streams are disjoint.
        seed: non-negative; the same (settings, count, split, seed) gives the same scenes.

    Raises:
        ValueError: unknown split, count or seed out of range.
    """
    return located(settings, count, split=split, seed=seed)[0]


def located(settings: SceneSettings, count: int, *, split: str, seed: int) -> tuple[Scenes, Tensor]:
    """The scenes of `simulate`, and where their sources are.

    Returns:
        the scenes; azimuth, elevation [radians] and distance [m] of each source, float64
        [B, 3, max_sources], zeros behind the last one.
    """
    require_count("count", count, 1, 1_000_000)
    require_count("seed", seed, 0, 2**63 - 1)
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: admissible are {', '.join(SPLITS)}")
    # Not a torch generator: on the CPU it keeps 32 bits of its seed, and streams collide.
    rng = np.random.default_rng([SPLITS[split], seed])
    N, K, L = settings.array.size, settings.max_sources, settings.snapshots

    def uniform(interval: tuple[float, float], *shape: int) -> Tensor:
        low, high = interval
        draw = torch.from_numpy(rng.random(shape))
        return low + (high - low) * draw

    def circular(*shape: int) -> Tensor:
        parts = torch.from_numpy(rng.standard_normal((*shape, 2)))
        return torch.view_as_complex(parts) * math.sqrt(0.5)

    def angle(interval_deg: tuple[float, float]) -> Tensor:
        return uniform(interval_deg, count, K) * (math.pi / 180)

    sources = torch.from_numpy(rng.integers(1, K + 1, (count, 1)))
    azimuth, elevation = angle(settings.azimuth_deg), angle(settings.elevation_deg)
    distance = uniform(settings.distance, count, K)
    A = settings.array.steering(azimuth, elevation, distance).mT
    present = torch.arange(K) < sources
    # Unit-norm steering vectors: powers that sum to N give unit signal power at one element.
    power = present * (N / sources)
    noise = 10 ** (-uniform(settings.snr_db, count) / 10)

    S = power.sqrt()[..., None] * circular(count, K, L)
    X = A @ S + noise.sqrt()[:, None, None] * circular(count, N, L)
    R_samp = sample_covariance(X)
    X = X * (N / R_samp.diagonal(dim1=-2, dim2=-1).real.sum(-1)).sqrt()[:, None, None]
    R_true = (A * power[:, None]) @ A.mH + noise[:, None, None] * torch.eye(N)
    scenes = Scenes(
        X.to(settings.dtype),
        trace_normalised(R_samp).to(settings.dtype),
        trace_normalised(R_true).to(settings.dtype),
    )
    return scenes, torch.stack([azimuth, elevation, distance], dim=1) * present[:, None]


def check_scenes(scenes: Scenes, *, tolerance: float = 1e-4) -> None:
    """Raise unless every scene is finite and every truth is Hermitian and not zero.

    Args:
        tolerance: largest `||R - R^H||_F / ||R||_F` of a truth.

    Raises:
        TypeError: `R_samp` or `R_true` is not complex.
        ValueError: all offending scenes, by index.
    """
    problems = []
    require_covariance("R_samp", scenes.R_samp)
    require_covariance("R_true", scenes.R_true)
    for name, value in scenes._asdict().items():
        finite = torch.isfinite(value).flatten(1).all(1)
        if not finite.all():
            problems.append(f"NaN or Inf in {name} of {_scene_list(~finite)}")
    largest = scenes.R_true.abs().flatten(1).amax(1)
    zero = largest == 0
    # On the scale of its largest entry, so that no norm under- or overflows.
    R_true = scenes.R_true / torch.where(zero, 1, largest)[:, None, None]
    norm = R_true.flatten(1).norm(dim=1)
    if zero.any():
        problems.append(f"R_true is zero in {_scene_list(zero)}")
    asymmetry = (R_true - R_true.mH).flatten(1).norm(dim=1)
    skewed = asymmetry > tolerance * norm
    if skewed.any():
        worst = float((asymmetry / norm)[skewed].max())
        problems.append(
            f"R_true is not Hermitian in {_scene_list(skewed)}: ||R - R^H|| / ||R|| up to "
            f"{worst:.3g}, limit {tolerance:g}"
        )
    if problems:
        raise ValueError("; ".join(problems))


def _scene_list(offending: Tensor, shown: int = 5) -> str:
    index = offending.nonzero().flatten().tolist()
    more = ", ..." if len(index) > shown else ""
    listed = ", ".join(map(str, index[:shown]))
    return f"{len(index)} of {len(offending)} scenes (index {listed}{more})"
