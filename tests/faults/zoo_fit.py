"""Trainings with loops of their own."""

from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from ris_diag import Case, Declared, Epoch, Plan
from tests.faults.zoo_parts import (
    classes,
    conv_net,
    epochs,
    healthy,
    images,
    mlp,
    regression,
    supervised,
    validated,
)

MSE, CROSS_ENTROPY = nn.MSELoss(), nn.CrossEntropyLoss()


@healthy
def loop_with_validation() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        history = []
        for epoch in range(1, plan.epochs + 1):
            model.train()
            losses = []
            for x, y in plan.train:
                loss = CROSS_ENTROPY(model(x), y)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            validation = validated(model, plan.validation, CROSS_ENTROPY)
            history.append(Epoch(train=fmean(losses), validation=validation))
        return history

    return supervised("loop_with_validation", conv_net, images, F.cross_entropy, fit=fit)


def _accumulating(name: str, passes: int) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        optimizer.zero_grad()
        done = 0

        def step(epoch: int, batch: Any) -> float:
            nonlocal done
            x, y = batch
            loss = MSE(model(x), y)
            plan.on_step(epoch, loss / passes)
            (loss / passes).backward()
            done += 1
            if done % passes == 0:
                optimizer.step()
                optimizer.zero_grad()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised(
        name,
        lambda: mlp(8, 32, 1),
        regression,
        F.mse_loss,
        fit=fit,
        declared=Declared(accumulation=passes, learning_rate=1e-2),
    )


@healthy
def accumulation_of_two() -> Case:
    return _accumulating("accumulation_of_two", 2)


@healthy
def accumulation_of_three() -> Case:
    return _accumulating("accumulation_of_three", 3)


def _scaled(name: str, dtype: torch.dtype) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scaler = torch.amp.GradScaler("cpu")

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = CROSS_ENTROPY(model(x), y)
            plan.on_step(epoch, loss)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            scaler.step(optimizer)
            scaler.update()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised(name, lambda: mlp(8, 32, 4), classes, F.cross_entropy, fit=fit)


@healthy
def grad_scaler_bfloat16() -> Case:
    return _scaled("grad_scaler_bfloat16", torch.bfloat16)


@healthy
def grad_scaler_float16() -> Case:
    """The scaler starts high and skips steps until nothing overflows."""
    return _scaled("grad_scaler_float16", torch.float16)


@healthy
def warm_up_from_zero() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda number: min(1.0, number / 3))

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            loss = MSE(model(x), y)
            plan.on_step(epoch, loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised(
        "warm_up_from_zero",
        lambda: mlp(8, 32, 1),
        regression,
        F.mse_loss,
        fit=fit,
        declared=Declared(learning_rate=lambda number: 2e-2 * min(1.0, (number - 1) / 3)),
    )


@healthy
def one_cycle() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        total = plan.epochs * sum(1 for _ in plan.train)
        scheduler = lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=total, div_factor=4.0
        )

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            loss = CROSS_ENTROPY(model(x), y)
            plan.on_step(epoch, loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised("one_cycle", lambda: mlp(8, 32, 4), classes, F.cross_entropy, fit=fit)


@healthy
def reduce_on_plateau() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad(set_to_none=False)
            loss = MSE(model(x), y)
            plan.on_step(epoch, loss)
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return epochs(model, plan, step, behind=scheduler.step)

    return supervised("reduce_on_plateau", lambda: mlp(8, 32, 1), regression, F.mse_loss, fit=fit)


@healthy
def lbfgs() -> Case:
    """A closure, and all samples in every batch."""

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        return regression(split, 0, 64)

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer: Any = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

        def step(epoch: int, batch: Any) -> float:
            x, y = batch

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = MSE(model(x), y)
                plan.on_step(epoch, loss)
                loss.backward()
                value: Tensor = loss
                return value

            return float(optimizer.step(closure).detach())

        return epochs(model, plan, step)

    return supervised(
        "lbfgs",
        lambda: nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1)),
        data,
        F.mse_loss,
        fit=fit,
    )


@healthy
def moving_average_of_the_weights() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        average = AveragedModel(model, avg_fn=lambda old, new, count: 0.9 * old + 0.1 * new)
        history = []
        for epoch in range(1, plan.epochs + 1):
            model.train()
            losses = []
            for x, y in plan.train:
                loss = MSE(model(x), y)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                average.update_parameters(model)
                losses.append(loss.item())
            validation = validated(average, plan.validation, MSE)
            history.append(Epoch(train=fmean(losses), validation=validation))
        return history

    return supervised(
        "moving_average_of_the_weights", lambda: mlp(8, 32, 1), regression, F.mse_loss, fit=fit
    )


@healthy
def two_backward_calls_a_step() -> Case:
    """The gradients of both halves of the loss add up by themselves."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            data, penalty = MSE(model(x), y), 0.1 * model(2 * x).square().mean()
            for part in (data, penalty):
                plan.on_step(epoch, part)
                part.backward()
            optimizer.step()
            return float(data.detach() + penalty.detach())

        return epochs(model, plan, step)

    return supervised(
        "two_backward_calls_a_step",
        lambda: mlp(8, 32, 1),
        regression,
        F.mse_loss,
        loss=lambda model, batch, progress: (
            F.mse_loss(model(batch[0]), batch[1]) + 0.1 * model(2 * batch[0]).square().mean()
        ),
        fit=fit,
    )


@healthy
def distillation() -> Case:
    """A teacher outside the model, never trained."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        teacher = mlp(8, 64, 4).eval().requires_grad_(False)
        teacher.to(next(model.parameters()).device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

        def step(epoch: int, batch: Any) -> float:
            x, label = batch
            with torch.no_grad():
                target = teacher(x).softmax(1)
            logits = model(x)
            loss = CROSS_ENTROPY(logits, label) + 0.1 * CROSS_ENTROPY(logits, target)
            plan.on_step(epoch, loss)
            model.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised("distillation", lambda: mlp(8, 32, 4), classes, F.cross_entropy, fit=fit)


@healthy
def regularised_by_hand() -> Case:
    """An L1 penalty and label smoothing; gradients cleared behind the step."""

    def loss_of(model: nn.Module, batch: Any) -> Any:
        x, label = batch
        penalty = sum((p.abs().sum() for p in model.parameters()), torch.zeros(()))
        return F.cross_entropy(model(x), label, label_smoothing=0.1) + 1e-5 * penalty

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

        def step(epoch: int, batch: Any) -> float:
            loss = loss_of(model, batch)
            plan.on_step(epoch, loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised(
        "regularised_by_hand",
        lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4)),
        classes,
        F.cross_entropy,
        loss=lambda model, batch, progress: loss_of(model, batch),
        fit=fit,
    )
