"""Hypothesis strategies for covariance estimation; needs the extra `laws`.

Matrices are built from small whole numbers and then scaled by a power of two, so that a failing
example shrinks to something that a person can read. Tensors stay on the CPU: move them in the test.
"""

import numpy as np
import torch
from torch import Tensor

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ris_diag.strategies needs hypothesis: pip install 'ris-diag[laws]'", name=error.name
    ) from error

LARGEST_ENTRY = 3
MAX_SIZE, MAX_BATCH, MAX_SNAPSHOTS = 6, 3, 8
# Exponents of the scale for which all entries of these matrices, and their squares' products with
# each other in the tests, stay normal numbers of the dtype.
EXPONENTS = {torch.complex64: (-100, 100), torch.complex128: (-900, 900)}


def dtypes() -> st.SearchStrategy[torch.dtype]:
    """complex64 or complex128."""
    return st.sampled_from([torch.complex64, torch.complex128])


def exponents(low: int, high: int) -> st.SearchStrategy[int]:
    """Whole numbers from `low` to `high`, all alike often; shrinks to the smallest magnitude."""
    return st.sampled_from(sorted(range(low, high + 1), key=abs))


def scales(dtype: torch.dtype) -> st.SearchStrategy[float]:
    """Powers of two over nearly the whole range of a complex dtype; shrinks to 1."""
    return exponents(*EXPONENTS[dtype]).map(lambda exponent: 2.0**exponent)


@st.composite
def covariances(
    draw: st.DrawFn,
    *,
    size: int | None = None,
    batch: int | None = None,
    rank: int | None = None,
    condition: float | None = 1e3,
    dtype: torch.dtype = torch.complex128,
    scaled: bool = False,
) -> Tensor:
    """Hermitian positive semidefinite matrices: complex [B, N, N], none of them zero.

    `F F^H` with F of whole numbers, plus a share of the identity.

    Args:
        size: N; drawn from 1..6 if None.
        batch: B; drawn from 1..3 if None.
        rank: columns of F; drawn from 1..N if None.
        condition: bound of the condition number; None adds nothing to `F F^H`, whose rank is then
            at most `rank`.
        scaled: multiply by a power of two over the range of the dtype.
    """
    N = draw(st.integers(1, MAX_SIZE)) if size is None else size
    B = draw(st.integers(1, MAX_BATCH)) if batch is None else batch
    columns = draw(st.integers(1, N)) if rank is None else rank
    F = draw(_whole_numbers((B, N, columns)))
    empty = F.abs().flatten(1).amax(1) == 0
    F[empty, 0, 0] = 1
    R = F @ F.mH
    if condition is not None:
        largest = R.diagonal(dim1=1, dim2=2).real.sum(1)  # at least the largest eigenvalue
        R = R + (largest / condition)[:, None, None] * torch.eye(N)
    return _finished(draw, R, dtype, scaled)


@st.composite
def pairs(
    draw: st.DrawFn,
    *,
    size: int | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.complex128,
) -> tuple[Tensor, Tensor]:
    """An estimate and a truth, positive definite, of whole numbers: complex [B, N, N] each.

    The truth is never diagonal. The condition numbers are at most a few hundred.

    Args:
        size: N; drawn from 2..4 if None.
        batch: B; drawn from 1..3 if None.
    """
    N = draw(st.integers(2, 4)) if size is None else size
    B = draw(st.integers(1, MAX_BATCH)) if batch is None else batch

    def covariance() -> Tensor:
        F = draw(_whole_numbers((B, N, draw(st.integers(1, 2)))))
        return F @ F.mH + torch.eye(N)

    estimate, truth = covariance(), covariance()
    diagonal = (truth - torch.diag_embed(truth.diagonal(dim1=1, dim2=2))).abs().amax((1, 2)) == 0
    truth[diagonal] += torch.ones(N, N)
    return estimate.to(dtype), truth.to(dtype)


@st.composite
def differing_pairs(
    draw: st.DrawFn, *, size: int | None = None, batch: int | None = None
) -> tuple[Tensor, Tensor]:
    """As `pairs` of complex128; estimate and truth differ in every entry, in both of its parts.

    The imaginary part of the diagonal stays zero.
    """
    truth = draw(pairs(size=size, batch=batch))[1]
    B, N, _ = truth.shape
    nonzero = st.sampled_from([1, -1, 2, -2, 3, -3])
    parts = torch.from_numpy(draw(hnp.arrays(np.int64, (B, N, N, 2), elements=nonzero))).double()
    upper = torch.view_as_complex(parts).triu(1)
    # Large enough for the sum to stay positive definite: every row of `upper` is smaller.
    return truth + upper + upper.mH + 6 * N * torch.eye(N), truth


@st.composite
def unitaries(draw: st.DrawFn, *, size: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    """A reflection `I - 2 v v^H / v^H v` at a vector of whole numbers: complex [N, N]."""
    v = draw(_whole_numbers((size, 1)))
    v[-1] += (v.abs().amax() == 0).double()
    return (torch.eye(size) - 2 * v @ v.mH / v.abs().square().sum()).to(dtype)


def near_singular_covariances(
    *,
    size: int | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.complex128,
    scaled: bool = False,
) -> st.SearchStrategy[Tensor]:
    """Of rank 1 but for a share of 1e-6: complex [B, N, N]."""
    return covariances(size=size, batch=batch, rank=1, condition=1e6, dtype=dtype, scaled=scaled)


@st.composite
def repeated_eigenvalue_covariances(
    draw: st.DrawFn,
    *,
    size: int | None = None,
    batch: int = 1,
    dtype: torch.dtype = torch.complex128,
    scaled: bool = False,
) -> Tensor:
    """`a I + v v^H`, all eigenvalues equal but one: complex [B, N, N], N >= 3 if drawn."""
    N = draw(st.integers(3, MAX_SIZE)) if size is None else size
    v = draw(_whole_numbers((batch, N, 1)))
    a = draw(st.integers(1, LARGEST_ENTRY))
    return _finished(draw, a * torch.eye(N) + v @ v.mH, dtype, scaled)


@st.composite
def snapshots(
    draw: st.DrawFn,
    *,
    size: int | None = None,
    count: int | None = None,
    dtype: torch.dtype = torch.complex128,
) -> Tensor:
    """Snapshots at the elements: complex [B, N, L] of whole numbers."""
    N = draw(st.integers(1, MAX_SIZE)) if size is None else size
    L = draw(st.integers(1, MAX_SNAPSHOTS)) if count is None else count
    return draw(_whole_numbers((draw(st.integers(1, MAX_BATCH)), N, L))).to(dtype)


def blend_weights() -> st.SearchStrategy[float]:
    """Beta in [0, 1], both ends included."""
    return st.floats(0.0, 1.0)


def snr_db() -> st.SearchStrategy[float]:
    """Signal-to-noise ratios of the field, -5 to 20 dB."""
    return st.floats(-5.0, 20.0)


def planar_geometry() -> st.SearchStrategy[dict[str, float]]:
    """`n_h`, `n_v` (1 to 6), `wavelength` [m] and `spacing` of half of it [m]."""
    wavelengths = st.sampled_from([0.3, 0.1, 0.01])
    return st.builds(
        lambda n_h, n_v, wavelength: {
            "n_h": n_h,
            "n_v": n_v,
            "wavelength": wavelength,
            "spacing": wavelength / 2,
        },
        st.integers(1, MAX_SIZE),
        st.integers(1, MAX_SIZE),
        wavelengths,
    )


def _whole_numbers(shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    """complex128 with whole real and imaginary parts up to 3."""
    entries = st.integers(-LARGEST_ENTRY, LARGEST_ENTRY)
    return hnp.arrays(np.int64, (*shape, 2), elements=entries).map(
        lambda parts: torch.view_as_complex(torch.from_numpy(parts.astype(np.float64)))
    )


def _finished(draw: st.DrawFn, R: Tensor, dtype: torch.dtype, scaled: bool) -> Tensor:
    # Cast first: a power of two then changes no digit.
    return R.to(dtype) * (draw(scales(dtype)) if scaled else 1.0)
