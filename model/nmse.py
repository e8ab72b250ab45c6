"""The scale-invariant NMSE of a covariance estimate.

Norms of the error and of the truth, over the diagonal and over the off-diagonal entries, are all
that the value needs. The error is never kept: it is computed a few samples at a time, while they
are in the cache, once for the value and once more into the gradient. Where a norm is so large or
small that its square could leave the range of the dtype, the same computation runs on copies scaled
by powers of two (`model.scaling`), which changes no bit of a result that the common case can hold.
"""

import inspect
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.parts import (
    combined_norms,
    largest_entries,
    off_diagonal_runs,
    times_by_parts,
    weighted,
)
from model.scaling import scaled_error, scaled_values, unscaled
from model.validate import COVARIANCE_DTYPES, require_number

# Norms between 1 / SAFE and SAFE have squares and quotients far inside the range of their dtype.
SAFE = {torch.float32: 2.0**30, torch.float64: 2.0**250}
HUGE_PAGES_FROM = 4 * 2**20
CHUNK_BYTES = 2**19
NUMPY_DTYPE = {torch.complex64: np.complex64, torch.complex128: np.complex128}

Dims = tuple[int | None, ...]
Reduction = Literal["none", "mean", "sum"]


def nmse(
    R_hat: Tensor,
    R_true: Tensor,
    *,
    w_diag: float = 0.2,
    w_off: float = 0.8,
    reduction: Reduction = "none",
) -> Tensor:
    """Error energy over truth energy, the diagonal and the off-diagonal part each by its own.

    `(w_diag E_d/T_d + w_off E_o/T_o) / (w_diag + w_off)`, where E is the energy of
    `R_hat - R_true` and T the energy of `R_true` in the same part. No constant stands in a
    denominator: for a power of two c the value for (c R_hat, c R_true) is the same bit for bit.

    At the edges, all of them scale-invariant:

    - Where a part of the truth is zero (the off-diagonal part of a diagonal truth), the whole
      error is measured against the whole truth: the zero estimate has 1 there as everywhere. A
      part of weight 0 doesn't count. At N = 1 the diagonal is all there is.
    - A truth that is zero altogether gives 1, or 0 if the estimate is zero too; the gradient is 0.
    - An entry's error counts up to 2^40 times the largest entry of the truth's part, so the value
      is bounded; a gradient beyond the largest number of the dtype is cut there.
    - NaN or Inf in a sample gives NaN for that sample, value and gradient, and for no other.

    Args:
        R_hat, R_true: complex64 or complex128 [..., N, N], of one shape and dtype.
        w_diag, w_off: weights of the two parts; not negative, not both zero.
        reduction: "none" gives a value a sample, "mean" and "sum" reduce over all samples.

    Returns:
        real [...], or [] if reduced. Differentiable twice with respect to R_hat (it is quadratic),
        also under `torch.func.grad` and `vmap`; a third derivative raises.

    Raises:
        TypeError: real or half-precision input, dtypes that differ.
        ValueError: shapes that differ or aren't square, weights out of range, an unknown
            reduction, a truth that requires a gradient.
    """
    _refuse(R_hat, R_true, w_diag, w_off, reduction)
    N = R_true.shape[-1]
    samples = R_true.shape[:-2]
    if N == 1:
        w_diag, w_off = 1.0, 0.0
    total = w_diag + w_off
    batched = R_true.ndim == 3  # the common case makes do without views
    values: Tensor = _Nmse.apply(  # type: ignore[no-untyped-call]
        R_hat if batched else R_hat.reshape(-1, N, N),
        R_true if batched else R_true.reshape(-1, N, N),
        w_diag / total,
        w_off / total,
    )[0]
    if not batched:
        values = values.reshape(samples)
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


class _Nmse(torch.autograd.Function):
    """(R_hat, R_true [B, N, N], weights that sum to 1) -> values [B], and what backward needs."""

    @staticmethod
    def forward(
        R_hat: Tensor, R_true: Tensor, w_diag: float, w_off: float
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        R_hat, R_true = _plain(R_hat), _plain(R_true)
        norms = _norms(R_hat, R_true)
        if norms.numel() and not (_in_range(norms) or _exact_zeros(norms, R_hat, R_true)):
            return scaled_values(R_hat, R_true, (w_diag, w_off))
        ratios = (norms[:2] / norms[2:]).square_()
        return weighted(ratios, w_diag, w_off), norms[2:], None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        R_hat, R_true, *ctx.weights = inputs
        _, truth_norms, exponents = output
        ctx.save_for_backward(R_hat, R_true, truth_norms, exponents)
        ctx.mark_non_differentiable(*(t for t in output[1:] if t is not None))
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, None, None, None]:
        if grad is None:
            return None, None, None, None
        return _Gradient.apply(grad, *ctx.saved_tensors, *ctx.weights), None, None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[tuple[Tensor | None, ...], Dims]:
        values, truth_norms, exponents = _Nmse.apply(*_folded(info, in_dims, inputs))  # type: ignore[no-untyped-call]
        return (
            _unfolded(info, values, 0),
            _unfolded(info, truth_norms, 1),
            None if exponents is None else _unfolded(info, exponents, 1),
        ), (0, 1, None if exponents is None else 1)


class _Gradient(torch.autograd.Function):
    """The gradient of `_Nmse`; a Function of its own because vmap meets it by itself."""

    @staticmethod
    def forward(
        grad: Tensor,
        R_hat: Tensor,
        R_true: Tensor,
        truth_norms: Tensor,
        exponents: Tensor | None,
        w_diag: float,
        w_off: float,
    ) -> Tensor:
        R_hat, R_true = _plain(R_hat), _plain(R_true)
        slopes = _slopes(truth_norms, w_diag, w_off).mul_(grad)
        if exponents is not None:
            error = scaled_error(R_hat, R_true, exponents)
            return unscaled(times_by_parts(error, slopes, out=torch.empty_like(error)), exponents)
        gradient = _empty_like(R_hat)
        entries, off_slopes = torch.view_as_real(gradient), slopes[1, :, None, None, None]
        for part in _chunks(R_hat):
            torch.sub(R_hat[part], R_true[part], out=gradient[part])
            entries[part].mul_(off_slopes[part])
        hat, true, target = (R.diagonal(dim1=1, dim2=2) for R in (R_hat, R_true, gradient))
        torch.sub(hat, true, out=target).mul_(slopes[0, :, None])
        return gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.weights = inputs[5:]
        ctx.save_for_backward(*inputs[:5])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad, R_hat, R_true, truth_norms, exponents = ctx.saved_tensors
        # The gradient is linear in R_hat and in grad: the second order is the gradient's own form.
        inner = _Gradient.forward(
            torch.ones_like(grad), R_hat, R_true, truth_norms, exponents, *ctx.weights
        )
        products = torch.view_as_real(inner) * torch.view_as_real(_plain(upstream))
        slopes = _slopes(truth_norms, *ctx.weights).mul_(grad)
        outer = _plain(upstream)
        if exponents is not None:
            outer = unscaled(outer, exponents)
        outer = times_by_parts(outer, slopes, out=torch.empty_like(outer))
        if exponents is not None:
            outer = unscaled(outer, exponents)
        return products.sum((1, 2, 3)), outer, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[Tensor, int]:
        gradient: Tensor = _Gradient.apply(*_folded(info, in_dims, inputs, parts=(3, 4)))  # type: ignore[no-untyped-call]
        return _unfolded(info, gradient, 0), 0


# Function.apply binds its arguments anew at every call; a signature that is there already saves an
# eighth of the time of a small step.
for _function in (_Nmse, _Gradient):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010  # mypy knows no such attribute


def _slopes(truth_norms: Tensor, w_diag: float, w_off: float) -> Tensor:
    """`2 w / ||truth||^2` of each part: d value / d error is the slope times the error."""
    slopes = truth_norms.square().reciprocal_()
    slopes[0].mul_(2 * w_diag)
    slopes[1].mul_(2 * w_off)
    return slopes


def _folded(info: Any, in_dims: Dims, inputs: tuple[Any, ...], parts: Dims = ()) -> list[Any]:
    """Inputs with the mapped dimension folded into the batch, which is dimension 1 of `parts`."""
    folded = []
    for number, (value, dim) in enumerate(zip(inputs, in_dims, strict=True)):
        if not isinstance(value, Tensor):
            folded.append(value)
            continue
        batch = 1 if number in parts else 0
        mapped = (
            value.movedim(dim, 0)
            if dim is not None
            else value.expand(info.batch_size, *value.shape)
        )
        folded.append(mapped.movedim(0, batch).flatten(batch, batch + 1))
    return folded


def _unfolded(info: Any, value: Tensor, batch: int) -> Tensor:
    return value.reshape(*value.shape[:batch], info.batch_size, -1, *value.shape[batch + 1 :])


def _plain(R: Tensor) -> Tensor:
    return R.resolve_conj().contiguous()


def _chunks(R: Tensor) -> Iterator[slice]:
    """Slices of the batch that fit into the cache of a core together with their error."""
    samples = len(R) if R.device.type != "cpu" else max(1, CHUNK_BYTES * len(R) // (R.nbytes or 1))
    return (slice(start, start + samples) for start in range(0, len(R), max(1, samples)))


def _norms(R_hat: Tensor, R_true: Tensor) -> Tensor:
    """Norms of error and truth: real [4, B], diagonal and off-diagonal part of each."""
    B, N, _ = R_true.shape
    run_norms = R_true.real.new_empty(2, B, N - 1)
    runs = off_diagonal_runs(R_true)
    error, error_runs = None, runs
    for part in _chunks(R_true):
        if error is None:  # the first chunk is the largest
            error = torch.empty_like(R_true[part])
            error_runs = off_diagonal_runs(error)
        count = len(R_true[part])
        torch.sub(R_hat[part], R_true[part], out=error[:count])
        torch.linalg.vector_norm(error_runs[:count], dim=2, out=run_norms[0, part])
        torch.linalg.vector_norm(runs[part], dim=2, out=run_norms[1, part])
    hat, true = (R.diagonal(dim1=1, dim2=2) for R in (R_hat, R_true))
    return combined_norms(torch.stack([hat - true, true]), run_norms).flatten(0, 1)


def _empty_like(R: Tensor) -> Tensor:
    """An uninitialised tensor like R.

    The allocator of the C library hands large blocks back to the system at every free, so each
    step pays a page fault every 4 KiB again. numpy asks for huge pages, which makes a fresh
    block of 40 MB four times as fast to write.
    """
    if R.device.type != "cpu" or R.nbytes < HUGE_PAGES_FROM:
        return torch.empty_like(R)
    return torch.from_numpy(np.empty(R.shape, NUMPY_DTYPE[R.dtype]))


def _in_range(norms: Tensor) -> bool:
    # NaN propagates through aminmax and compares as False.
    safe = SAFE[norms.dtype]
    low, high = torch.aminmax(norms)
    return float(low) >= 1 / safe and float(high) <= safe


def _exact_zeros(norms: Tensor, R_hat: Tensor, R_true: Tensor) -> bool:
    """Whether the only norms out of range are those of error parts without any error."""
    tiny = norms[:2] < 1 / SAFE[norms.dtype]
    rest = torch.where(tiny, torch.ones_like(norms[:2]), norms[:2])
    if not (_in_range(rest) and _in_range(norms[2:])):
        return False
    return bool((largest_entries(R_hat - R_true)[tiny] == 0).all())


def _refuse(
    R_hat: Tensor, R_true: Tensor, w_diag: float, w_off: float, reduction: Reduction
) -> None:
    require_number("w_diag", w_diag, 0.0, 1e6)
    require_number("w_off", w_off, 0.0, 1e6)
    if w_diag + w_off == 0:
        raise ValueError("w_diag=0 and w_off=0: at least one of them must be above 0")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction={reduction!r}: admissible are 'none', 'mean', 'sum'")
    if R_hat.shape != R_true.shape:
        raise ValueError(f"R_hat {list(R_hat.shape)} and R_true {list(R_true.shape)} must agree")
    if R_true.ndim < 2 or R_true.shape[-1] != R_true.shape[-2] or R_true.shape[-1] == 0:
        raise ValueError(f"R_true has shape {list(R_true.shape)}: expected [..., N, N], N >= 1")
    if R_hat.dtype != R_true.dtype or R_true.dtype not in COVARIANCE_DTYPES:
        raise TypeError(
            f"R_hat is {R_hat.dtype} and R_true {R_true.dtype}: admissible are torch.complex64 "
            "and torch.complex128, the same for both"
        )
    if R_true.requires_grad:
        raise ValueError("R_true requires a gradient, nmse has none for it: pass R_true.detach()")
