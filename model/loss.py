"""The dual loss: the blend is what inference uses, the prediction alone must not hide behind it."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.blend import blend
from model.nmse import nmse
from model.validate import require_number, require_same_covariances

BETA_WITHOUT_GRADIENT = 0.999
AUXILIARY_SHARE_AT_BETA_ONE = 0.2


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of `NMSE(R_blend)` (lam_cov) and of `NMSE(R_pred)` (lam_cov_pred)."""

    lam_cov: float = 1.0
    lam_cov_pred: float = 0.05

    def __post_init__(self) -> None:
        require_number("lam_cov", self.lam_cov, 0, 100, open_low=True, open_high=True)
        require_number("lam_cov_pred", self.lam_cov_pred, 0, 100, open_low=True, open_high=True)

    def auxiliary(self, beta: float) -> float:
        """Weight of `NMSE(R_pred)` in effect: at beta near 1 the main term has no gradient."""
        if beta >= BETA_WITHOUT_GRADIENT:
            return max(self.lam_cov_pred, AUXILIARY_SHARE_AT_BETA_ONE * self.lam_cov)
        return self.lam_cov_pred


class DualLossValue(NamedTuple):
    """total = lam_cov * cov + lam_cov_pred * cov_pred (scalars), and what they are made of."""

    total: Tensor
    cov: Tensor
    cov_pred: Tensor
    R_pred: Tensor
    R_blend: Tensor


class DualLoss(nn.Module):
    """`lam_cov * NMSE(R_blend) + lam_cov_pred * NMSE(R_pred)`, means over the batch.

    A module, so that `train()` and `eval()` say whether a missing gradient is an error.
    """

    def __init__(self, weights: LossWeights) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, R_pred: Tensor, R_samp: Tensor, R_true: Tensor, beta: float) -> DualLossValue:
        """Loss of a batch.

        Args:
            R_pred, R_samp, R_true: complex64 or complex128 [B, N, N], of one shape and dtype.
            beta: blend weight in [0, 1].

        Raises:
            TypeError: real or half-precision covariances, dtypes that differ.
            ValueError: shapes that differ, beta outside [0, 1].
            RuntimeError: in training mode with gradients enabled, R_pred or R_blend has none.
        """
        require_same_covariances(R_pred=R_pred, R_samp=R_samp, R_true=R_true)
        R_blend = blend(R_pred, R_samp, beta)
        if self.training and torch.is_grad_enabled():
            cut = [
                name
                for name, R in (("R_pred", R_pred), ("R_blend", R_blend))
                if not R.requires_grad
            ]
            if cut:
                raise RuntimeError(
                    f"{' and '.join(cut)} require(s) no gradient while training: the network "
                    "cannot learn; look for detach(), .data, .numpy() or no_grad() in front of "
                    "the loss"
                )
        cov, cov_pred = nmse(R_blend, R_true).mean(), nmse(R_pred, R_true).mean()
        total = self.weights.lam_cov * cov + self.weights.auxiliary(beta) * cov_pred
        return DualLossValue(total, cov, cov_pred, R_pred, R_blend)
