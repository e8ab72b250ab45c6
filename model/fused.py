"""The NMSE of complex64 in few passes over the data, compiled: for large batches on CUDA.

Sums are in float64, which holds every square of a float32: nothing is scaled, nothing is read back
to the host, and no tensor of the input's size is made but the gradient. The truth is read for its
largest entries, both matrices for the energies, both again for the gradient. Real arithmetic on
(re, im), as the compiler falls back on complex operations; the diagonal is told by indices, so that
no mask is read. `model.scaling` is the same computation for any dtype, eager.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from model.scaling import LARGEST_ERROR

# Below, an eager step is bound by its forty launches rather than by the memory of a GPU.
LARGE_BYTES = 2**25
# What the compiler's back end for CUDA, Triton, asks of a GPU.
LEAST_CAPABILITY = (7, 0)


def pays(R: Tensor) -> bool:
    """Whether this form is there for R, complex [B, N, N], and worth its compilation.

    Not under modes of PyTorch: what watches or replaces operations is to see the eager ones.
    """
    return (
        R.device.type == "cuda"
        and R.dtype == torch.complex64
        and R.nbytes >= LARGE_BYTES
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
        and _compiles(R.device)
    )


@cache
def _compiles(device: torch.device) -> bool:
    found = importlib.util.find_spec("triton") is not None
    return found and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.compile` of `energies` or `gradient`, once a process; other sizes make it dynamic."""
    return torch.compile(function, fullgraph=True)


def energies(hat: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the value is made of.

    Args:
        hat, true: real [B, N, N, 2].

    Returns:
        Energies of the error and of the truth, and the limits at which an entry's error is cut:
        float64 [2, B] each, the diagonal and the off-diagonal part. Energies are finite where
        the entries are.
    """
    diagonal = _diagonal(hat)
    true64, hat64 = true.double(), hat.double()
    largest = _by_parts(diagonal, true64.abs(), lambda part: part.amax((1, 2, 3)))
    # A part in which the truth is zero stands on the other part's scale.
    yardstick = torch.where(largest == 0, largest.flip(0), largest)
    limits = LARGEST_ERROR * _power_of_two_above(yardstick)
    limits = torch.where(yardstick == 0, torch.inf, limits)
    error = _cut(hat64 - true64, diagonal, limits)
    error, truth = (
        _by_parts(diagonal, one.square(), lambda part: part.sum((1, 2, 3)))
        for one in (error, true64)
    )
    return error, truth, limits


def values(error: Tensor, truth: Tensor, weights: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Values, float64 [B], and slopes, float64 [2, B]: the gradient is the cut error times them.

    Args:
        error, truth: of `energies`.
        weights: of the diagonal and the off-diagonal part; their sum is 1.
    """
    broken = (error + truth).sum(0) * 0  # NaN where an entry isn't finite
    weight = torch.stack([truth.new_full((1,), w) for w in weights])
    counts, zero = weight > 0, truth == 0
    all_zero = (zero | ~counts).all(0)
    # One part of the truth is zero, though it counts: the whole error over the whole truth.
    whole = (zero & counts).any(0) & ~all_zero
    truth = torch.where(whole, truth.sum(0), torch.where(zero, torch.inf, truth))
    error = torch.where(whole, error.sum(0), error)
    share = torch.where(whole, 1.0, weight)  # one slope for both parts of a whole
    values = torch.where(
        all_zero, (counts & (error > 0)).any(0).double(), (weight * error / truth).sum(0)
    )
    return values + broken, 2 * share / truth + broken


def gradient(hat: Tensor, true: Tensor, slopes: Tensor, limits: Tensor) -> Tensor:
    """The cut error times the slope of its part, cut at the largest number of the dtype.

    Args:
        hat, true: real [B, N, N, 2].
        slopes, limits: float64 [2, B].
    """
    diagonal = _diagonal(hat)
    error = _cut(hat.double() - true.double(), diagonal, limits)
    largest = torch.finfo(hat.dtype).max
    return (error * _of_parts(diagonal, slopes)).clamp(-largest, largest).to(hat.dtype)


def _cut(error: Tensor, diagonal: Tensor, limits: Tensor) -> Tensor:
    bounds = _of_parts(diagonal, limits)
    cut = torch.maximum(torch.minimum(error, bounds), -bounds)
    return torch.where(error.isinf(), error, cut)


def _by_parts(diagonal: Tensor, entries: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([reduce(torch.where(part, entries, 0.0)) for part in (diagonal, ~diagonal)])


def _of_parts(diagonal: Tensor, numbers: Tensor) -> Tensor:
    on, off = numbers[:, :, None, None, None].unbind()
    return torch.where(diagonal, on, off)


def _diagonal(R: Tensor) -> Tensor:
    index = torch.arange(R.shape[1], device=R.device)
    return (index[:, None] == index)[None, :, :, None]


def _power_of_two_above(x: Tensor) -> Tensor:
    """The least power of two above x >= 0, by its bits; that of a normal float32 at least."""
    exponent = x.clamp(min=2.0**-127).view(torch.int64) >> 52
    return ((exponent + 1) << 52).view(torch.float64)
