"""The network: corrects the sample covariance in its own eigenbasis."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.array import PlanarArray
from model.estimators import unit_diagonal
from model.validate import require_count

# Eigenvalues below this share of the largest one are rounding noise.
EIGENVALUE_FLOOR = 1e-6
REAL_DTYPE = {torch.complex64: torch.float32, torch.complex128: torch.float64}


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Sizes of the network.

    Attributes:
        snapshots: L of the input.
        width: of the layers that see the eigenvalues.
        channels: of the convolutions over the surface.
        dtype: of input and output, complex64 or complex128.
    """

    array: PlanarArray = field(default_factory=PlanarArray)
    snapshots: int = 16
    width: int = 64
    channels: int = 64
    dtype: torch.dtype = torch.complex64

    def __post_init__(self) -> None:
        require_count("snapshots", self.snapshots, 2, 4096)
        require_count("width", self.width, 1, 4096)
        require_count("channels", self.channels, 1, 4096)
        if self.dtype not in REAL_DTYPE:
            raise ValueError(
                f"dtype={self.dtype}: admissible are torch.complex64 and torch.complex128"
            )

    @property
    def rank(self) -> int:
        """Rank of the sample covariance: min(N, L)."""
        return min(self.array.size, self.snapshots)


def eigenbasis(X: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Leading eigenpairs of `X X^H / L`, from the small L x L problem.

    The phase of an eigenvector is arbitrary. It is fixed by the first snapshot, which it meets
    with a real, positive product, so every device gives the same basis.

    Args:
        X: snapshots, complex [B, N, L].

    Returns:
        eigenvectors, complex [B, N, rank], and eigenvalues, real [B, rank], largest first.
    """
    L = X.shape[-1]
    values, V = torch.linalg.eigh(X.mH @ X / L)
    values, V = values.flip(-1)[:, :rank], V.flip(-1)[..., :rank]
    values = values.clamp_min(EIGENVALUE_FLOOR * values[:, :1])
    first = V[:, :1]
    V = V * torch.polar(torch.ones_like(first.real), -first.angle())
    return X @ V / (values * L).sqrt()[:, None], values


class CovarianceNet(nn.Module):
    """R_pred from snapshots: Hermitian, positive definite and of trace N by construction.

    The eigenvalues get learned gains and a noise floor; the scaled eigenvectors, as images on the
    surface, get a residual from three convolutions. `R_pred = W W^H + noise I`, brought to unit
    diagonal.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        super().__init__()
        self.settings = settings
        rank, width, channels = settings.rank, settings.width, settings.channels
        dtype = REAL_DTYPE[settings.dtype]
        self.embed = nn.Linear(rank, width, dtype=dtype)
        self.mix = nn.Linear(width, width, dtype=dtype)
        self.gains = nn.Linear(width, rank + 1, dtype=dtype)
        self.conv_in = nn.Conv2d(2 * rank, channels, 3, padding=1, dtype=dtype)
        self.conv_mid = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)
        self.conv_out = nn.Conv2d(channels, 2 * rank, 3, padding=1, dtype=dtype)
        # Start as a plain shrinkage: equal gains, no residual.
        for layer in (self.gains, self.conv_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # both layers have one

    def forward(self, X: Tensor) -> Tensor:
        """R_pred of snapshots.

        Args:
            X: complex [B, N, L], the dtype of the settings, scaled so that X X^H / L has trace N.

        Returns:
            complex [B, N, N], Hermitian, positive definite, unit diagonal (trace N).

        Raises:
            ValueError: X doesn't have the array's N or the settings' L.
        """
        N, L = self.settings.array.size, self.settings.snapshots
        if X.ndim != 3 or X.shape[1:] != (N, L) or X.dtype != self.settings.dtype:
            raise ValueError(
                f"X is {X.dtype} {list(X.shape)}: expected {self.settings.dtype} [B, {N}, {L}]"
            )
        U, eigenvalues = eigenbasis(X, self.settings.rank)
        hidden = F.silu(self.embed(eigenvalues.log()))
        hidden = hidden + F.silu(self.mix(hidden))
        gains, noise = self.gains(hidden).split([self.settings.rank, 1], dim=-1)
        W = U * (eigenvalues.sqrt() * torch.sigmoid(gains))[:, None]
        W = W + self._residual(W)
        identity = torch.eye(N, dtype=W.dtype, device=W.device)
        return unit_diagonal(W @ W.mH + F.softplus(noise)[..., None] * identity)

    def _residual(self, W: Tensor) -> Tensor:
        B, N, rank = W.shape
        surface = (self.settings.array.n_h, self.settings.array.n_v)
        images = torch.view_as_real(W.mT.contiguous()).movedim(-1, 2).reshape(B, 2 * rank, *surface)
        hidden = F.silu(self.conv_in(images))
        hidden = hidden + F.silu(self.conv_mid(hidden))
        residual = self.conv_out(hidden).view(B, rank, 2, N).movedim(2, -1)
        return torch.view_as_complex(residual.contiguous()).mT
