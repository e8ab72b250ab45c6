"""Classical covariance estimators: what a network must beat before it is worth a search.

scikit-learn's shrinkage estimators refuse complex data, so the two formulas stand here.
"""

import torch
from torch import Tensor


def trace_normalised(R: Tensor) -> Tensor:
    """`R` scaled to trace N: complex [..., N, N]."""
    trace = R.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    return R * (R.shape[-1] / trace)[..., None, None]


def sample_covariance(X: Tensor) -> Tensor:
    """`X X^H / L` of snapshots X: complex [..., N, L]. No mean is removed: it would be signal."""
    return X @ X.mH / X.shape[-1]


def shrunk(R: Tensor, intensity: Tensor) -> Tensor:
    """`(1 - intensity) R + intensity tr(R)/N I`: R complex [..., N, N], intensity real [...]."""
    N = R.shape[-1]
    mean_power = R.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    identity = torch.eye(N, dtype=R.dtype, device=R.device)
    return (1 - intensity)[..., None, None] * R + (intensity * mean_power)[
        ..., None, None
    ] * identity


def oas(X: Tensor) -> Tensor:
    """Oracle-approximating shrinkage (OAS) of the sample covariance: [..., N, L] -> [..., N, N].

    Chen, Wiesel, Eldar, Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE Trans.
    Signal Processing 58(10), 2010, section III.C. The paper's moments are those of real Gaussian
    data; for circular complex data `E tr(S^2) = tr(R^2) + tr(R)^2/L` and
    `E tr(S)^2 = tr(R)^2 + tr(R^2)/L`, and the same fixed point becomes
    `(tr(S)^2 - tr(S^2)/N) / ((L - 1/N) (tr(S^2) - tr(S)^2/N))`.
    """
    N, L = X.shape[-2:]
    S = sample_covariance(X)
    tr_S2 = _energy(S)
    tr2_S = S.diagonal(dim1=-2, dim2=-1).real.sum(-1).square()
    return shrunk(S, _share((tr2_S - tr_S2 / N) / (L - 1 / N), tr_S2 - tr2_S / N))


def ledoit_wolf(X: Tensor) -> Tensor:
    """Ledoit-Wolf shrinkage of the sample covariance: complex [..., N, L] -> [..., N, N].

    Ledoit, Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
    J. Multivariate Analysis 88(2), 2004, section 3.3, with known zero mean and |.| of complex
    entries: `min(1, (sum_l ||x_l||^4 / L^2 - ||S||^2 / L) / ||S - tr(S)/N I||^2)`.
    """
    N, L = X.shape[-2:]
    S = sample_covariance(X)
    tr_S2 = _energy(S)
    tr2_S = S.diagonal(dim1=-2, dim2=-1).real.sum(-1).square()
    fourth = torch.view_as_real(X.resolve_conj()).square().sum((-3, -1)).square().sum(-1)
    return shrunk(S, _share(fourth / L**2 - tr_S2 / L, tr_S2 - tr2_S / N))


def unit_diagonal(R: Tensor) -> Tensor:
    """`D^-1/2 R D^-1/2` with D = diag(R): complex [..., N, N].

    Every element of the surface receives the same power (the steering vectors have constant
    modulus), so the truth's diagonal is constant; a congruence keeps R Hermitian and PSD.
    """
    scale = R.diagonal(dim1=-2, dim2=-1).real.rsqrt()
    return R * scale[..., :, None] * scale[..., None, :]


def _share(gain: Tensor, spread: Tensor) -> Tensor:
    """`gain / spread` within [0, 1]; 1 where S is a multiple of I already: spread 0 or rounding."""
    return (gain / spread.clamp_min(0)).nan_to_num(1.0).clamp(0, 1)


def _energy(R: Tensor) -> Tensor:
    return torch.view_as_real(R.resolve_conj()).square().sum((-3, -2, -1))
