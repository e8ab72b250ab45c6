"""One scene in the numbers that figures need: eigenvalues, magnitudes, a MUSIC spectrum.

It goes through JSON and between processes as a part of a result, so it holds no more than can be
seen: three digits, and maps as bytes.
"""

import base64
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ris_diag.context import Subject, to_device
from ris_diag.covariance import Batch, Scene
from ris_diag.errors import CaseError
from ris_diag.measure import trace_n

EIGENVALUES = 48
FLOOR_DB = -40.0  # below the mean eigenvalue; the sample covariance has zeros
MAP = 48  # rows and columns of |R|: blocks of 3 of 144 elements
AZIMUTHS, ELEVATIONS, RANGES = 121, 21, 8


def portrait(subject: Subject, model: nn.Module, batch: Batch, beta: float) -> dict[str, Any]:
    """Truth, prediction, blend and sample covariance of one scene, plain data.

    Args:
        batch: its first sample stands for the scene where the case has none to show.

    Returns:
        nothing where the truth isn't finite; else those estimates that are.
        estimates: name to `eigenvalues_db`, the largest first, over their mean, and `map`, |R| in
        blocks as base64 of bytes, 255 for `largest`, rows of `map_size`; `music`, where the case
        has a scene with known directions: `azimuth_deg`, the true `sources_deg`, `spectrum_db` by
        estimate, the maximum over elevation and range, 0 at its peak.
    """
    parts = subject.covariance
    scene = None if parts.given.scene is None else parts.given.scene(subject.seed)
    if scene is not None:
        batch = to_device(scene.batch, subject.device)
    with torch.no_grad():
        sample = parts.sample(batch)
        found = {
            "R_true": parts.truth(batch),
            "R_pred": parts.predict(model, batch),
            "R_blend": parts.infer(model, batch, beta),
            "R_samp": sample,
        }
        scaled = {name: hermitian(R[:1])[0] for name, R in found.items()}
    # A training that diverged is reported by what it measures, not by what can't be decomposed.
    estimates = {name: R for name, R in scaled.items() if R.isfinite().all()}
    if "R_true" not in estimates:
        return {}
    maps = {name: blocks(R) for name, R in estimates.items()}
    largest = float(maps["R_true"].max())
    shown: dict[str, Any] = {
        "estimates": {
            name: {"eigenvalues_db": eigenvalues_db(R), "map": as_bytes(maps[name], largest)}
            for name, R in estimates.items()
        },
        "elements": len(estimates["R_true"]),
        "map_size": len(maps["R_true"]),
        "largest": _digits(largest),
        "beta": beta,
    }
    if scene is not None:
        shown["music"] = music(scene, estimates)
    return shown


def hermitian(R: Tensor) -> Tensor:
    """The Hermitian part on the CPU, scaled to trace N: complex128 [B, N, N]."""
    R = R.detach().cpu().to(torch.complex128)
    return trace_n((R + R.mH) / 2)


def eigenvalues_db(R: Tensor) -> list[float]:
    """The largest eigenvalues of `R` ([N, N], Hermitian) over their mean, descending [dB]."""
    values = torch.linalg.eigvalsh(R).flip(0)[:EIGENVALUES]
    mean = R.diagonal().real.mean()
    decibels = 10 * (values / mean).clamp(min=10 ** (FLOOR_DB / 10)).log10()
    return [_digits(value) for value in decibels.tolist()]


def blocks(R: Tensor) -> Tensor:
    """|R| averaged over blocks, float64 [M, M], M at most `MAP`."""
    size = min(MAP, len(R))
    return adaptive_avg_pool2d(R.abs()[None], size)[0]


def as_bytes(values: Tensor, largest: float) -> str:
    """Values from 0 to `largest` as base64 of a byte each, row by row."""
    scaled = (values / (largest or 1.0)).clamp(0, 1).mul(255).round().to(torch.uint8)
    return base64.b64encode(scaled.numpy().tobytes()).decode("ascii")


def music(scene: Scene, estimates: dict[str, Tensor]) -> dict[str, Any]:
    """MUSIC spectra over azimuth of estimates [N, N], with K as it is known."""
    K = scene.positions.shape[1]
    near, far = scene.distance
    azimuth = torch.linspace(*scene.azimuth, AZIMUTHS, dtype=torch.float64)
    elevation = torch.linspace(*scene.elevation, ELEVATIONS, dtype=torch.float64)
    nearness = torch.linspace(1 / far, 1 / near, RANGES, dtype=torch.float64)
    signal = {name: torch.linalg.eigh(R).eigenvectors[:, -K:] for name, R in estimates.items()}
    best = {name: torch.zeros(AZIMUTHS, dtype=torch.float64) for name in estimates}
    az, el = (grid.flatten() for grid in torch.meshgrid(azimuth, elevation, indexing="ij"))
    for r in (1 / nearness).tolist():
        vectors = scene.steering(az, el, torch.full_like(az, r)).to(torch.complex128)
        N = len(estimates["R_true"])
        if vectors.shape != (len(az), N):
            raise CaseError(
                f"Case.covariance.scene: steering gave {list(vectors.shape)} for {len(az)} "
                f"directions: expected [{len(az)}, {N}]"
            )
        vectors = vectors / vectors.norm(dim=1, keepdim=True)
        for name, basis in signal.items():
            inside = (vectors.conj() @ basis).abs().square().sum(1)
            value = 1 / (1 - inside).clamp(min=1e-6)
            best[name] = torch.maximum(best[name], value.reshape(AZIMUTHS, ELEVATIONS).amax(1))
    return {
        "azimuth_deg": [_digits(math.degrees(value)) for value in azimuth.tolist()],
        "sources_deg": [_digits(math.degrees(v)) for v in scene.positions[0].tolist()],
        "spectrum_db": {
            name: [_digits(v) for v in (10 * (values / values.max()).log10()).tolist()]
            for name, values in best.items()
        },
    }


def _digits(value: float) -> float:
    return float(f"{value:.3g}")
