"""Healthy trainings in which the catalogue plants its faults: loops, steps and scripts."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from ris_diag import Case, Declared, Epoch, Plan, Progress, Training
from tests.faults.zoo_grounds import Pair, clicks, forward
from tests.faults.zoo_parts import (
    LastState,
    classes,
    conv_net,
    healthy,
    images,
    loader_of,
    mlp,
    regression,
    sequences,
)

MSE, CROSS_ENTROPY, BCE = nn.MSELoss(), nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()


def validate(model: nn.Module, batches: Any) -> float | None:
    model.eval()
    with torch.no_grad():
        values = [float(CROSS_ENTROPY(model(x), y)) for x, y in batches]
    return sum(values) / len(values) if values else None


@healthy
def epochs_of_images() -> Case:
    """A loop with a scheduler by epoch and a validation."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        scheduler = CosineAnnealingLR(optimizer, T_max=50)
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
            scheduler.step()
            mean = sum(losses) / len(losses)
            history.append(Epoch(train=mean, validation=validate(model, plan.validation)))
        return history

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y)

    return Case(
        name="epochs_of_images",
        model=conv_net,
        batch=images,
        loss=loss,
        fit=fit,
        loader=loader_of(images),
        predict=forward,
        truth=lambda batch: batch[1],
    )


@healthy
def logistic_regression() -> Case:
    """One layer, plain gradient descent, a loop of its own."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        history = []
        for epoch in range(1, plan.epochs + 1):
            total = 0.0
            count = 0
            for x, y in plan.train:
                optimizer.zero_grad()
                loss = BCE(model(x).squeeze(1), y)
                plan.on_step(epoch, loss)
                loss.backward()
                optimizer.step()
                total += loss.item()
                count += 1
            history.append(Epoch(train=total / count))
        return history

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.binary_cross_entropy_with_logits(model(x).squeeze(1), y)

    return Case(
        name="logistic_regression",
        model=lambda: nn.Linear(8, 1),
        batch=clicks,
        loss=loss,
        fit=fit,
        loader=loader_of(clicks),
        predict=lambda model, batch: model(batch[0]).squeeze(1),
        truth=lambda batch: batch[1],
    )


@healthy
def clipped_lstm() -> Case:
    """A training step with clipping."""

    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step()
        return float(loss.item())

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y)

    return Case(
        name="clipped_lstm",
        model=lambda: LastState(nn.LSTM),
        batch=sequences,
        loss=loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        step=step,
        loader=loader_of(sequences),
        predict=forward,
        truth=lambda batch: batch[1],
        declared=Declared(clip_norm=1.0, learning_rate=0.1),
    )


@healthy
def four_passes_a_step() -> Case:
    """Gradients of four batches make one step."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        history = []
        passes = 0
        optimizer.zero_grad()
        for epoch in range(1, plan.epochs + 1):
            losses = []
            for x, y in plan.train:
                loss = MSE(model(x), y) / 4
                plan.on_step(epoch, loss)
                loss.backward()
                passes += 1
                if passes % 4 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                losses.append(4 * loss.item())
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y) / 4

    return Case(
        name="four_passes_a_step",
        model=lambda: mlp(8, 32, 1),
        batch=regression,
        loss=loss,
        fit=fit,
        loader=loader_of(regression),
        predict=forward,
        truth=lambda batch: batch[1],
        declared=Declared(accumulation=4, learning_rate=0.05),
    )


class EncoderAndHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 32), nn.Tanh())
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x))
        return logits


@healthy
def encoder_and_head() -> Case:
    """Two optimisers, one for each half."""

    def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(model.get_submodule("encoder").parameters(), lr=2e-3),
            torch.optim.SGD(model.get_submodule("head").parameters(), lr=0.1),
        ]

    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        for_encoder, for_head = training.optimizer
        for_encoder.zero_grad()
        for_head.zero_grad()
        loss = CROSS_ENTROPY(training.model(x), y)
        loss.backward()
        for_encoder.step()
        for_head.step()
        return float(loss.item())

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y)

    return Case(
        name="encoder_and_head",
        model=EncoderAndHead,
        batch=classes,
        loss=loss,
        optimizer=optimizers,
        step=step,
        loader=loader_of(classes),
        predict=forward,
        truth=lambda batch: batch[1],
    )


def numbers(split: str = "train", samples: int = 64) -> TensorDataset:
    return TensorDataset(*regression(split, 0, samples))


def seeded(model: Any) -> Any:
    """The model from a seed of its own, as a script that sets it first."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return model()


@healthy
def lent_numbers() -> Case:
    """A DataLoader of (x, y)."""
    model = seeded(lambda: mlp(8, 32, 1))
    train: Any = DataLoader(numbers(), batch_size=16, shuffle=True)
    held_out: Any = DataLoader(numbers("validation", 32), batch_size=16)
    return Case.from_xy(
        model,
        train,
        F.mse_loss,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        validation=held_out,
        name="lent_numbers",
    )


@healthy
def script_of_classes() -> Case:
    """A script as it stands in a file."""

    def main() -> None:
        torch.manual_seed(0)
        loader: Any = DataLoader(TensorDataset(*classes("train", 0, 64)), 16, shuffle=True)
        model = mlp(8, 32, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(20):
            model.train()
            for x, y in loader:
                optimizer.zero_grad()
                loss = CROSS_ENTROPY(model(x), y)
                loss.backward()
                optimizer.step()

    return Case(name="script_of_classes", main=main)


@healthy
def mixed_precision() -> Case:
    """Autocast around the network, the loss in single precision."""

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
        return F.mse_loss(output.float(), y)

    return Case(
        name="mixed_precision",
        model=lambda: mlp(8, 32, 1),
        batch=regression,
        loss=loss,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2),
        loader=loader_of(regression),
        predict=forward,
        truth=lambda batch: batch[1],
    )
