"""What `fit` shows the network: validation and the curriculum."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from model.blend import BlendSchedule
from model.loss import DualLoss, DualLossValue, LossWeights
from model.network import CovarianceNet
from model.nmse import nmse
from model.scene import Scenes, SceneSettings, simulate
from model.train import TrainSettings, easier_half, fit, validation_loss

MakeNet = Callable[[], CovarianceNet]


class Recorder(nn.Module):
    """Notes what the network sees, and in which mode."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.seen: list[tuple[bool, bool, Tensor]] = []

    def forward(self, X: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled(), X))
        R_pred: Tensor = self.net(X)
        return R_pred


def test_validation_is_the_mean_over_scenes_in_eval_mode_without_jitter(
    make_net: MakeNet, scenes: Scenes, settings: SceneSettings
) -> None:
    fresh = simulate(settings, 7, split="validation", seed=0)
    batches = [fresh.take(torch.arange(5)), fresh.take(torch.arange(5, 7))]
    net = Recorder(make_net())
    history = fit(
        net,
        [scenes],
        batches,
        settings=TrainSettings(epochs=2, schedule=BlendSchedule(jitter=0.05)),
    )
    modes = [(training, grad) for training, grad, _ in net.seen]
    assert modes == [(True, True), (False, False), (False, False)] * 2
    R_pred = net.net(fresh.X).detach()
    weights = LossWeights()
    by_hand = weights.lam_cov * nmse(0.7 * R_pred + 0.3 * fresh.R_samp, fresh.R_true)
    by_hand = by_hand + weights.lam_cov_pred * nmse(R_pred, fresh.R_true)
    assert history[-1].validation == pytest.approx(float(by_hand.mean()), rel=1e-5)


def test_validation_without_batches(make_net: MakeNet) -> None:
    assert validation_loss(make_net(), DualLoss(LossWeights()), [], 0.3) is None


def test_validation_sees_the_current_weights(make_net: MakeNet, scenes: Scenes) -> None:
    net, criterion = make_net(), DualLoss(LossWeights())
    before = validation_loss(net, criterion, [scenes], 0.3)
    assert validation_loss(net, criterion, [scenes], 0.3) == before
    with torch.no_grad():
        net.gains.bias.add_(1.0)
    assert validation_loss(net, criterion, [scenes], 0.3) != before


def test_the_easier_half_is_where_the_sample_covariance_is_best(scenes: Scenes) -> None:
    for count, kept in ((8, 4), (7, 4), (1, 1)):
        part = scenes.take(torch.arange(count))
        half = easier_half(part)
        assert len(half.X) == len(half.R_samp) == len(half.R_true) == kept
        all_of_them = nmse(part.R_samp, part.R_true).sort().values
        assert torch.equal(nmse(half.R_samp, half.R_true), all_of_them[:kept])


def test_the_curriculum_uses_the_easier_half_while_beta_warms_up(
    make_net: MakeNet, scenes: Scenes
) -> None:
    net = Recorder(make_net())
    fit(net, [scenes], settings=TrainSettings(epochs=20, curriculum=True))
    seen = [X for training, _, X in net.seen if training]
    # 20 epochs: beta reaches its final value in the fourth.
    assert [len(X) for X in seen] == [4] * 3 + [8] * 17
    assert all(torch.equal(X, easier_half(scenes).X) for X in seen[:3])
    assert torch.equal(seen[3], scenes.X)


def test_the_curriculum_has_the_declared_weights_too(make_net: MakeNet, scenes: Scenes) -> None:
    weights = LossWeights(lam_cov=3.0, lam_cov_pred=0.5)
    ratios = []

    def note(epoch: int, value: DualLossValue) -> None:
        expected = 3.0 * value.cov + 0.5 * value.cov_pred
        ratios.append(float((value.total / expected).detach()))

    for curriculum in (False, True):
        settings = TrainSettings(epochs=2, weights=weights, curriculum=curriculum)
        fit(make_net(), [scenes], settings=settings, on_step=note)
    assert ratios == pytest.approx([1.0] * 4)
