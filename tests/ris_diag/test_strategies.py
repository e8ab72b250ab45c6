"""The strategies give what they promise and shrink to what a person can read."""

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.array import PlanarArray
from model.nmse import nmse
from ris_diag import strategies as ris

QUICK = hypothesis.settings(derandomize=True, database=None, max_examples=2000)
KINDS = {
    "covariances": ris.covariances(),
    "near singular": ris.near_singular_covariances(),
    "repeated": ris.repeated_eigenvalue_covariances(),
    "complex64": ris.covariances(dtype=torch.complex64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_are_hermitian_psd_and_not_zero(kind: str) -> None:
    @given(KINDS[kind])
    def holds(R: Tensor) -> None:
        assert torch.equal(R, R.mH)
        values = torch.linalg.eigvalsh(R.to(torch.complex128))
        assert (values[:, 0] >= -1e-6 * values[:, -1]).all()
        assert (values[:, -1] > 0).all()

    holds()


@given(st.data())
def test_size_batch_rank_and_dtype_are_as_asked(data: st.DataObject) -> None:
    dtype = data.draw(ris.dtypes())
    R = data.draw(ris.covariances(size=4, batch=2, rank=2, condition=None, dtype=dtype))
    assert R.shape == (2, 4, 4)
    assert R.dtype == dtype
    assert (torch.linalg.matrix_rank(R.to(torch.complex128), hermitian=True) <= 2).all()


@given(ris.covariances(size=4, rank=1, condition=100.0))
def test_condition_number_is_bounded(R: Tensor) -> None:
    assert (torch.linalg.cond(R) <= 101 * 1.0001).all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_scaled_matrices_stay_normal_numbers(dtype: torch.dtype) -> None:
    @given(ris.covariances(dtype=dtype, scaled=True, condition=None))
    def holds(R: Tensor) -> None:
        parts = torch.view_as_real(R).abs()
        assert torch.isfinite(parts).all()
        assert (parts[parts > 0] >= torch.finfo(dtype).tiny).all()

    holds()


def test_repeated_eigenvalues_are_repeated() -> None:
    @given(ris.repeated_eigenvalue_covariances())
    def holds(R: Tensor) -> None:
        values = torch.linalg.eigvalsh(R)[0]
        assert torch.allclose(values[:-1], values[0], atol=1e-9)

    holds()


@given(ris.pairs())
def test_pairs_are_definite_and_their_truth_is_not_diagonal(pair: tuple[Tensor, Tensor]) -> None:
    for R in pair:
        assert torch.equal(R, R.mH)
        assert (torch.linalg.eigvalsh(R) > 0.5).all()
    off = pair[1] - torch.diag_embed(pair[1].diagonal(dim1=1, dim2=2))
    assert (off.abs().amax((1, 2)) > 0).all()


@given(ris.differing_pairs(size=3))
def test_differing_pairs_differ_in_every_part(pair: tuple[Tensor, Tensor]) -> None:
    error = pair[0] - pair[1]
    assert (error.real != 0).all()
    assert ((error.imag != 0) == ~torch.eye(3, dtype=torch.bool)).all()
    assert (torch.linalg.eigvalsh(pair[0]) > 0).all()


@given(ris.unitaries(size=3))
def test_unitaries_are_unitary(U: Tensor) -> None:
    assert torch.allclose(U @ U.mH, torch.eye(3, dtype=torch.complex128), atol=1e-12)


def test_large_exponents_come_as_often_as_small_ones() -> None:
    seen = []

    @given(ris.exponents(-99, 99))
    def collect(exponent: int) -> None:
        seen.append(abs(exponent))

    collect()
    assert sum(exponent > 60 for exponent in seen) > len(seen) / 5


def test_a_failing_example_shrinks_to_small_whole_numbers() -> None:
    found = hypothesis.find(
        ris.covariances(condition=None), lambda R: bool(R.imag.abs().max() > 0), settings=QUICK
    )
    assert found.shape == (1, 2, 2)
    parts = torch.view_as_real(found)
    assert torch.equal(parts, parts.round())
    assert parts.abs().max() <= 2


@given(ris.snapshots(size=3, count=5), ris.blend_weights(), ris.snr_db(), ris.planar_geometry())
def test_the_rest_is_in_range(X: Tensor, beta: float, snr: float, geometry: dict[str, int]) -> None:
    assert X.shape[1:] == (3, 5)
    assert 0 <= beta <= 1
    assert -5 <= snr <= 20
    assert PlanarArray(**geometry).spacing == geometry["wavelength"] / 2


@given(st.data())
def test_nmse_keeps_every_bit_under_a_power_of_two(data: st.DataObject) -> None:
    dtype = data.draw(ris.dtypes())
    N, B = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    R_hat, R_true = (data.draw(ris.covariances(size=N, batch=B, dtype=dtype)) for _ in range(2))
    scale = data.draw(ris.scales(dtype))
    assert torch.equal(nmse(R_hat * scale, R_true * scale), nmse(R_hat, R_true))
