"""Candidates for the kernel on CUDA, to be measured against the eager form.

`fused` makes one pass over the data forward and one backward, compiled: real arithmetic on (re,
im), as `torch.compile` falls back on complex operations; the diagonal told by indices, so that no
mask is read; sums in float64, so that complex64 needs no scale. `looking` is what the kernel does
on the CPU: it reads two norms back, so the host waits for the device, and moves less.

Neither has the edges of `model.nmse` (parts of the truth that are zero), which change one number
a sample, nor a second order: what wins gets them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.parts import part_norms, times_by_parts_, weighted
from model.scaling import needs_scaling

W_DIAG, W_OFF = 0.2, 0.8
Compiled = Callable[..., Any]


def energies(hat: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Energies of error and truth, float64 [2, B] each, of real [B, N, N, 2]."""
    diagonal = _diagonal(hat)
    squares = ((hat.double() - true.double()).square(), true.double().square())
    error, truth = (
        torch.stack([torch.where(part, s, 0.0).sum((1, 2, 3)) for part in (diagonal, ~diagonal)])
        for s in squares
    )
    return error, truth


def slope(hat: Tensor, true: Tensor, slopes: Tensor) -> Tensor:
    """The error times the slope of its part: real [B, N, N, 2], slopes float64 [2, B]."""
    error = hat.double() - true.double()
    diagonal, off_diagonal = slopes[:, :, None, None, None].unbind()
    return torch.where(_diagonal(hat), error * diagonal, error * off_diagonal).to(hat.dtype)


def _diagonal(R: Tensor) -> Tensor:
    index = torch.arange(R.shape[1], device=R.device)
    return (index[:, None] == index)[None, :, :, None]


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, R_hat: Tensor, R_true: Tensor, forward: Compiled, backward: Compiled
    ) -> Tensor:
        error, truth = forward(torch.view_as_real(R_hat), torch.view_as_real(R_true))
        ctx.save_for_backward(R_hat, R_true, truth)
        ctx.compiled = backward
        values: Tensor = W_DIAG * error[0] / truth[0] + W_OFF * error[1] / truth[1]
        return values.to(R_true.real.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        R_hat, R_true, truth = ctx.saved_tensors
        weights = truth.reciprocal() * (2 * grad.double())
        slopes = torch.stack([W_DIAG * weights[0], W_OFF * weights[1]])
        gradient = ctx.compiled(torch.view_as_real(R_hat), torch.view_as_real(R_true), slopes)
        return torch.view_as_complex(gradient), None, None, None


def fused(*, compiled: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
    """(R_hat, R_true complex64 [B, N, N]) -> values [B]; compiled anew for every shape."""
    passes: list[Compiled] = [energies, slope]
    if compiled:
        passes = [torch.compile(one, dynamic=False, fullgraph=True) for one in passes]
    forward, backward = passes

    def nmse(R_hat: Tensor, R_true: Tensor) -> Tensor:
        values: Tensor = _Fused.apply(R_hat, R_true, forward, backward)  # type: ignore[no-untyped-call]
        return values

    return nmse


class _Looking(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, R_hat: Tensor, R_true: Tensor) -> Tensor:
        error = R_hat - R_true
        norms = part_norms(error, R_true)
        if needs_scaling(norms, R_hat, R_true):
            raise ValueError("the candidate is for norms in the safe range")
        ctx.error, ctx.truth = error, norms[1]
        return weighted((norms[0] / norms[1]).square_(), W_DIAG, W_OFF)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.truth.square().reciprocal_().mul_(2 * grad)
        slopes[0].mul_(W_DIAG)
        slopes[1].mul_(W_OFF)
        return times_by_parts_(ctx.error, slopes), None


def looking(R_hat: Tensor, R_true: Tensor) -> Tensor:
    """(R_hat, R_true complex [B, N, N]) -> values [B]; one backward pass.

    Raises:
        ValueError: a norm outside of the range in which nothing is scaled.
    """
    values: Tensor = _Looking.apply(R_hat, R_true)  # type: ignore[no-untyped-call]
    return values
