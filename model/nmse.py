"""The scale-invariant NMSE of a covariance estimate.

Norms of the error and of the truth, over the diagonal and over the off-diagonal entries, are all
that the value needs. The gradient is the error times a slope a part: the error is the only tensor
of the input's size, and the first backward pass turns it into the gradient where it lies. Without
a backward pass to come it is computed a few samples at a time, while they are in the cache. Where a
norm is so large or small that its square could leave the range of the dtype, the same computation
runs on copies scaled by powers of two (`model.scaling`), which changes no bit of a result that the
common case can hold. On other devices than the CPU it always does: to look at a norm would make the
host wait for the device in every step. Large complex64 batches on CUDA have a compiled form of
their own (`model.fused`), with the same edges.
"""

import inspect
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model import fused
from model.parts import (
    combined_norms,
    part_norms,
    run_norms,
    times_by_parts_,
    weighted,
)
from model.scaling import needs_scaling, scaled_error, scaled_values, unscaled, unscaled_
from model.validate import COVARIANCE_DTYPES, require_number

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
        real [...], or [] if reduced. Differentiable with respect to R_hat, to any order, also under
        `torch.func.grad` and `vmap`.

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
    arguments = (
        R_hat if batched else R_hat.reshape(-1, N, N),
        R_true if batched else R_true.reshape(-1, N, N),
        w_diag / total,
        w_off / total,
    )
    values: Tensor
    if fused.pays(R_true) and not _transformed():
        values = _FusedNmse.apply(*arguments)  # type: ignore[no-untyped-call]
    elif R_hat.requires_grad and torch.is_grad_enabled() and not _transformed():
        values = _KeptNmse.apply(*arguments)  # type: ignore[no-untyped-call]
    else:
        values = _Nmse.apply(*arguments)[0]  # type: ignore[no-untyped-call]
    if not batched:
        values = values.reshape(samples)
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" else values.sum()


class _KeptNmse(torch.autograd.Function):
    """(R_hat, R_true [B, N, N], weights that sum to 1) -> values [B], outside of `torch.func`.

    Keeps the error for the first backward pass, which takes it and makes the gradient of it in
    place. A later one finds no error and computes it anew.
    """

    @staticmethod
    def forward(ctx: Any, R_hat: Tensor, R_true: Tensor, w_diag: float, w_off: float) -> Tensor:
        ctx.weights = w_diag, w_off
        hat, true = _plain(R_hat), _plain(R_true)
        error = torch.sub(hat, true, out=_empty_like(hat)) if _may_look(true) else None
        norms = None if error is None else part_norms(error, true)
        values, truth_norms, exponents, scaled = _values(hat, true, norms, ctx.weights)
        ctx.error = error if scaled is None else scaled
        ctx.save_for_backward(R_hat, R_true, truth_norms, exponents)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        if ctx.error is None or torch.is_grad_enabled() or _transformed():
            return _Gradient.apply(grad, *ctx.saved_tensors, *ctx.weights), None, None, None  # type: ignore[no-untyped-call]
        _, _, truth_norms, exponents = ctx.saved_tensors
        slopes = _slopes(truth_norms, *ctx.weights).mul_(grad)
        error, ctx.error = ctx.error, None
        gradient = times_by_parts_(error, slopes)
        if exponents is not None:
            unscaled_(gradient, exponents)
        return gradient, None, None, None


class _FusedNmse(torch.autograd.Function):
    """The same by the compiled passes of `model.fused`; complex64, outside of `torch.func`."""

    @staticmethod
    def forward(ctx: Any, R_hat: Tensor, R_true: Tensor, w_diag: float, w_off: float) -> Tensor:
        ctx.weights = w_diag, w_off
        # Detached: a graph is compiled anew for an input that requires a gradient.
        hat, true = (torch.view_as_real(_plain(R.detach())) for R in (R_hat, R_true))
        error, truth, limits = fused.compiled(fused.energies)(hat, true)
        values, slopes = fused.values(error, truth, ctx.weights)
        ctx.save_for_backward(R_hat, R_true, slopes, limits)
        return values.to(true.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        R_hat, R_true, slopes, limits = ctx.saved_tensors
        if torch.is_grad_enabled() or _transformed():
            # The second order is the eager one.
            plain = _plain(R_hat.detach()), _plain(R_true)
            _, *kept, _ = scaled_values(*plain, ctx.weights)
            return _Gradient.apply(grad, R_hat, R_true, *kept, *ctx.weights), None, None, None  # type: ignore[no-untyped-call]
        hat, true = (torch.view_as_real(_plain(R.detach())) for R in (R_hat, R_true))
        gradient = fused.compiled(fused.gradient)(hat, true, slopes * grad, limits)
        return torch.view_as_complex(gradient), None, None, None


class _Nmse(torch.autograd.Function):
    """The same inside of `torch.func`, and where no gradient is wanted; it keeps no error.

    Returns the values [B], and for backward the truth's norms [2, B] and exponents [2, B] or None.
    """

    @staticmethod
    def forward(
        R_hat: Tensor, R_true: Tensor, w_diag: float, w_off: float
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        R_hat, R_true = _plain(R_hat), _plain(R_true)
        norms = _norms_by_chunks(R_hat, R_true) if _may_look(R_true) else None
        return _values(R_hat, R_true, norms, (w_diag, w_off))[:3]

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
    """The gradient, of an error computed anew. A Function: vmap and a second order meet it."""

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
        if exponents is None:
            error = torch.sub(R_hat, R_true, out=_empty_like(R_hat))
            return times_by_parts_(error, slopes)
        error = scaled_error(R_hat, R_true, exponents)
        return unscaled_(times_by_parts_(error, slopes), exponents)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.weights = inputs[5:]
        ctx.save_for_backward(*inputs[:5])

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        grad, R_hat, R_true, truth_norms, exponents = ctx.saved_tensors
        # The gradient is linear in R_hat and in grad: the second order is the gradient's own form.
        inner: Tensor = _Gradient.apply(  # type: ignore[no-untyped-call]
            torch.ones_like(grad), R_hat, R_true, truth_norms, exponents, *ctx.weights
        )
        products = torch.view_as_real(inner) * torch.view_as_real(_plain(upstream))
        slopes = _slopes(truth_norms, *ctx.weights).mul_(grad)
        outer = _plain(upstream)
        if exponents is not None:
            outer = unscaled(outer, exponents)
        outer = times_by_parts_(outer.clone(), slopes)
        if exponents is not None:
            outer = unscaled(outer, exponents)
        return products.sum((1, 2, 3)), outer, None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Dims, *inputs: Any) -> tuple[Tensor, int]:
        gradient: Tensor = _Gradient.apply(*_folded(info, in_dims, inputs, parts=(3, 4)))  # type: ignore[no-untyped-call]
        return _unfolded(info, gradient, 0), 0


# With a setup_context, Function.apply binds its arguments anew at every call; a signature that is
# there already saves an eighth of the time of a small evaluation.
for _function in (_Nmse, _Gradient):
    setattr(_function.forward, "__signature__", inspect.signature(_function.forward))  # noqa: B010  # mypy knows no such attribute


def _values(
    R_hat: Tensor, R_true: Tensor, norms: Tensor | None, weights: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Values [B], norms of the truth [2, B], and of a scale its exponents [2, B] and the error.

    Args:
        norms: real [2, 2, B], of error and truth; without them all is scaled.
    """
    if norms is None or needs_scaling(norms, R_hat, R_true):
        return scaled_values(R_hat, R_true, weights)
    error_norms, truth_norms = norms.unbind()
    values = weighted((error_norms / truth_norms).square_(), *weights)
    return values, truth_norms, None, None


def _may_look(R: Tensor) -> bool:
    """Whether a number can be read without waiting for a device."""
    return R.device.type == "cpu"


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


def _transformed() -> bool:
    """Whether a transform of `torch.func` runs: its tensors are wrapped, a kept error isn't."""
    return torch._C._are_functorch_transforms_active()


def _norms_by_chunks(R_hat: Tensor, R_true: Tensor) -> Tensor:
    """`part_norms` of error and truth, a few samples at a time, which fit into a core's cache."""
    samples = max(1, CHUNK_BYTES * len(R_true) // (R_true.nbytes or 1))
    error = torch.empty_like(R_true[:samples])  # the same memory for each chunk: it stays cached
    error_runs, true_runs = [], []
    for hat, true in zip(*(torch.split(R, samples) for R in (R_hat, R_true)), strict=True):
        error_runs.append(run_norms(torch.sub(hat, true, out=error[: len(hat)])))
        true_runs.append(run_norms(true))
    hat, true = (R.diagonal(dim1=1, dim2=2) for R in (R_hat, R_true))
    return combined_norms([hat - true, true], [torch.cat(error_runs), torch.cat(true_runs)])


def _empty_like(R: Tensor) -> Tensor:
    """An uninitialised tensor like R.

    The allocator of the C library hands large blocks back to the system at every free, so each
    step pays a page fault every 4 KiB again. numpy asks for huge pages, which makes a fresh
    block of 40 MB four times as fast to write.
    """
    if R.nbytes < HUGE_PAGES_FROM:
        return torch.empty_like(R)
    return torch.from_numpy(np.empty(R.shape, NUMPY_DTYPE[R.dtype]))


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
