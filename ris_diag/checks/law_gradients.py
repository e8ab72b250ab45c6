"""Laws about the gradient of a metric: S2, B2, B3."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ris_diag.check import Threshold
from ris_diag.checks.laws import DECADES, law

if TYPE_CHECKING:
    from ris_diag.proof import Trial

STEP = 1e-5  # of the largest entry; a central difference is then exact to 1e-10


@law(
    "M009",
    "finite-over-the-range",
    title="Value and gradient are finite over the whole range",
    what="Evaluates both from a scale of 1e-30 to 1e30, in complex64 and complex128, also where "
    "estimate and truth agree and for diagonal, nearly singular and repeated-eigenvalue truths.",
    why="One NaN in a gradient ends a training for good, at a batch that nobody will find again.",
    sources=("S2", "B2", "B3"),
    thresholds=(
        DECADES,
        Threshold(name="max_broken", value=0, unit="entries", why="NaN spreads to every weight"),
    ),
)
def finite(trial: "Trial") -> str | None:
    estimate, truth = trial.special_pair(trial.dtype())
    exponent = trial.exponent()
    scale = 2.0**exponent
    values, gradient = trial.gradient(estimate * scale, truth * scale)
    trial.values = values.tolist()
    at = f"at a scale of 2^{exponent} = {scale:.0e}"
    broken = int((~torch.isfinite(values)).sum())
    if broken > trial.limit("max_broken"):
        return f"the value is {next(v for v in trial.values if v - v != 0)} {at}"
    broken = int((~torch.isfinite(gradient)).sum())
    if broken > trial.limit("max_broken"):
        return f"{broken} of {gradient.numel()} entries of the gradient are NaN or Inf {at}"
    return None


@law(
    "M010",
    "gradient-matches-differences",
    title="The gradient agrees with finite differences",
    what="Compares the slope along every Hermitian direction (diagonal entries, real and imaginary "
    "parts of pairs of off-diagonal entries) with a central difference, complex128.",
    why="A detach inside the metric, or a backward of one's own that conjugates, trains in a wrong "
    "direction, and the loss may fall nevertheless.",
    sources=("S12", "B2", "B3"),
    thresholds=(
        Threshold(
            name="max_difference",
            value=1e-4,
            unit="of the steepest slope",
            why="central differences are exact to 1e-10, a wrong direction differs by its whole",
        ),
    ),
)
def matches_differences(trial: "Trial") -> str | None:
    estimate, truth = trial.differing_pair(batch=1)
    _, gradient = trial.gradient(estimate, truth)
    scale = float(estimate.abs().max())
    slopes: dict[str, tuple[float, float]] = {}
    for name, direction in hermitian_directions(truth.shape[-1]).items():
        step = STEP * scale * direction.to(estimate.device)
        ahead, behind = trial.value(estimate + step, truth), trial.value(estimate - step, truth)
        measured = float(ahead - behind) / (2 * STEP)
        slopes[name] = float((gradient[0].conj() * direction).real.sum()) * scale, measured
    steepest = max(abs(measured) for _, measured in slopes.values())
    limit = trial.limit("max_difference") * max(steepest, 1e-4)
    wrong = {n: s for n, s in slopes.items() if not abs(s[0] - s[1]) <= limit}
    if not wrong:
        return None
    name, trial.values = next((n, list(s)) for n, s in wrong.items())
    return (
        f"{len(wrong)} of {len(slopes)} slopes differ from finite differences, the one along "
        f"{name} is {trial.values[0]:.6g} instead of {trial.values[1]:.6g} (limit {limit:.1g})"
    )


@law(
    "M011",
    "gradient-reaches-every-entry",
    title="The gradient reaches every entry of the estimate, real and imaginary part",
    what="Looks for exact zeros in the gradient where estimate and truth differ in every entry: "
    "real parts, and imaginary parts off the diagonal.",
    why="An entry without gradient is never learnt, and the loss falls on the others.",
    sources=("S12", "B2", "B3"),
    thresholds=(
        Threshold(name="max_unreached", value=0, unit="entries", why="each is to be learnt"),
    ),
)
def reaches_every_entry(trial: "Trial") -> str | None:
    estimate, truth = trial.differing_pair()
    values, gradient = trial.gradient(estimate, truth)
    trial.values = values.tolist()
    off = ~torch.eye(truth.shape[-1], dtype=torch.bool).expand_as(gradient)
    parts = {
        "diagonal": (gradient.real == 0) & ~off,
        "real part off the diagonal": (gradient.real == 0) & off,
        "imaginary part off the diagonal": (gradient.imag == 0) & off,
    }
    unreached = {name: int(mask.sum()) for name, mask in parts.items() if mask.any()}
    if sum(unreached.values()) <= trial.limit("max_unreached"):
        return None
    counts = ", ".join(f"{name}: {count}" for name, count in unreached.items())
    return f"no gradient reaches some entries ({counts}; limit 0)"


def hermitian_directions(N: int) -> dict[str, Tensor]:
    """A basis of the Hermitian matrices, complex128 [N, N] each, by the entry that it moves."""
    directions = {}
    for i in range(N):
        for j in range(i, N):
            real, imaginary = torch.zeros(2, N, N, dtype=torch.complex128)
            real[i, j] = real[j, i] = 1
            directions[f"re [{i},{j}]"] = real
            if i != j:
                imaginary[i, j], imaginary[j, i] = 1j, -1j
                directions[f"im [{i},{j}]"] = imaginary
    return directions
