"""The scale-invariant NMSE of a covariance estimate."""

import torch
from torch import Tensor

from model.validate import require_number


def nmse(R_hat: Tensor, R_true: Tensor, *, w_diag: float = 0.2, w_off: float = 0.8) -> Tensor:
    """Error energy over truth energy, the diagonal and the off-diagonal part each by its own.

    `(w_diag E_d/T_d + w_off E_o/T_o) / (w_diag + w_off)`, where E is the energy of
    `R_hat - R_true` and T the energy of `R_true` in the same part. No constant stands in a
    denominator (an absolute one is neither scale-invariant nor safe): both matrices are divided
    by the same power of two, taken from the truth. A part in which the truth is zero (the
    off-diagonal part of a diagonal truth) is measured against the truth's whole energy; against
    a truth that is zero altogether the value is 1, or 0 if the estimate is zero too.

    Args:
        R_hat, R_true: complex64 or complex128 [B, N, N].
        w_diag, w_off: weights of the two parts; not negative, not both zero.

    Returns:
        real [B]; differentiable with respect to R_hat.

    Raises:
        ValueError: weights out of range, shapes that differ.
    """
    require_number("w_diag", w_diag, 0.0, 1e6)
    require_number("w_off", w_off, 0.0, 1e6)
    if w_diag + w_off == 0:
        raise ValueError("w_diag=0 and w_off=0: at least one of them must be above 0")
    if R_hat.shape != R_true.shape:
        raise ValueError(f"R_hat {list(R_hat.shape)} and R_true {list(R_true.shape)} must agree")
    size = torch.view_as_real(R_true.resolve_conj()).abs().flatten(1).amax(1)
    _, exponent = torch.frexp(size)
    R_hat, R_true = _times_power_of_two(R_hat, -exponent), _times_power_of_two(R_true, -exponent)

    error_diag, error_off = _energies(R_hat - R_true)
    truth_diag, truth_off = _energies(R_true)
    whole = truth_diag + truth_off
    # With a zero truth the error itself is the yardstick: 1, whatever the scale.
    whole = torch.where(whole > 0, whole, (error_diag + error_off).detach())
    whole = torch.where(whole > 0, whole, torch.ones_like(whole))
    diag = error_diag / torch.where(truth_diag > 0, truth_diag, whole)
    off = error_off / torch.where(truth_off > 0, truth_off, whole)
    return (w_diag * diag + w_off * off) / (w_diag + w_off)


def _times_power_of_two(R: Tensor, exponent: Tensor) -> Tensor:
    """`R * 2^exponent` exactly, in two half steps so that no factor overflows."""
    half = torch.div(exponent, 2, rounding_mode="floor")
    one = torch.ones_like(exponent, dtype=R.real.dtype)
    first, second = torch.ldexp(one, half), torch.ldexp(one, exponent - half)
    return R * first[:, None, None] * second[:, None, None]


def _energies(R: Tensor) -> tuple[Tensor, Tensor]:
    """Energy of the diagonal and of the off-diagonal part: real [B] each."""
    B, N, _ = R.shape
    parts = torch.view_as_real(R.resolve_conj().contiguous())
    diag = parts.diagonal(dim1=1, dim2=2).square().sum((1, 2))
    # Rows of N + 1 entries starting behind the first diagonal entry end with a diagonal entry.
    off = parts.flatten(1, 2)[:, 1:].reshape(B, N - 1, N + 1, 2)[:, :, :-1]
    return diag, off.square().sum((1, 2, 3))
