"""The NMSE outside the safe range: exact scaling by powers of two, part by part."""

import torch
from torch import Tensor

from model.parts import largest_entries, part_norms, times_by_parts_, weighted

# Norms between 1 / SAFE and SAFE have squares and quotients far inside the range of their dtype.
SAFE = {torch.float32: 2.0**30, torch.float64: 2.0**250}
# An entry's error counts up to this multiple of the largest entry of the truth's part.
LARGEST_ERROR = 2.0**40


def needs_scaling(norms: Tensor, R_hat: Tensor, R_true: Tensor) -> bool:
    """Whether squares or quotients of the norms could leave the range of the dtype.

    Args:
        norms: of error and truth, real [2, 2, B], the diagonal and the off-diagonal part of each.
        R_hat, R_true: complex [B, N, N].
    """
    if not norms.numel() or _in_range(norms):
        return False
    # The norm of an error part without any error may be zero.
    tiny = norms[0] < 1 / SAFE[norms.dtype]
    rest = torch.where(tiny, torch.ones_like(norms[0]), norms[0])
    if not (_in_range(rest) and _in_range(norms[1])):
        return True
    return bool((largest_entries(R_hat - R_true)[tiny] != 0).any())


def _in_range(norms: Tensor) -> bool:
    # NaN propagates through aminmax and compares as False.
    safe = SAFE[norms.dtype]
    low, high = torch.aminmax(norms)
    return float(low) >= 1 / safe and float(high) <= safe


def scaled_values(
    R_hat: Tensor, R_true: Tensor, weights: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, and what the gradient needs, computed on scaled copies.

    Both matrices are multiplied by 2^-e, e the exponent of the truth's largest |re| or |im| in
    the part (diagonal, off-diagonal), before they are subtracted: nothing overflows, and the
    truth's norm is neither tiny nor huge. The error is scaled once more, by its own exponent,
    before it is squared.

    Args:
        R_hat, R_true: complex [B, N, N], contiguous.
        weights: of the diagonal and the off-diagonal part; their sum is 1.

    Returns:
        values, real [B]; norms of the scaled truth, real [2, B], as the slopes need them
        (infinite for a slope of 0); exponents e, int32 [2, B].
    """
    largest = largest_entries(R_true)
    weight = torch.tensor(weights, dtype=largest.dtype, device=largest.device)[:, None]
    counts = weight > 0
    zero = largest == 0
    all_zero = (zero | ~counts).all(0)
    # One part of the truth is zero, though it counts: the whole error over the whole truth.
    whole = (zero & counts).any(0) & ~all_zero
    # A part in which the truth is zero stands on the other part's scale; where the truth is zero
    # altogether the estimate gives the scale.
    yardstick = torch.where(zero, largest.flip(0), largest)
    yardstick = torch.where(all_zero, largest_entries(R_hat).amax(0), yardstick)
    exponents = _exponent(yardstick)

    error = scaled_error(R_hat, R_true, exponents)
    truth = times_powers_of_two(R_true, -exponents)
    (truth_norms,) = part_norms(truth)
    truth_norms = torch.where(whole, torch.linalg.vector_norm(truth_norms, dim=0), truth_norms)
    truth_norms = torch.where(zero & ~whole, torch.inf, truth_norms)

    own = _exponent(largest_entries(error))
    own = torch.where(whole, own.amax(0), own)
    (error_norms,) = part_norms(times_powers_of_two(error, -own))
    error_norms = torch.where(whole, torch.linalg.vector_norm(error_norms, dim=0), error_norms)
    parts = torch.ldexp((error_norms / truth_norms).square(), 2 * own)
    values = weighted(parts, *weights)

    wrong = (counts & (error_norms > 0)).any(0).to(values.dtype)
    values = torch.where(all_zero, wrong, values)
    # The slope of a part is 2 weight / norm^2; that of a whole is the same for both parts.
    truth_norms = torch.where(whole, truth_norms * weight.sqrt(), truth_norms)
    finite = torch.isfinite(R_hat).flatten(1).all(1) & torch.isfinite(R_true).flatten(1).all(1)
    values = torch.where(finite, values, torch.nan)
    truth_norms = torch.where(finite, truth_norms, torch.nan)
    return values, truth_norms, exponents


def scaled_error(R_hat: Tensor, R_true: Tensor, exponents: Tensor) -> Tensor:
    """`2^-e (R_hat - R_true)`, an entry of R_hat cut at 2^40: complex [B, N, N]."""
    estimate = _clamped(times_powers_of_two(R_hat, -exponents), LARGEST_ERROR)
    return estimate - times_powers_of_two(R_true, -exponents)


def unscaled(gradient: Tensor, exponents: Tensor) -> Tensor:
    """The gradient with respect to the scaled error, as one with respect to R_hat.

    `2^-e` times the gradient, cut at the largest number of the dtype.

    Args:
        gradient: complex [B, N, N].
        exponents: int32 [2, B], of the diagonal and the off-diagonal part.
    """
    limit = torch.finfo(gradient.real.dtype).max
    return _clamped(times_powers_of_two(gradient, -exponents), limit)


def times_powers_of_two(R: Tensor, exponents: Tensor) -> Tensor:
    """Diagonal times 2^exponents[0], the rest times 2^exponents[1]: complex [B, N, N].

    In two half steps, so that no factor overflows or goes subnormal.
    """
    one = torch.ones_like(exponents, dtype=R.real.dtype)
    half = torch.div(exponents, 2, rounding_mode="floor")
    once = times_by_parts_(R.clone(), torch.ldexp(one, half))
    return times_by_parts_(once, torch.ldexp(one, exponents - half))


def _clamped(R: Tensor, limit: float) -> Tensor:
    return torch.view_as_complex(torch.view_as_real(R).clamp(-limit, limit))


def _exponent(values: Tensor) -> Tensor:
    return torch.frexp(values).exponent
