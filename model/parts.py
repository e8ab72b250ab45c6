"""Diagonal and off-diagonal part of a batch of matrices, without masks or copies."""

import torch
from torch import Tensor


def off_diagonal_runs(R: Tensor) -> Tensor:
    """The off-diagonal entries as a view: complex [B, N, N], contiguous -> real [B, N - 1, 2 N].

    Behind the first diagonal entry, every run of N + 1 entries ends with a diagonal one: the rest
    is the off-diagonal part, without a subtraction that would lose its digits.
    """
    B, N, _ = R.shape
    strides = (2 * N * N, 2 * (N + 1), 1)
    return torch.view_as_real(R).as_strided((B, N - 1, 2 * N), strides, 2 * R.storage_offset() + 2)


def run_norms(R: Tensor) -> Tensor:
    """Norms of the off-diagonal runs: complex [B, N, N], contiguous -> real [B, N - 1].

    A norm a run keeps the reduction over the data on contiguous memory.
    """
    norms: Tensor = torch.linalg.vector_norm(off_diagonal_runs(R), dim=2)
    return norms


def combined_norms(diagonals: list[Tensor], runs: list[Tensor]) -> Tensor:
    """Frobenius norms of the diagonal and of the off-diagonal part: real [K, 2, B].

    Args:
        diagonals: of K matrices, complex [B, N].
        runs: their `run_norms`, real [B, N - 1].
    """
    diagonal = torch.view_as_real(torch.stack(diagonals)).flatten(2)
    norms = [torch.linalg.vector_norm(part, dim=2) for part in (diagonal, torch.stack(runs))]
    return torch.stack(norms, dim=1)


def part_norms(*matrices: Tensor) -> Tensor:
    """The norms of both parts of K matrices, complex [B, N, N], contiguous: real [K, 2, B]."""
    diagonals = [R.diagonal(dim1=1, dim2=2) for R in matrices]
    return combined_norms(diagonals, [run_norms(R) for R in matrices])


def times_by_parts_(R: Tensor, factors: Tensor) -> Tensor:
    """The diagonal times factors[0], the rest times factors[1]: R itself, overwritten.

    Args:
        R: complex [B, N, N], contiguous.
        factors: real [2, B].
    """
    # Real factors on real parts: a complex product would make NaN of Inf and 0.
    diagonal, off_diagonal = factors[..., None, None].unbind()
    off_diagonal_runs(R).mul_(off_diagonal)
    torch.view_as_real(R.diagonal(dim1=1, dim2=2)).mul_(diagonal)
    return R


def weighted(parts: Tensor, w_diag: float, w_off: float) -> Tensor:
    """`w_diag parts[0] + w_off parts[1]`, in one place so that it rounds in one way."""
    return (parts[0] * w_diag).add_(parts[1], alpha=w_off)


def largest_entries(R: Tensor) -> Tensor:
    """Largest |re| or |im| of the diagonal and of the off-diagonal entries: real [2, B].

    NaN where the part holds one. R: complex [B, N, N], contiguous; it is read once.
    """
    diagonal = torch.view_as_real(R.diagonal(dim1=1, dim2=2)).abs().amax((1, 2))
    runs = torch.linalg.vector_norm(off_diagonal_runs(R), ord=torch.inf, dim=2)
    off_diagonal = runs.amax(1) if runs.shape[1] else torch.zeros_like(diagonal)
    return torch.stack([diagonal, off_diagonal])
