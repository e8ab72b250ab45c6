"""Healthy trainings that differ from the usual one in a single respect: ways to take a step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from ris_diag import Case, Declared, Epoch, Plan, Progress
from ris_diag.plan import Training
from tests.faults.zoo_kinds import FrozenStatistics
from tests.faults.zoo_parts import (
    classes,
    epochs,
    healthy,
    images,
    mlp,
    regression,
    supervised,
)

MSE, CROSS_ENTROPY = nn.MSELoss(), nn.CrossEntropyLoss()


def plain_step(
    model: nn.Module, plan: Plan, optimizer: torch.optim.Optimizer, criterion: Any
) -> Callable[[int, Any], float]:
    def step(epoch: int, batch: Any) -> float:
        x, y = batch
        loss = criterion(model(x), y)
        plan.on_step(epoch, loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


@healthy
def gradients_by_hand() -> Case:
    """autograd.grad in place of backward()."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        parameters = list(model.parameters())
        optimizer = torch.optim.Adam(parameters, lr=1e-2)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            loss = F.mse_loss(model(x), y)
            plan.on_step(epoch, loss)
            gradients = torch.autograd.grad(loss, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised("gradients_by_hand", lambda: mlp(8, 32, 1), regression, F.mse_loss, fit=fit)


@healthy
def sharpness_aware() -> Case:
    """The gradient is taken a little uphill: two backward passes for one step."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        parameters = list(model.parameters())
        optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            loss = MSE(model(x), y)
            plan.on_step(epoch, loss)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
            with torch.no_grad():
                uphill = [0.02 * p.grad / norm for p in parameters if p.grad is not None]
                for parameter, way in zip(parameters, uphill, strict=True):
                    parameter.add_(way)
            optimizer.zero_grad()
            above = MSE(model(x), y)
            plan.on_step(epoch, above)
            above.backward()
            with torch.no_grad():
                for parameter, way in zip(parameters, uphill, strict=True):
                    parameter.sub_(way)
            optimizer.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised("sharpness_aware", lambda: mlp(8, 32, 1), regression, F.mse_loss, fit=fit)


class CentredSign(torch.optim.Optimizer):
    """Steps of one length, by the sign of a moving average; gradients are centred in place."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # takes no closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim > 1:
                    parameter.grad.sub_(parameter.grad.mean(1, keepdim=True))
                average = self.state[parameter].setdefault("average", parameter.grad.clone())
                average.lerp_(parameter.grad, 0.1)
                parameter.sub_(group["lr"] * average.sign())


@healthy
def optimizer_of_ones_own() -> Case:
    return supervised(
        "optimizer_of_ones_own",
        lambda: mlp(8, 32, 4),
        classes,
        F.cross_entropy,
        optimizer=lambda model: CentredSign(model.parameters(), lr=5e-3),
    )


class LearnedWeights(nn.Module):
    """Loss terms weighted by learned uncertainties."""

    def __init__(self) -> None:
        super().__init__()
        self.logarithms = nn.Parameter(torch.zeros(2))

    def forward(self, prediction: Tensor, y: Tensor) -> Tensor:
        terms = torch.stack([F.mse_loss(prediction, y), F.l1_loss(prediction, y)])
        return (terms * (-self.logarithms).exp() + self.logarithms).sum()


@healthy
def criterion_with_weights_of_its_own() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        criterion = LearnedWeights().to(next(model.parameters()).device)
        optimizer = torch.optim.Adam([*model.parameters(), *criterion.parameters()], lr=1e-2)
        return epochs(model, plan, plain_step(model, plan, optimizer, criterion))

    return supervised(
        "criterion_with_weights_of_its_own",
        lambda: mlp(8, 32, 1),
        regression,
        lambda prediction, y: F.mse_loss(prediction, y) + F.l1_loss(prediction, y),
        fit=fit,
    )


def _backbone_and_head() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.ReLU()), nn.Linear(32, 4)
    )


@healthy
def unfrozen_in_the_second_epoch() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        backbone = model.get_submodule("0").requires_grad_(False)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        step = plain_step(model, plan, optimizer, CROSS_ENTROPY)

        def unfreezing(epoch: int, batch: Any) -> float:
            backbone.requires_grad_(epoch > 1)
            return step(epoch, batch)

        return epochs(model, plan, unfreezing)

    return supervised(
        "unfrozen_in_the_second_epoch", _backbone_and_head, classes, F.cross_entropy, fit=fit
    )


@healthy
def backbone_starts_later() -> Case:
    """Its learning rate is zero in the first half of the training."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        groups = [{"params": part.parameters()} for part in model.children()]
        optimizer = torch.optim.AdamW(groups, lr=1e-2)
        late = plan.epochs // 2
        scheduler = lr_scheduler.LambdaLR(
            optimizer, [lambda epoch: float(epoch >= late), lambda epoch: 1.0]
        )
        step = plain_step(model, plan, optimizer, CROSS_ENTROPY)
        return epochs(model, plan, step, behind=lambda mean: scheduler.step())

    return supervised(
        "backbone_starts_later", _backbone_and_head, classes, F.cross_entropy, fit=fit
    )


@healthy
def grad_scaler_that_skips_steps() -> Case:
    """Overflow in half precision; the scheduler waits where the step was skipped."""

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, y = regression(split, seed, size)
        return x, 3 * y

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
        scaler = torch.amp.GradScaler("cpu")

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            for parameter in model.parameters():
                parameter.grad = None
            with torch.autocast("cpu", dtype=torch.float16):
                loss = F.mse_loss(model(x).float(), y)
            plan.on_step(epoch, loss)
            scaled: Any = scaler.scale(loss)
            scaled.backward()
            scaler.step(optimizer)
            scale = scaler.get_scale()
            scaler.update()
            if scaler.get_scale() >= scale:
                scheduler.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised(
        "grad_scaler_that_skips_steps", lambda: mlp(8, 64, 1), data, F.mse_loss, fit=fit
    )


@healthy
def parts_called_by_hand() -> Case:
    """A frozen backbone in eval mode, called by itself in front of its head."""

    def model() -> nn.Module:
        backbone = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        return FrozenStatistics(backbone, 288, 3)

    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        network: Any = training.model
        loss = CROSS_ENTROPY(network.head(network.backbone(x)), y)
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        return float(loss.detach())

    return supervised(
        "parts_called_by_hand",
        model,
        images,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.get_submodule("head").parameters(), 3e-3),
        step=step,
        declared=Declared(frozen=("backbone.*",)),
    )


@healthy
def adversarial_examples() -> Case:
    """The input is moved uphill first; the weights forget the gradients of that pass."""

    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        moved = x.clone().requires_grad_()
        CROSS_ENTROPY(training.model(moved), y).backward()
        moved = (moved + 0.05 * moved.grad.sign()).detach()
        training.optimizer.zero_grad()
        loss = CROSS_ENTROPY(training.model(moved), y)
        loss.backward()
        training.optimizer.step()
        return float(loss.detach())

    return supervised(
        "adversarial_examples",
        lambda: mlp(8, 32, 4),
        classes,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        step=step,
    )
