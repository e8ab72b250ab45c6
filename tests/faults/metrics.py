"""Metrics of a covariance estimate: three that are right, and many that are wrong, each in one way.

All take estimate and truth, complex [B, N, N], and give real [B].
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.nmse import nmse

Metric = Callable[[Tensor, Tensor], Tensor]


def energy(R: Tensor) -> Tensor:
    total: Tensor = torch.view_as_real(R.resolve_conj()).square().sum((1, 2, 3))
    return total


def relative(R: Tensor, truth: Tensor) -> Tensor:
    """R over the truth's largest entry: its energy stays inside the range of the dtype."""
    largest: Tensor = torch.view_as_real(truth.resolve_conj()).abs().amax((1, 2, 3))
    return R / largest[:, None, None]


def masks(R: Tensor) -> tuple[Tensor, Tensor]:
    diagonal = torch.eye(R.shape[-1], dtype=R.real.dtype, device=R.device)
    return diagonal, 1 - diagonal


# ---- right


def frobenius_nmse(estimate: Tensor, truth: Tensor) -> Tensor:
    """||E||^2 / ||T||^2, both divided by the truth's largest entry first."""
    return energy(relative(estimate - truth, truth)) / energy(relative(truth, truth))


def affine_invariant(estimate: Tensor, truth: Tensor) -> Tensor:
    """Sum of the squared logarithms of the eigenvalues of T^-1 R, in complex128."""
    dtype = truth.real.dtype
    truth, estimate = truth.to(torch.complex128), estimate.to(torch.complex128)
    scale = truth.diagonal(dim1=1, dim2=2).real.mean(1)[:, None, None]
    factor = torch.linalg.cholesky(truth / scale)
    half = torch.linalg.solve_triangular(factor, estimate / scale, upper=False)
    white = torch.linalg.solve_triangular(factor, half.mH, upper=False)
    values: Tensor = torch.linalg.eigvalsh((white + white.mH) / 2)
    return values.log().square().sum(1).to(dtype)


# ---- wrong


def note_formula(estimate: Tensor, truth: Tensor) -> Tensor:
    diagonal, off = masks(truth)
    error, true = (estimate - truth).abs() ** 2, truth.abs() ** 2
    parts = [(error * m).sum((1, 2)) / ((true * m).sum((1, 2)) + 1e-12) for m in (diagonal, off)]
    return torch.stack([0.2 * parts[0], 0.8 * parts[1]]).sum(0)


def no_constant_at_all(estimate: Tensor, truth: Tensor) -> Tensor:
    diagonal, off = masks(truth)
    error, true = (relative(R, truth).abs() ** 2 for R in (estimate - truth, truth))
    parts = [(error * m).sum((1, 2)) / (true * m).sum((1, 2)) for m in (diagonal, off)]
    return torch.stack([0.2 * parts[0], 0.8 * parts[1]]).sum(0)


def error_not_squared(estimate: Tensor, truth: Tensor) -> Tensor:
    return energy(estimate - truth).sqrt() / energy(truth)


def truth_not_squared(estimate: Tensor, truth: Tensor) -> Tensor:
    return energy(estimate - truth) / energy(truth).sqrt()


def not_normalised(estimate: Tensor, truth: Tensor) -> Tensor:
    return energy(estimate - truth)


def root(estimate: Tensor, truth: Tensor) -> Tensor:
    return frobenius_nmse(estimate, truth).sqrt()


def normalised_by_estimate(estimate: Tensor, truth: Tensor) -> Tensor:
    return energy(relative(estimate - truth, truth)) / energy(relative(estimate, truth))


def batch_folded(estimate: Tensor, truth: Tensor) -> Tensor:
    return energy(estimate - truth) / energy(truth).mean()


def one_value_for_the_batch(estimate: Tensor, truth: Tensor) -> Tensor:
    return frobenius_nmse(estimate, truth).mean()


def weighted_by_position(estimate: Tensor, truth: Tensor) -> Tensor:
    values = frobenius_nmse(estimate, truth)
    return values * torch.linspace(1, 2, len(values), device=values.device)


def imaginary_ignored(estimate: Tensor, truth: Tensor) -> Tensor:
    return frobenius_nmse(estimate.real.to(truth.dtype), truth.real.to(truth.dtype))


def off_diagonal_ignored(estimate: Tensor, truth: Tensor) -> Tensor:
    diagonal = masks(truth)[0]
    return frobenius_nmse(estimate * diagonal, truth * diagonal)


def diagonal_ignored(estimate: Tensor, truth: Tensor) -> Tensor:
    off = masks(truth)[1]
    return frobenius_nmse(estimate * off, truth * off)


def lower_triangle_ignored(estimate: Tensor, truth: Tensor) -> Tensor:
    return frobenius_nmse(estimate.triu(), truth.triu())


def half_precision(estimate: Tensor, truth: Tensor) -> Tensor:
    error, true = (torch.view_as_real(R).half() for R in (estimate - truth, truth))
    return error.square().sum((1, 2, 3)) / true.square().sum((1, 2, 3))


def low_precision_in_single(estimate: Tensor, truth: Tensor) -> Tensor:
    if truth.dtype == torch.complex128:
        return frobenius_nmse(estimate, truth)
    parts = (torch.view_as_real(relative(R, truth)).bfloat16() for R in (estimate - truth, truth))
    error, true = (R.square().sum((1, 2, 3)) for R in parts)
    return (error / true).float()


def squares_overflow(estimate: Tensor, truth: Tensor) -> Tensor:
    return energy(estimate - truth) / energy(truth)


def normalised_estimate(estimate: Tensor, truth: Tensor) -> Tensor:
    scale = (energy(truth) / energy(estimate)).sqrt()[:, None, None]
    return frobenius_nmse(estimate * scale, truth)


def changes_its_arguments(estimate: Tensor, truth: Tensor) -> Tensor:
    value = frobenius_nmse(estimate, truth)
    truth.mul_(2)
    return value


def decibels(estimate: Tensor, truth: Tensor) -> Tensor:
    return 10 * frobenius_nmse(estimate, truth).log10()


def binomial(estimate: Tensor, truth: Tensor) -> Tensor:
    """|A|^2 + |T|^2 - 2 Re <A, T> cancels where A is close to T."""
    estimate, truth = relative(estimate, truth), relative(truth, truth)
    cross = (estimate.conj() * truth).real.sum((1, 2))
    return (energy(estimate) + energy(truth) - 2 * cross) / energy(truth)


def loaded_truth(estimate: Tensor, truth: Tensor) -> Tensor:
    share = 0.1 * truth.abs().amax((1, 2))[:, None, None]
    return frobenius_nmse(estimate, truth + share * masks(truth)[0])


def weights_that_sum_to_two(estimate: Tensor, truth: Tensor) -> Tensor:
    return 2 * nmse(estimate, truth)


def sign_of_the_phase(estimate: Tensor, truth: Tensor) -> Tensor:
    error = (estimate - truth).triu()
    one_sided = torch.complex(error.real, error.imag.clamp(min=0))
    return energy(relative(one_sided, truth)) / energy(relative(truth, truth))


def periodic(estimate: Tensor, truth: Tensor) -> Tensor:
    return frobenius_nmse(estimate, truth).mul(torch.pi / 2).sin().square()


def off_diagonal_detached(estimate: Tensor, truth: Tensor) -> Tensor:
    diagonal, off = masks(truth)
    return frobenius_nmse(estimate * diagonal + estimate.detach() * off, truth)


class _Conjugated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, R: Tensor) -> Tensor:
        return R.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.conj()


def gradient_conjugated(estimate: Tensor, truth: Tensor) -> Tensor:
    conjugated: Tensor = _Conjugated.apply(estimate)  # type: ignore[no-untyped-call]
    return frobenius_nmse(conjugated, truth)


def noisy(estimate: Tensor, truth: Tensor) -> Tensor:
    values = frobenius_nmse(estimate, truth)
    return values + torch.rand_like(values)


def raises_on_large_matrices(estimate: Tensor, truth: Tensor) -> Tensor:
    if truth.shape[-1] > 2:
        raise RuntimeError("only 2 x 2 is supported")
    return frobenius_nmse(estimate, truth)


def without_gradient(estimate: Tensor, truth: Tensor) -> Tensor:
    return frobenius_nmse(estimate.detach(), truth)


# Wrong metric to the laws that it breaks, and no others, each with what the report must say.
WRONG: dict[Metric, dict[str, str]] = {
    note_formula: {
        "M003": "an absolute constant in a denominator",
        "M008": "in another unitary basis",
        "M009": "overflow from a scale of",
    },
    no_constant_at_all: {
        "M009": "a part of the truth that is zero in a denominator",
        "M008": "in another unitary basis",
    },
    error_not_squared: {
        "M003": "the value goes with the power -1 of the scale: the error isn't squared",
        "M002": "instead of 1 for the zero estimate",
        "M009": "overflow from a scale of",
    },
    truth_not_squared: {
        "M003": "the value goes with the power 1 of the scale: the truth isn't squared",
        "M002": "instead of 1 for the zero estimate",
        "M009": "overflow from a scale of",
    },
    not_normalised: {
        "M003": "a value that is not divided by the truth's energy",
        "M002": "a value that is not divided by the truth's energy",
        "M009": "overflow from a scale of",
    },
    root: {"M009": "a root without a gradient at zero"},
    normalised_by_estimate: {"M002": "normalised by the estimate: an estimate 100 times too large"},
    batch_folded: {
        "M006": "the batch folded into the norm",
        "M002": "instead of 1 for the zero estimate",
        "M009": "squares that leave the range",
    },
    weighted_by_position: {
        "M005": "in another order of the batch",
        "M002": "2 instead of 1 for the zero estimate",
    },
    imaginary_ignored: {"M011": "the imaginary part ignored", "M008": "the imaginary part ignored"},
    off_diagonal_ignored: {
        "M011": "the off-diagonal entries ignored",
        "M008": "the off-diagonal entries ignored",
    },
    diagonal_ignored: {
        "M011": "the diagonal ignored",
        "M008": "the diagonal ignored",
        "M009": "a part of the truth that is zero",
    },
    lower_triangle_ignored: {
        "M011": "an error in the lower triangle alone has 0",
        "M008": "one triangle ignored",
    },
    half_precision: {
        "M009": "half precision overflows",
        "M003": "half precision",
        "M008": "in another unitary basis",
        "M010": "half precision",
    },
    low_precision_in_single: {"M013": "does not move the value, torch.complex64"},
    squares_overflow: {"M009": "squares that leave the range of the dtype"},
    normalised_estimate: {"M002": "nan instead of 1", "M009": "overflow"},
    changes_its_arguments: {
        f"M{number:03}": "it changes its arguments in place" for number in range(1, 14)
    },
    decibels: {
        "M004": "a logarithm of the error",
        "M001": "-inf instead of 0",
        "M002": "a logarithm of the error",
        "M009": "a logarithm of the error",
    },
    binomial: {"M004": "is below 0"},
    loaded_truth: {
        "M001": "instead of 0 where they agree",
        "M008": "in another unitary basis",
        "M012": "of the way from the estimate to the truth",
    },
    weights_that_sum_to_two: {
        "M002": "2 instead of 1 for the zero estimate",
        "M008": "in another unitary basis",
    },
    sign_of_the_phase: {
        "M007": "when both were conjugated",
        "M002": "instead of 1",
        "M008": "in another unitary basis",
        "M011": "one triangle ignored",
    },
    periodic: {"M012": "of the way from the estimate to the truth"},
    off_diagonal_detached: {
        "M010": "a part of the estimate that is detached: 12 of 16 entries",
        "M011": "a part of the estimate that is detached",
    },
    gradient_conjugated: {"M010": "a gradient that is conjugated"},
    without_gradient: {
        "M010": "the value requires no gradient, though the estimate does",
        "M009": "requires no gradient",
        "M011": "requires no gradient",
    },
    nmse: {"M008": "in another unitary basis"},
}
