"""The NMSE over the whole range of its dtype: exact scaling by powers of two, part by part.

No number is read back to the host, so it waits for no device. On the CPU, where a look is free, it
is for what leaves the safe range alone; on other devices it is the only computation.
"""

import torch
from torch import Tensor

from model.parts import (
    largest_entries,
    off_diagonal_runs,
    part_norms,
    times_by_parts_,
    weighted,
)

# Norms between 1 / SAFE and SAFE have squares and quotients far inside the range of their dtype.
SAFE = {torch.float32: 2.0**30, torch.float64: 2.0**250}
# An entry's error counts up to this multiple of the largest entry of the truth's part.
LARGEST_ERROR = 2.0**40
# Scales are 2^-e with |e| up to this, the range of exponents of normal numbers both ways.
LARGEST_EXPONENT = {torch.float32: 126, torch.float64: 1022}


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, and what the gradient needs, computed on scaled copies.

    Both matrices are multiplied by 2^-e, e the exponent of the truth's largest |re| or |im| in
    the part (diagonal, off-diagonal), before they are subtracted: nothing overflows, and the
    truth's norm is neither tiny nor huge.

    Args:
        R_hat, R_true: complex [B, N, N], contiguous.
        weights: of the diagonal and the off-diagonal part; their sum is 1.

    Returns:
        values, real [B]; norms of the scaled truth, real [2, B], as the slopes need them
        (infinite for a slope of 0); exponents e, int32 [2, B]; the scaled error, [B, N, N].
    """
    largest, largest_hat = largest_entries(R_true), largest_entries(R_hat)
    # Filled on the device: a tensor of host numbers would be copied there.
    weight = torch.stack([largest.new_full((1,), w) for w in weights])
    counts = weight > 0
    zero = largest == 0
    all_zero = (zero | ~counts).all(0)
    # One part of the truth is zero, though it counts: the whole error over the whole truth.
    whole = (zero & counts).any(0) & ~all_zero
    # A part in which the truth is zero stands on the other part's scale; where the truth is zero
    # altogether the estimate gives the scale.
    yardstick = torch.where(zero, largest.flip(0), largest)
    yardstick = torch.where(all_zero & zero, largest_hat, yardstick)
    limit = LARGEST_EXPONENT[largest.dtype]
    exponents = torch.frexp(yardstick).exponent.clamp(-limit, limit)

    # One tensor of the input's size: first the truth, negated, then the error.
    factors = _powers_of_two(-exponents, largest.dtype)
    scaled = _times(R_true, -factors)
    (truth_norms,) = part_norms(scaled)
    error = _add_estimate_(scaled, R_hat, factors)
    (error_norms,) = part_norms(error)

    # A slope is 2 weight / norm^2; that of a whole is the same for both parts. A part that doesn't
    # count has no scale of its own where the rest is zero: its norm may have no square.
    both = torch.linalg.vector_norm(truth_norms, dim=0)
    without = zero | ~counts
    truth_norms = torch.where(whole, both, torch.where(without, torch.inf, truth_norms))
    error_norms = torch.where(whole, torch.linalg.vector_norm(error_norms, dim=0), error_norms)
    values = weighted((error_norms / truth_norms).square(), *weights)

    wrong = (counts & (error_norms > 0)).any(0).to(values.dtype)
    values = torch.where(all_zero, wrong, values)
    truth_norms = torch.where(whole, truth_norms * weight.sqrt(), truth_norms)
    finite = (largest.isfinite() & largest_hat.isfinite()).all(0)
    values = torch.where(finite, values, torch.nan)
    truth_norms = torch.where(finite, truth_norms, torch.nan)
    return values, truth_norms, exponents, error


def scaled_error(R_hat: Tensor, R_true: Tensor, exponents: Tensor) -> Tensor:
    """`2^-e (R_hat - R_true)`, an entry cut at 2^40: complex [B, N, N]."""
    factors = _powers_of_two(-exponents, R_true.real.dtype)
    return _add_estimate_(_times(R_true, -factors), R_hat, factors)


def unscaled(gradient: Tensor, exponents: Tensor) -> Tensor:
    """The gradient with respect to the scaled error, as one with respect to R_hat.

    `2^-e` times the gradient, cut at the largest number of the dtype.

    Args:
        gradient: complex [B, N, N].
        exponents: int32 [2, B], of the diagonal and the off-diagonal part.
    """
    factors = _powers_of_two(-exponents, gradient.real.dtype)
    entries = torch.view_as_real(times_by_parts_(gradient.clone(), factors))
    largest = torch.finfo(entries.dtype).max
    return torch.view_as_complex(entries.clamp(-largest, largest))


def unscaled_(gradient: Tensor, exponents: Tensor) -> Tensor:
    """The same, overwritten; neither differentiable nor under `vmap`."""
    factors = _powers_of_two(-exponents, gradient.real.dtype)
    entries = torch.view_as_real(times_by_parts_(gradient, factors))
    largest = torch.finfo(entries.dtype).max
    entries.clamp_(-largest, largest)
    return gradient


def _times(R: Tensor, factors: Tensor) -> Tensor:
    """The diagonal times factors[0], the rest times factors[1]: a new tensor, complex [B, N, N]."""
    diagonal, off_diagonal = factors[..., None, None].unbind()
    product = torch.empty_like(R)
    torch.mul(off_diagonal_runs(R), off_diagonal, out=off_diagonal_runs(product))
    torch.view_as_real(product.diagonal(dim1=1, dim2=2)).copy_(
        torch.view_as_real(R.diagonal(dim1=1, dim2=2)) * diagonal
    )
    return product


def _add_estimate_(negated: Tensor, R_hat: Tensor, factors: Tensor) -> Tensor:
    """`factors R_hat` added to the negated truth, cut at 2^40: the error, in the truth's place."""
    diagonal, off_diagonal = factors[..., None, None].unbind()
    off_diagonal_runs(negated).addcmul_(off_diagonal_runs(R_hat), off_diagonal)
    entries = torch.view_as_real(R_hat.diagonal(dim1=1, dim2=2))
    torch.view_as_real(negated.diagonal(dim1=1, dim2=2)).addcmul_(entries, diagonal)
    torch.view_as_real(negated).clamp_(-LARGEST_ERROR, LARGEST_ERROR)
    return negated


def _powers_of_two(exponents: Tensor, dtype: torch.dtype) -> Tensor:
    """2^e exactly, of exponents between those of normal numbers: put together from its bits.

    A device's pow() may be off in the last place.
    """
    if dtype == torch.float32:
        return ((exponents + 127) << 23).to(torch.int32).view(dtype)
    return ((exponents.to(torch.int64) + 1023) << 52).view(dtype)
