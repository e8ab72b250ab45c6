import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from model.blend import BlendSchedule
from model.loader import SceneLoader
from model.loss import DualLossValue, LossWeights
from model.network import CovarianceNet, NetworkSettings
from model.nmse import nmse
from model.scene import Scenes, SceneSettings, simulate
from model.train import (
    EpochLosses,
    TrainSettings,
    epoch_line,
    fit,
    make_optimizer,
)

MakeNet = Callable[[], CovarianceNet]


@contextmanager
def optimiser_steps() -> Iterator[list[dict[str, Any]]]:
    """Settings of the optimiser and norm of the gradient at every step."""
    steps: list[dict[str, Any]] = []

    def note(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        (group,) = optimizer.param_groups
        grads = [p.grad for p in group["params"]]
        norm = float(torch.stack([g.norm() for g in grads]).norm())
        steps.append({"norm": norm, "count": len(grads), **group})

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield steps
    finally:
        handle.remove()


def settings_for(epochs: int, **changes: Any) -> TrainSettings:
    return TrainSettings(epochs=epochs, **changes)


def run(
    net: nn.Module, scenes: Scenes, epochs: int = 4, seed: int = 0, **changes: Any
) -> list[float]:
    loader = SceneLoader(scenes, batch_size=3, seed=seed)
    history = fit(net, loader, settings=settings_for(epochs, **changes))
    return [epoch.train for epoch in history]


def test_one_optimiser_step_a_batch(make_net: MakeNet, scenes: Scenes) -> None:
    with optimiser_steps() as steps:
        run(make_net(), scenes, epochs=4)
    assert len(steps) == 4 * 3


def test_the_optimiser_has_all_parameters_and_the_declared_settings(
    make_net: MakeNet, scenes: Scenes
) -> None:
    net = make_net()
    with optimiser_steps() as steps:
        run(net, scenes, learning_rate=0.004, weight_decay=0.03)
    assert {step["count"] for step in steps} == {len(list(net.parameters()))}
    assert {step["weight_decay"] for step in steps} == {0.03}
    # A cosine from the declared rate, one stage an epoch.
    expected = [0.004 * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4) for _ in range(3)]
    assert [step["lr"] for step in steps] == pytest.approx(expected)
    assert isinstance(make_optimizer(net, TrainSettings()), torch.optim.AdamW)


def test_gradients_are_zeroed_between_steps(make_net: MakeNet, scenes: Scenes) -> None:
    with optimiser_steps() as steps:  # too small a rate to move: every gradient is the first one
        fit(make_net(), [scenes] * 3, settings=settings_for(2, clip_norm=1e6, learning_rate=1e-12))
    norms = [step["norm"] for step in steps]
    assert norms[:3] == pytest.approx([norms[0]] * 3, rel=1e-4)


def test_gradients_are_clipped(make_net: MakeNet, scenes: Scenes) -> None:
    with optimiser_steps() as free:
        run(make_net(), scenes, clip_norm=1e6)
    with optimiser_steps() as clipped:
        run(make_net(), scenes, clip_norm=1e-3)
    assert min(step["norm"] for step in free) > 2e-3
    assert [step["norm"] for step in clipped] == pytest.approx([1e-3] * 12, rel=1e-3)


def test_every_parameter_moves_and_the_loss_falls(make_net: MakeNet, scenes: Scenes) -> None:
    net, start = make_net(), make_net()
    losses = run(net, scenes, epochs=15, schedule=BlendSchedule(beta_final=0.0))
    assert all(0.0 < loss < 2.0 for loss in losses)
    assert losses[-1] < 0.75 * losses[0]
    still = [
        name
        for (name, after), before in zip(net.named_parameters(), start.parameters(), strict=True)
        if torch.equal(after, before)
    ]
    assert not still


def test_it_learns_what_fresh_scenes_need(settings: SceneSettings) -> None:
    torch.manual_seed(0)
    net = CovarianceNet(NetworkSettings(array=settings.array, snapshots=8, width=16, channels=16))
    fresh = simulate(settings, 200, split="test", seed=0)
    before = nmse(net(fresh.X), fresh.R_true).mean().item()
    train = simulate(settings, 256, split="train", seed=0)
    fit(net, SceneLoader(train, batch_size=32, seed=0), settings=settings_for(10))
    after = nmse(net(fresh.X), fresh.R_true).mean().item()
    assert after < 0.9 * before
    assert after < float(nmse(fresh.R_samp, fresh.R_true).mean())


def test_the_same_seed_gives_the_same_losses_digit_for_digit(
    make_net: MakeNet, scenes: Scenes
) -> None:
    jitter = BlendSchedule(jitter=0.05)
    first = run(make_net(), scenes, schedule=jitter)
    torch.manual_seed(123)
    assert run(make_net(), scenes, schedule=jitter) == first
    assert run(make_net(), scenes, schedule=jitter, seed=1) != first


def test_the_history_is_the_mean_of_the_losses_seen(make_net: MakeNet, scenes: Scenes) -> None:
    seen: dict[int, list[float]] = {}

    def note(epoch: int, value: DualLossValue) -> None:
        assert value.total.requires_grad
        seen.setdefault(epoch, []).append(float(value.total.detach()))

    loader = SceneLoader(scenes, batch_size=3, seed=0)
    history = fit(make_net(), loader, settings=settings_for(4), on_step=note)
    assert [len(losses) for losses in seen.values()] == [3] * 4
    assert list(seen) == [1, 2, 3, 4]
    assert [epoch.train for epoch in history] == pytest.approx(
        [mean(losses) for losses in seen.values()], rel=1e-6
    )
    assert [epoch.validation for epoch in history] == [None] * 4


def test_on_step_is_called_in_front_of_the_step(make_net: MakeNet, scenes: Scenes) -> None:
    net = make_net()
    start = [parameter.detach().clone() for parameter in net.parameters()]
    moved = []

    def note(epoch: int, value: DualLossValue) -> None:
        pairs = zip(net.parameters(), start, strict=True)
        moved.append(any(not torch.equal(now, then) for now, then in pairs))

    fit(net, [scenes, scenes], settings=settings_for(2), on_step=note)
    assert moved == [False, True, True, True]


def test_the_blend_follows_the_schedule(make_net: MakeNet, scenes: Scenes) -> None:
    betas = []

    def note(epoch: int, value: DualLossValue) -> None:
        R_pred, R_blend = value.R_pred.detach(), value.R_blend.detach()
        shift, way = R_blend - R_pred, scenes.R_samp - R_pred
        betas.append(float((shift * way.conj()).real.sum() / way.abs().square().sum()))

    # 15 epochs: three of warm-up.
    fit(make_net(), [scenes, scenes], settings=settings_for(15), on_step=note)
    expected = [0.0] * 2 + [0.15] * 2 + [0.30] * 26
    assert betas == pytest.approx(expected, abs=1e-5)

    betas.clear()
    jitter = BlendSchedule(jitter=0.05)
    fit(make_net(), [scenes, scenes], settings=settings_for(15, schedule=jitter), on_step=note)
    deviations = [abs(beta - plain) for beta, plain in zip(betas, expected, strict=True)]
    assert 0.02 < max(deviations) <= 0.05 + 1e-5
    assert len({round(beta, 4) for beta in betas}) > 20


def test_log_of_a_run(make_net: MakeNet, scenes: Scenes, caplog: pytest.LogCaptureFixture) -> None:
    net, values = make_net(), list[DualLossValue]()
    with caplog.at_level(logging.INFO, logger="model.train"), optimiser_steps() as steps:
        history = fit(
            net,
            [scenes, scenes],
            [scenes],
            settings=settings_for(15, clip_norm=1e6),
            on_step=lambda _, value: values.append(value),
        )
    assert {(r.name, r.levelname) for r in caplog.records} == {("model.train", "INFO")}
    lines = caplog.messages
    error = (values[0].R_blend - scenes.R_true).detach().flatten(1).norm(dim=1).mean()
    assert lines[:8] == [
        "Loss weights: lam_cov=1.0, lam_cov_pred=0.05",
        "[Beta Warmup] Annealing beta from 0.00 -> 0.30 over 3 epochs",
        "epoch 1: beta=0.000 on the first batch",
        f"loss terms: NMSE(R_blend)={values[0].cov:.6f}, NMSE(R_pred)={values[0].cov_pred:.6f}, "
        f"total={values[0].total:.6f}",
        f"R_blend.requires_grad=True, ||R_hat - R_true||_F={error:.4f} (mean over the batch)",
        f"epoch 1, batch 1: grad_norm={steps[0]['norm']:.4f} before clipping",
        f"epoch 1, batch 2: grad_norm={steps[1]['norm']:.4f} before clipping",
        f"Epoch 001/015: train {history[0].train:.3f}  val {history[0].validation:.3f}  "
        "(lam_cov=1.0, lam_cov_pred=0.05)",
    ]
    # Later epochs: beta on the first batch, and the line of the epoch.
    betas = ["0.150", *["0.300"] * 13]
    assert lines[8::2] == [
        f"epoch {epoch}: beta={beta} on the first batch" for epoch, beta in enumerate(betas, 2)
    ]
    assert lines[9::2] == [
        epoch_line(epoch, settings_for(15), losses) for epoch, losses in enumerate(history[1:], 2)
    ]


def test_the_warmup_of_thirty_epochs_is_announced(
    make_net: MakeNet, scenes: Scenes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="model.train"):
        fit(make_net(), [scenes.take(torch.arange(2))], settings=TrainSettings())
    assert "[Beta Warmup] Annealing beta from 0.00 -> 0.30 over 6 epochs" in caplog.messages
    assert caplog.messages.count("Loss weights: lam_cov=1.0, lam_cov_pred=0.05") == 1


def test_nothing_is_printed(
    make_net: MakeNet, scenes: Scenes, capsys: pytest.CaptureFixture[str]
) -> None:
    run(make_net(), scenes, epochs=2)
    assert capsys.readouterr() == ("", "")


def test_epoch_line() -> None:
    losses = EpochLosses(train=0.8561, validation=0.8229)
    expected = "Epoch 001/030: train 0.856  val 0.823  (lam_cov=1.0, lam_cov_pred=0.05)"
    assert epoch_line(1, TrainSettings(), losses) == expected
    weights = LossWeights(lam_cov=2.0, lam_cov_pred=0.1)
    expected = "Epoch 012/120: train 0.856  val -  (lam_cov=2.0, lam_cov_pred=0.1)"
    settings = TrainSettings(epochs=120, weights=weights)
    assert epoch_line(12, settings, replace(losses, validation=None)) == expected


def test_a_loss_that_is_not_finite_stops_the_run(make_net: MakeNet, scenes: Scenes) -> None:
    R_true = scenes.R_true.clone()
    R_true[3, 0, 1] = math.nan
    bad = scenes._replace(R_true=R_true)
    served = []

    class Spoilt:
        def __iter__(self) -> Iterator[Scenes]:
            served.append(1)
            yield scenes
            if len(served) == 2:
                yield bad

    message = "epoch 2: the mean training loss is nan"
    with pytest.raises(FloatingPointError, match=f"^{re.escape(message)}$"):
        fit(make_net(), Spoilt(), settings=settings_for(5))
    assert len(served) == 2


class Detached(nn.Module):
    """A network whose output has lost its gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, X: Tensor) -> Tensor:
        R_pred: Tensor = self.net(X)
        return R_pred.detach()


def test_a_cut_gradient_stops_the_run_at_the_first_step(make_net: MakeNet, scenes: Scenes) -> None:
    with (
        optimiser_steps() as steps,
        pytest.raises(RuntimeError, match=r"^R_pred and R_blend require"),
    ):
        fit(Detached(make_net()), [scenes], settings=settings_for(2))
    assert not steps


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"learning_rate": 0.0},
            "learning_rate=0.0: admissible is 0 < learning_rate <= 10",
        ),
        (
            {"learning_rate": math.nan},
            "learning_rate=nan: admissible is 0 < learning_rate <= 10",
        ),
        ({"learning_rate": 11}, "learning_rate=11: admissible is 0 < learning_rate <= 10"),
        (
            {"weight_decay": -1e-4},
            "weight_decay=-0.0001: admissible is 0 <= weight_decay <= 10",
        ),
        ({"clip_norm": 0.0}, "clip_norm=0.0: admissible is 0 < clip_norm <= 1e+06"),
        ({"clip_norm": math.inf}, "clip_norm=inf: admissible is 0 < clip_norm <= 1e+06"),
        ({"seed": -1}, "seed=-1: admissible are the integers 0 <= seed <= 9223372036854775807"),
        ({"epochs": 0}, "epochs=0: admissible are the integers 1 <= epochs <= 1000000"),
        (
            {"epochs": 1},
            "epochs=1: the warm-up of beta takes 2 epochs, longer than the run; admissible is "
            "epochs >= 2",
        ),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrainSettings(**wrong)
