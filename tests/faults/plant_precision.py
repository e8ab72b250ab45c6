"""Faults of mixed precision: what half precision can't hold, and weights that lose their digits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Epoch, Plan, Progress
from tests.faults.registry import SILENT, fault
from tests.faults.zoo_grounds import Pair, plain_regression
from tests.faults.zoo_loops import mixed_precision
from tests.faults.zoo_parts import classes, epochs, healthy, mlp, regression, supervised

MIXED = "Mixed Precision Training (Micikevicius et al., ICLR 2018)"


def float16() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.float16)


# ---- the loss in half precision


@fault(
    "L070",
    says="mean() of [11, 1] in torch.bfloat16",
    cause="loss-in-half-precision",
    healthy=mixed_precision,
    source=MIXED,
)
def mean_of_squares_in_bfloat16() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            error: Tensor = model(x) - y.bfloat16()
            return error.square().mean().float()  # planted: mean_of_squares_in_bfloat16

    return replace(mixed_precision(), loss=loss)


# ---- what leaves the range of float16


class RootMeanSquare(nn.Module):
    """Features of the size of counts, divided by their root mean square."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first, self.last, self.dtype = nn.Linear(8, 32), mlp(32, 32, 1), dtype

    def forward(self, x: Tensor) -> Tensor:
        counts = 256 * self.first(x)
        counts = counts.to(self.dtype)
        # planted: squares_of_features_overflow
        energy = counts.square().mean(1, keepdim=True)
        output: Tensor = self.last(counts * torch.rsqrt(energy + 1e-6))
        return output


def _normalised(name: str, dtype: torch.dtype) -> Case:
    def predict(model: nn.Module, batch: Pair) -> Tensor:
        with float16():
            output: Tensor = model(batch[0])
        return output.float()

    return supervised(
        name,
        lambda: RootMeanSquare(dtype),
        regression,
        F.mse_loss,
        loss=lambda model, batch, progress: F.mse_loss(predict(model, batch), batch[1]),
        predict=predict,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=5e-3),
    )


@healthy
def normalised_in_single() -> Case:
    return _normalised("normalised_in_single", torch.float32)


@fault(
    "L071",
    says="square() in RootMeanSquare gives infinity in torch.float16",
    cause="half-overflows",
    healthy=normalised_in_single,
    within=(RootMeanSquare,),
    source=MIXED,
)
def squares_of_features_overflow() -> Case:
    return _normalised("squares_of_features_overflow", torch.float16)


def _cosines(model: nn.Module, batch: Pair, enabled: bool) -> tuple[Tensor, Tensor]:
    x, y = batch
    with torch.autocast("cpu", dtype=torch.float16, enabled=enabled):
        features = model(x)
        ones = features.new_ones(4, 4)
        centres = F.normalize(ones - 2 * torch.diag(ones[0]))
        scores = 24 * F.normalize(features, dim=1) @ centres
    return scores, y


def _by_hand(enabled: bool) -> Callable[[nn.Module, Pair, Progress], Tensor]:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        scores, y = _cosines(model, batch, enabled)
        # planted: exponentials_overflow
        total = scores.exp().sum(1).float().log()
        return (total - scores.float().gather(1, y[:, None])[:, 0]).mean()

    return loss


@healthy
def softmax_of_cosines() -> Case:
    return supervised(
        "softmax_of_cosines",
        lambda: mlp(8, 32, 4),
        classes,
        F.cross_entropy,
        loss=_by_hand(enabled=False),
        predict=lambda model, batch: _cosines(model, batch, enabled=False)[0],
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=5e-3),
    )


@fault(
    "L071",
    says="exp() gives infinity in torch.float16",
    cause="half-overflows",
    healthy=softmax_of_cosines,
    within=(_by_hand,),
    source=MIXED,
)
def exponentials_overflow() -> Case:
    return replace(softmax_of_cosines(), loss=_by_hand(enabled=True))


# ---- gradients below the range of float16


def _small_loss(name: str, **settings: Any) -> Case:
    """A loss with a small weight, as that of a term among others."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-12)
        scaler = torch.amp.GradScaler("cpu", **settings)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            with float16():
                output = model(x)
            loss = 1e-6 * F.mse_loss(output.float(), y)
            plan.on_step(epoch, loss)
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised(
        name,
        lambda: mlp(8, 32, 1),
        regression,
        lambda output, y: 1e-6 * F.mse_loss(output.float(), y),
        fit=fit,
    )


@healthy
def small_loss_scaled() -> Case:
    return _small_loss("small_loss_scaled")


@fault(
    "L072",
    says="with no scale of the loss",
    cause="gradient-underflows",
    healthy=small_loss_scaled,
    within=(_small_loss,),
    source=MIXED,
)
def float16_without_a_scale() -> Case:
    # planted: float16_without_a_scale
    return _small_loss("float16_without_a_scale", enabled=False)


@fault(
    "L072",
    says="with a scale of 2 of the loss",
    cause="gradient-underflows",
    healthy=small_loss_scaled,
    within=(_small_loss,),
    source=MIXED,
)
def scale_that_stays_at_two() -> Case:
    # planted: scale_that_stays_at_two
    return _small_loss("scale_that_stays_at_two", init_scale=2.0)


# ---- weights and optimiser


def _in_half(name: str, eps: float) -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x.half()).float(), y)

    return replace(
        plain_regression(),
        name=name,
        model=lambda: mlp(8, 32, 1).half(),
        loss=loss,
        # planted: adam_on_half_weights
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2, eps=eps),
        predict=lambda model, batch: model(batch[0].half()).float(),
        metric=None,
        declared=None,
    )


@healthy
def half_throughout() -> Case:
    """float16 on purpose, with steps and a constant that it can hold."""
    return _in_half("half_throughout", 1e-3)


@fault(
    "L073",
    says="eps=1e-08 is 0 in torch.float16",
    cause="epsilon-vanishes",
    healthy=half_throughout,
    within=(_in_half,),
    source=MIXED,
)
def adam_on_half_weights() -> Case:
    return _in_half("adam_on_half_weights", 1e-8)


def _cast_step(name: str, *, casts: bool) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            if casts:
                logits = model.bfloat16()(x.bfloat16())  # planted: master_weights_are_rounded
            else:
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(x)
            loss = F.cross_entropy(logits.float(), y)
            plan.on_step(epoch, loss)
            torch.autograd.backward(loss)
            model.float()
            optimizer.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised(name, lambda: mlp(8, 32, 4), classes, F.cross_entropy, fit=fit)


@healthy
def autocast_of_single_weights() -> Case:
    return _cast_step("autocast_of_single_weights", casts=False)


@fault(
    "L073",
    says="rounded to torch.bfloat16",
    cause="master-weights-rounded",
    healthy=autocast_of_single_weights,
    within=(_cast_step,),
    source=SILENT,
)
def master_weights_are_rounded() -> Case:
    return _cast_step("master_weights_are_rounded", casts=True)


# ---- a scaler and two losses


def _two_losses(name: str, *, both: bool) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            with float16():
                output = model(x)
            error = F.mse_loss(output.float(), y)
            size = output.float().square().mean() / 10
            plan.on_step(epoch, error + size)
            torch.autograd.backward(scaler.scale(error), retain_graph=True)
            second = scaler.scale(size) if both else size  # planted: second_loss_is_not_scaled
            torch.autograd.backward(second)
            scaler.step(optimizer)
            scaler.update()
            return float((error + size).detach())

        return epochs(model, plan, step)

    return supervised(
        name,
        lambda: mlp(8, 32, 1),
        regression,
        lambda output, y: F.mse_loss(output, y) + output.square().mean() / 10,
        fit=fit,
    )


@healthy
def two_losses_scaled() -> Case:
    return _two_losses("two_losses_scaled", both=True)


@fault(
    "L012",
    says="of one that a GradScaler did not scale",
    cause="scaler-misused",
    healthy=two_losses_scaled,
    within=(_two_losses,),
    source=SILENT,
)
def second_loss_is_not_scaled() -> Case:
    return _two_losses("second_loss_is_not_scaled", both=False)


# ---- another formula on the device


class FastSilu(nn.Module):
    """x sigmoid(x), on CUDA by a formula that is faster and another one."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == self.device:
            return F.hardswish(x)  # planted: faster_formula_on_cuda
        return F.silu(x)


def with_silu(device: str = "cuda") -> Case:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), FastSilu(device), nn.Linear(32, 1))

    return supervised(
        "faster_formula",
        model,
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2),
    )


def one_formula() -> Case:
    return with_silu("none")


@fault(
    "L075",
    says="part at the output of 1",
    cause="devices-part",
    healthy=one_formula,
    proof=lambda: bool((FastSilu("cpu")(torch.ones(1)) != FastSilu("none")(torch.ones(1))).all()),
    within=(FastSilu,),
    source=SILENT,
    device="cuda",
)
def faster_formula_on_cuda() -> Case:
    return with_silu()
