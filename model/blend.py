"""The blend of prediction and sample covariance, and the schedule of its weight beta."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.validate import require_count, require_number, require_same_covariances

BETA_LIMIT_WITH_JITTER = 0.95


@dataclass(frozen=True, kw_only=True)
class BlendSchedule:
    """beta rises linearly from `beta_start` to `beta_final` during the warm-up, then stays.

    Attributes:
        beta_start, beta_final: in [0, 1]; the first epoch has beta_start, the last epoch of the
            warm-up has beta_final.
        warmup_share: share of the epochs that the warm-up takes, at least two epochs.
        jitter: half-width of a uniform disturbance of beta in training; 0 switches it off.
    """

    beta_start: float = 0.0
    beta_final: float = 0.30
    warmup_share: float = 0.2
    jitter: float = 0.0

    def __post_init__(self) -> None:
        require_number("beta_start", self.beta_start, 0.0, 1.0)
        require_number("beta_final", self.beta_final, 0.0, 1.0)
        # Above 1 the warm-up would be longer than the run.
        require_number("warmup_share", self.warmup_share, 0.0, 1.0, open_low=True)
        require_number("jitter", self.jitter, 0.0, 0.5)

    def warmup_epochs(self, epochs: int) -> int:
        """W = max(2, int(warmup_share * epochs)).

        Raises:
            ValueError: the run is shorter than its warm-up.
        """
        require_count("epochs", epochs, 1, 1_000_000)
        warmup = max(2, int(self.warmup_share * epochs))
        if warmup > epochs:
            raise ValueError(
                f"epochs={epochs}: the warm-up of beta takes {warmup} epochs, longer than the run; "
                f"admissible is epochs >= {warmup}"
            )
        return warmup

    def beta(self, epoch: int, epochs: int, generator: torch.Generator | None = None) -> float:
        """Beta in an epoch, counted from 1.

        Args:
            generator: source of the jitter; give one in training only. Validation and inference
                leave it out and get the schedule itself.
        """
        warmup = self.warmup_epochs(epochs)
        require_count("epoch", epoch, 1, epochs)
        progress = min(1.0, (epoch - 1) / (warmup - 1))
        beta = self.beta_start + (self.beta_final - self.beta_start) * progress
        if self.jitter == 0 or generator is None:
            return beta
        draw = torch.rand((), generator=generator, dtype=torch.float64).item()
        return min(max(beta + self.jitter * (2 * draw - 1), 0.0), BETA_LIMIT_WITH_JITTER)


def blend(R_pred: Tensor, R_samp: Tensor, beta: float) -> Tensor:
    """`(1 - beta) R_pred + beta R_samp`; training and inference both call this function.

    Args:
        R_pred, R_samp: complex64 or complex128 [B, N, N], of one shape and dtype.
        beta: in [0, 1].

    Raises:
        TypeError: real or half-precision covariances, dtypes that differ.
        ValueError: shapes that differ, beta outside [0, 1].
    """
    require_number("beta", beta, 0.0, 1.0)
    require_same_covariances(R_pred=R_pred, R_samp=R_samp)
    return (1 - beta) * R_pred + beta * R_samp
