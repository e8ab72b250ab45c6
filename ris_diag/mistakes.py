"""Kinds of mistakes in a metric, each with the pattern that gives it away.

A law says that something is wrong. What is wrong shows in how the metric answers to a few matrices
that are chosen for the question: they are generic, so that nothing cancels by chance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.context import Context

SIZE, BATCH = 4, 2


class Metric:
    """The distance on generic matrices; where it raises or gives nonsense, the value is NaN."""

    def __init__(self, distance: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> None:
        self._distance = distance
        generator = torch.Generator().manual_seed(0)

        def generic() -> Tensor:
            shape = (BATCH, SIZE, SIZE)
            F = torch.randn(shape, dtype=torch.complex128, generator=generator)
            return (F @ F.mH + torch.eye(SIZE)).to(device)

        self.truth, self.estimate = generic(), generic()
        self.error = self.estimate - self.truth
        self.direction = generic()

    def __call__(self, estimate: Tensor, truth: Tensor) -> float:
        """Value of the first sample."""
        try:
            with torch.no_grad():
                return float(self._distance(estimate, truth).flatten()[0])
        except Exception:  # noqa: BLE001  # a probe asks on, whatever the code under test raises
            return math.nan

    def slope(self, estimate: Tensor, truth: Tensor) -> Tensor | None:
        """Gradient of the sum of values: complex [B, N, N]; None where there is none."""
        estimate = estimate.detach().clone().requires_grad_()
        try:
            value = self._distance(estimate, truth).sum()
            return torch.autograd.grad(value, [estimate], allow_unused=True)[0]
        except Exception:  # noqa: BLE001  # as above
            return None

    def scaled(self, scale: float, dtype: torch.dtype = torch.complex128) -> float:
        """Value for estimate and truth times `scale`."""
        return self(self.estimate.to(dtype) * scale, self.truth.to(dtype) * scale)


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A kind of mistake: which laws it can break, and what gives it away.

    Attributes:
        seen: what was seen, or None where the pattern isn't there.
    """

    name: str
    breaks: tuple[str, ...]
    next_step: str
    seen: Callable[[Metric], str | None]


MISTAKES: list[Mistake] = []
Probe = Callable[[Metric], str | None]


def mistake(name: str, *, breaks: tuple[str, ...], next_step: str) -> Callable[[Probe], Probe]:
    """Register the decorated probe."""

    def register(seen: Probe) -> Probe:
        MISTAKES.append(Mistake(name=name, breaks=breaks, next_step=next_step, seen=seen))
        return seen

    return register


def mistakes_behind(context: Context) -> list[tuple[Mistake, str]]:
    """The mistakes that can break this check's law and whose pattern is there, with evidence."""
    metric = Metric(context.subject.distance, context.subject.device)
    if seen := RANDOM_CHOICE.seen(metric):  # patterns in noise mean nothing
        return [(RANDOM_CHOICE, seen)]
    return [
        (candidate, seen)
        for candidate in MISTAKES
        if context.check.id in candidate.breaks and (seen := candidate.seen(metric))
    ]


def _random_choice(metric: Metric) -> str | None:
    first, second = metric.scaled(1.0), metric.scaled(1.0)
    if _near(first, second) or math.isnan(first) or math.isnan(second):
        return None
    return f"the same matrices have {first:.6g} and {second:.6g}"


RANDOM_CHOICE = Mistake(
    name="a random choice in the distance",
    breaks=(),
    next_step="look for dropout or noise; a metric gives one value for the same matrices",
    seen=_random_choice,
)


@mistake(
    "an absolute constant in a denominator",
    breaks=("M003",),
    next_step="divide by the truth's energy alone, or clamp relative to it",
)
def absolute_constant(metric: Metric) -> str | None:
    value = metric.scaled(1.0)
    large = [metric.scaled(2.0**k) for k in (10, 20)]
    if not all(_near(v, value) for v in large):
        return None
    for k in range(-2, -100, -2):
        small = metric.scaled(2.0**k)
        if not _near(small, value, 0.3):
            energy = float(metric.truth[0].abs().square().sum()) * 4.0**k
            return (
                f"the value is {small:.3g} instead of {value:.3g} from a scale of {2.0**k:.0e} "
                f"down, where the truth's energy is {energy:.0e}"
            )
    return None


@mistake(
    "energies that are not squared",
    breaks=("M003",),
    next_step="square the norm of the error and that of the truth, both",
)
def not_squared(metric: Metric) -> str | None:
    power = _power_of_scale(metric)
    if power not in (-1, 1):
        return None
    part = "error" if power == -1 else "truth"
    return f"the value goes with the power {power} of the scale: the {part} isn't squared"


@mistake(
    "a value that is not divided by the truth's energy",
    breaks=("M002", "M003"),
    next_step="divide by the truth's energy, sample by sample",
)
def not_normalised(metric: Metric) -> str | None:
    if _power_of_scale(metric) != 2:
        return None
    return "the value goes with the square of the scale"


@mistake(
    "normalised by the estimate",
    breaks=("M002", "M012"),
    next_step="divide by the energy of the truth, which no training can move; look for exchanged "
    "arguments",
)
def normalised_by_estimate(metric: Metric) -> str | None:
    far = metric(100 * metric.truth, metric.truth)
    zero = metric(0 * metric.truth, metric.truth)
    if not far < 1.001 or zero < 2:  # NaN at the zero estimate counts
        return None
    return f"an estimate 100 times too large has {far:.3g}, the zero estimate {zero:.3g}"


@mistake(
    "the batch folded into the norm",
    breaks=("M005", "M006"),
    next_step="sum over the last two dimensions, not over all of them",
)
def batch_folded(metric: Metric) -> str | None:
    alone = metric(metric.estimate[:1], metric.truth[:1])
    other = metric.estimate.clone()
    other[1] *= 100
    beside = metric(other, metric.truth)
    if _near(alone, beside):
        return None
    return f"a sample's value is {alone:.3g} alone and {beside:.3g} beside one with a large error"


@mistake(
    "the imaginary part ignored",
    breaks=("M008", "M011"),
    next_step="take abs() of the complex error, or both parts of view_as_real(); a cast to a real "
    "dtype drops the imaginary part",
)
def imaginary_ignored(metric: Metric) -> str | None:
    value = metric(metric.truth + 1j * metric.error.imag, metric.truth)
    if not _near(value, 0.0) or off_diagonal_ignored(metric):
        return None
    return f"an error in the imaginary part alone has {value:.3g}"


@mistake(
    "the off-diagonal entries ignored",
    breaks=("M008", "M011"),
    next_step="sum over all entries, not over diagonal() alone; look for a weight or mask of 0",
)
def off_diagonal_ignored(metric: Metric) -> str | None:
    diagonal = torch.diag_embed(metric.error.diagonal(dim1=1, dim2=2))
    value = metric(metric.truth + metric.error - diagonal, metric.truth)
    return f"an error off the diagonal alone has {value:.3g}" if _near(value, 0.0) else None


@mistake(
    "the diagonal ignored",
    breaks=("M008", "M011"),
    next_step="sum over all entries; look for a weight or mask of 0",
)
def diagonal_ignored(metric: Metric) -> str | None:
    diagonal = torch.diag_embed(metric.error.diagonal(dim1=1, dim2=2))
    value = metric(metric.truth + diagonal, metric.truth)
    return f"an error on the diagonal alone has {value:.3g}" if _near(value, 0.0) else None


@mistake(
    "one triangle ignored",
    breaks=("M008", "M011"),
    next_step="sum over both triangles: a network's output need not be Hermitian",
)
def triangle_ignored(metric: Metric) -> str | None:
    for name, part in (("upper", metric.error.triu(1)), ("lower", metric.error.tril(-1))):
        value = metric(metric.truth + part, metric.truth)
        if _near(value, 0.0) and not off_diagonal_ignored(metric):
            return f"an error in the {name} triangle alone has {value:.3g}"
    return None


@mistake(
    "half precision",
    breaks=("M003", "M009", "M010", "M013"),
    next_step="compute the metric in the dtype of its input, outside of autocast",
)
def half_precision(metric: Metric) -> str | None:
    for scale in (2.0**k for k in range(4, 18)):  # half precision ends at 65504
        value = metric.scaled(scale, torch.complex64)
        if not math.isfinite(value):
            return f"the value is {value} from a scale of {scale:g} on: half precision overflows"
    for dtype in (torch.complex64, torch.complex128):
        estimate, truth = metric.estimate.to(dtype), metric.truth.to(dtype)
        step = 1e-5 * metric.direction.to(dtype)
        steps = {metric(estimate + k * step, truth) for k in range(5)}
        if len(steps) < 5:
            return f"a change of the estimate by 1e-5 of itself does not move the value, {dtype}"
    return None


@mistake(
    "squares that leave the range of the dtype",
    breaks=("M003", "M009"),
    next_step="divide estimate and truth by the truth's largest entry before squaring, or sum in "
    "float64",
)
def squares_out_of_range(metric: Metric) -> str | None:
    if not all(math.isfinite(metric.scaled(2.0**k, torch.complex64)) for k in (-17, 17)):
        return None
    broken = {}
    for name, scales in (
        ("overflow from", (2.0**k for k in range(18, 100))),
        ("underflow below", (2.0**-k for k in range(18, 100))),
    ):
        for scale in scales:
            value = metric.scaled(scale, torch.complex64)
            if not math.isfinite(value) or value == 0:
                broken[name] = f"{name} a scale of {scale:.0e} (value {value:g})"
                break
    return ", ".join(broken.values()) or None


@mistake(
    "a root without a gradient at zero",
    breaks=("M009",),
    next_step="use the energy itself; the slope of a root is infinite where the estimate is right",
)
def root_at_zero(metric: Metric) -> str | None:
    at_truth = metric.slope(metric.truth, metric.truth)
    elsewhere = metric.slope(metric.estimate, metric.truth)
    if at_truth is None or elsewhere is None or logarithm(metric):
        return None
    if bool(torch.isfinite(at_truth).all()) or not bool(torch.isfinite(elsewhere).all()):
        return None
    return "the gradient is not finite where estimate and truth agree, and finite elsewhere"


@mistake(
    "a part of the truth that is zero in a denominator",
    breaks=("M009",),
    next_step="where a part of the truth is zero, measure its error against the whole truth",
)
def zero_part(metric: Metric) -> str | None:
    diagonal = torch.diag_embed(metric.truth.diagonal(dim1=1, dim2=2))
    value = metric(metric.estimate, diagonal)
    if math.isfinite(value):
        return None
    return f"the value is {value} for a diagonal truth"


@mistake(
    "a logarithm of the error",
    breaks=("M001", "M002", "M004", "M009"),
    next_step="train on the energy ratio itself and take decibels for reports only",
)
def logarithm(metric: Metric) -> str | None:
    near, nearer = (metric(metric.truth + t * metric.error, metric.truth) for t in (1e-2, 1e-3))
    nearest = metric(metric.truth + 1e-4 * metric.error, metric.truth)
    step = near - nearer
    if not step > 0 or not math.isclose(step, nearer - nearest, rel_tol=0.01):
        return None
    return f"a tenth of the error takes {step:.3g} off the value, however small the error is"


@mistake(
    "a part of the estimate that is detached",
    breaks=("M010", "M011"),
    next_step="look for detach(), .data, .item() or no_grad() in the metric",
)
def detached(metric: Metric) -> str | None:
    slope = metric.slope(metric.estimate, metric.truth)
    unreached = 0 if slope is None else int((slope[0] == 0).sum())
    if slope is None or not unreached:
        return None
    value = metric(metric.estimate, metric.truth)
    moved = metric(metric.estimate + 0.1 * metric.error * (slope == 0), metric.truth)
    if _near(value, moved):
        return None
    return (
        f"{unreached} of {SIZE * SIZE} entries get no gradient, though the value goes from "
        f"{value:.3g} to {moved:.3g} when they move"
    )


@mistake(
    "a gradient that is conjugated",
    breaks=("M010",),
    next_step="return the gradient d/d(re) + j d/d(im) from a backward of your own; PyTorch's "
    "convention has the plus",
)
def conjugated(metric: Metric) -> str | None:
    slope = metric.slope(metric.estimate, metric.truth)
    if slope is None:
        return None
    direction = 1j * metric.error.imag  # Hermitian: the imaginary parts alone
    h = 1e-6
    pair = [metric(metric.estimate + d, metric.truth) for d in (h * direction, -h * direction)]
    difference = (pair[0] - pair[1]) / (2 * h)
    claimed = float((slope.conj() * direction).real[0].sum())
    if not difference or not math.isclose(claimed, -difference, rel_tol=1e-3):
        return None
    return f"along the imaginary parts it says {claimed:.3g}, differences say {difference:.3g}"


def _power_of_scale(metric: Metric) -> int | None:
    """Exponent k where the value goes with scale^k; None where it follows no power."""
    one, two, four = (metric.scaled(scale) for scale in (1.0, 2.0, 4.0))
    if not (one > 0 and two > 0 and four > 0):
        return None
    powers = math.log2(two / one), math.log2(four / two)
    if not math.isclose(*powers, abs_tol=0.02):
        return None
    nearest = round(powers[0])
    return nearest if abs(powers[0] - nearest) < 0.02 else None


def _near(a: float, b: float, tolerance: float = 1e-6) -> bool:
    return abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-3)
