from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.estimators import (
    ledoit_wolf,
    oas,
    sample_covariance,
    shrunk,
    trace_normalised,
    unit_diagonal,
)
from model.nmse import nmse
from model.scene import SceneSettings, simulate

Estimator = Callable[[Tensor], Tensor]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.complex128)


def trace(R: Tensor) -> Tensor:
    return R.diagonal(dim1=-2, dim2=-1).real.sum(-1)


def energy(R: Tensor) -> Tensor:
    return R.abs().square().sum((-2, -1))


def truth(N: int) -> Tensor:
    """A covariance with a wide spread of eigenvalues and complex entries, of trace N."""
    A = gaussian(N, N, seed=5) * torch.linspace(0.3, 2.0, N)
    R: Tensor = trace_normalised(A @ A.mH)
    return R


def draws(R: Tensor, L: int, count: int) -> Tensor:
    root: Tensor = torch.linalg.cholesky(R)
    return root @ gaussian(count, R.shape[-1], L, seed=6)


def oracle(tr_R2: Tensor, tr2_R: Tensor, N: int, L: int) -> Tensor:
    """The intensity with the least expected error, for circular complex Gaussian data."""
    return (tr2_R - tr_R2 / N) / ((L - 1 / N) * tr_R2 + (1 - L / N) * tr2_R)


def intensity_of(estimate: Tensor, S: Tensor) -> Tensor:
    """Shrinkage leaves (1 - intensity) of every off-diagonal entry."""
    return 1 - (estimate[..., 0, 1] / S[..., 0, 1]).real


def test_sample_covariance_of_a_known_matrix() -> None:
    X = torch.tensor([[[1 + 1j, 2, 0], [0, 1j, 3]]], dtype=torch.complex64)
    expected = torch.tensor([[[6, -2j], [2j, 10]]], dtype=torch.complex64) / 3
    assert torch.allclose(sample_covariance(X), expected)


def test_sample_covariance_keeps_the_mean() -> None:
    X = torch.ones(1, 3, 5, dtype=torch.complex64)
    assert torch.equal(sample_covariance(X), torch.ones(1, 3, 3, dtype=torch.complex64))


def test_trace_normalised() -> None:
    R = torch.diag_embed(torch.tensor([[1.0, 3.0], [5e-9, 5e-9]])).to(torch.complex64)
    expected = torch.tensor([[0.5, 1.5], [1.0, 1.0]])
    assert torch.allclose(trace_normalised(R).diagonal(dim1=1, dim2=2).real, expected)


def test_shrunk_walks_from_the_matrix_to_the_scaled_identity() -> None:
    R = sample_covariance(gaussian(3, 4, 6))
    got = shrunk(R, torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    identity = torch.eye(4, dtype=torch.complex128)
    assert torch.equal(got[0], R[0])
    assert torch.allclose(got[1], 0.75 * R[1] + 0.25 * trace(R[1]) / 4 * identity)
    assert torch.allclose(got[2], trace(R[2]) / 4 * identity)


@pytest.mark.parametrize(("N", "L"), [(4, 3), (4, 9)])
def test_ledoit_wolf_is_its_definition_written_as_loops(N: int, L: int) -> None:
    X = gaussian(1, N, L) * torch.linspace(0.2, 2.0, N)[:, None]
    S = [
        [sum(complex(X[0, i, k]) * complex(X[0, j, k]).conjugate() for k in range(L)) / L
         for j in range(N)]
        for i in range(N)
    ]  # fmt: skip
    m = sum(S[i][i].real for i in range(N)) / N
    d2 = b2 = 0.0
    for i in range(N):
        for j in range(N):
            d2 += abs(S[i][j] - (m if i == j else 0.0)) ** 2
            for k in range(L):
                outer = complex(X[0, i, k]) * complex(X[0, j, k]).conjugate()
                b2 += abs(outer - S[i][j]) ** 2 / L**2
    rho = min(b2, d2) / d2
    expected = [
        [(1 - rho) * S[i][j] + (rho * m if i == j else 0.0) for j in range(N)] for i in range(N)
    ]
    assert 0.05 < rho < 1.0
    assert torch.allclose(ledoit_wolf(X)[0], torch.tensor(expected, dtype=torch.complex128))


def test_moments_behind_the_complex_oas() -> None:
    N, L = 4, 6
    R = truth(N)
    S = sample_covariance(draws(R, L, 60_000))
    tr_R2, tr2_R = energy(R), trace(R).square()
    # The real formulas would be 1.2 to 1.5 times as far from tr(R^2) and tr(R)^2.
    assert float(energy(S).mean()) == pytest.approx(float(tr_R2 + tr2_R / L), rel=0.01)
    assert float(trace(S).square().mean()) == pytest.approx(float(tr2_R + tr_R2 / L), rel=0.01)


def test_oracle_intensity_by_monte_carlo() -> None:
    N, L = 4, 6
    R = truth(N)
    S = sample_covariance(draws(R, L, 60_000))
    F = trace(S)[:, None, None] / N * torch.eye(N)
    gain = ((R - S) * (F - S).conj()).sum((-2, -1)).real.mean()
    expected = float(gain / energy(F - S).mean())
    assert float(oracle(energy(R), trace(R).square(), N, L)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("L", [3, 8, 40])
def test_oas_is_the_fixed_point_of_the_oracle(L: int) -> None:
    N = 4
    S = sample_covariance(draws(truth(N), L, 50))
    rho = torch.full((50,), 0.5, dtype=torch.float64)
    for _ in range(3000):
        shrunken = shrunk(S, rho)
        plugged_in = (shrunken * S.conj()).sum((-2, -1)).real
        rho = oracle(plugged_in, trace(S).square(), N, L).clamp(0, 1)
    X = draws(truth(N), L, 50)
    found = intensity_of(oas(X), S)
    inside = found < 0.95  # near 1 the two roots meet and the iteration crawls
    assert inside.sum() > 5
    assert torch.allclose(found[inside], rho[inside], atol=1e-6)


def test_oas_intensity_is_near_the_oracle() -> None:
    N, L = 8, 40
    R = truth(N)
    X = draws(R, L, 4000)
    found = intensity_of(oas(X), sample_covariance(X))
    expected = float(oracle(energy(R), trace(R).square(), N, L))
    assert float(found.mean()) == pytest.approx(expected, rel=0.03)


def test_oas_comes_near_the_least_error_that_shrinkage_can_reach() -> None:
    N, L = 8, 12
    R = truth(N)
    X = draws(R, L, 4000)
    S = sample_covariance(X)
    grid = torch.linspace(0, 1, 41, dtype=torch.float64)
    errors = torch.stack([energy(shrunk(S, rho.expand(4000)) - R).mean() for rho in grid])
    found = energy(oas(X) - R).mean()
    assert 0 < errors.argmin() < 40
    assert found < 1.1 * errors.min()
    assert found < 0.9 * errors[0]


@pytest.mark.parametrize("estimator", [oas, ledoit_wolf])
@pytest.mark.parametrize("L", [2, 8, 40])
def test_shrinkage_keeps_trace_and_gives_positive_definite(estimator: Estimator, L: int) -> None:
    X = draws(truth(6), L, 20)
    R = estimator(X)
    assert torch.allclose(trace(R), trace(sample_covariance(X)))
    assert torch.allclose(R, R.mH)
    assert torch.linalg.eigvalsh(R).min() > 1e-3
    assert (intensity_of(R, sample_covariance(X)) <= 1 + 1e-12).all()


@pytest.mark.parametrize("estimator", [oas, ledoit_wolf])
def test_shrinkage_is_equivariant_to_a_unitary_change_of_basis(estimator: Estimator) -> None:
    X = draws(truth(6), 9, 3)
    Q = torch.linalg.qr(gaussian(6, 6, seed=8)).Q
    assert torch.allclose(estimator(Q @ X), Q @ estimator(X) @ Q.mH)


def test_unit_diagonal_keeps_hermitian_and_psd() -> None:
    R = sample_covariance(gaussian(20, 6, 3) * torch.linspace(0.1, 3, 6)[:, None])
    got = unit_diagonal(R)
    assert torch.allclose(got.diagonal(dim1=1, dim2=2), torch.ones(20, 6).to(got.dtype))
    assert torch.allclose(got, got.mH)
    assert torch.linalg.eigvalsh(got).min() > -1e-12
    assert torch.linalg.matrix_rank(got, hermitian=True).tolist() == [3] * 20
    assert torch.allclose(got[0, 0, 1], R[0, 0, 1] / (R[0, 0, 0] * R[0, 1, 1]).sqrt())


def test_shrinkage_beats_the_sample_covariance_on_fresh_scenes(settings: SceneSettings) -> None:
    X, R_samp, R_true = simulate(replace(settings, snapshots=16), 200, split="test", seed=1)
    sample = float(nmse(R_samp, R_true).mean())
    by_oas, by_lw = (float(nmse(f(X), R_true).mean()) for f in (oas, ledoit_wolf))
    assert by_oas < 0.85 * sample
    assert by_lw == pytest.approx(by_oas, abs=0.02)
    assert float(nmse(unit_diagonal(oas(X)), R_true).mean()) < by_oas


@pytest.mark.parametrize("estimator", [oas, ledoit_wolf])
def test_a_sample_covariance_that_is_white_already_stays(estimator: Estimator) -> None:
    Q = torch.linalg.qr(gaussian(200, 16, 16)).Q.to(torch.complex64)
    identity = torch.eye(16, dtype=torch.complex64)
    assert (estimator(4 * Q) - identity).abs().max() < 1e-4


@pytest.mark.parametrize("estimator", [oas, ledoit_wolf])
def test_a_single_element_has_nothing_to_shrink(estimator: Estimator) -> None:
    X = torch.ones(3, 1, 8, dtype=torch.complex128)
    assert torch.equal(estimator(X), sample_covariance(X))


@pytest.mark.parametrize("estimator", [oas, ledoit_wolf])
def test_conjugating_the_data_conjugates_the_estimate(estimator: Estimator) -> None:
    X = gaussian(3, 4, 6)
    assert torch.allclose(estimator(X.conj()), estimator(X).conj())
