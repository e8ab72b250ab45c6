"""Healthy trainings in which the catalogue plants its faults: a loss and an optimiser each."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Declared, Losses, Progress
from tests.faults.zoo_parts import (
    LanguageModel,
    classes,
    conv_net,
    fixed,
    generator,
    healthy,
    images,
    loader_of,
    mlp,
    regression,
    tokens,
)

Pair = tuple[Tensor, Tensor]
Adam = torch.optim.Adam


def forward(model: nn.Module, batch: Any) -> Tensor:
    output: Tensor = model(batch[0])
    return output


@healthy
def plain_regression() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y)

    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        with torch.no_grad():
            return float((model(x) - y).abs().mean())

    return Case(
        name="plain_regression",
        model=lambda: mlp(8, 32, 1),
        batch=regression,
        loss=loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9),
        loader=loader_of(regression),
        predict=forward,
        truth=lambda batch: batch[1],
        metric=metric,
        declared=Declared(learning_rate=0.02, optimizer={"momentum": 0.9}, batch_size=16),
    )


@healthy
def four_classes() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y)

    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        with torch.no_grad():
            return float((model(x).argmax(1) != y).float().mean())

    return Case(
        name="four_classes",
        model=lambda: mlp(8, 32, 4),
        batch=classes,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=5e-3),
        loader=loader_of(classes),
        predict=forward,
        truth=lambda batch: batch[1],
        metric=metric,
    )


def clicks(split: str, seed: int, size: int) -> Pair:
    """x [B, 8], whether it lies beyond a plane [B]."""
    x = torch.randn(size, 8, generator=generator(split, seed))
    return x, (x @ fixed(8) > 0).float()


@healthy
def yes_or_no() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.binary_cross_entropy_with_logits(model(x).squeeze(1), y)

    return Case(
        name="yes_or_no",
        model=lambda: mlp(8, 24, 1),
        batch=clicks,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=1e-2),
        loader=loader_of(clicks),
        predict=lambda model, batch: model(batch[0]).squeeze(1),
        truth=lambda batch: batch[1],
    )


def tagged(split: str, seed: int, size: int) -> Pair:
    """x [B, 8], which of three tags it carries [B, 3]."""
    x = torch.randn(size, 8, generator=generator(split, seed))
    return x, (x @ fixed(8, 3) > 0).float()


@healthy
def three_tags() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.binary_cross_entropy_with_logits(model(x), y)

    return Case(
        name="three_tags",
        model=lambda: mlp(8, 24, 3),
        batch=tagged,
        loss=loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9),
        loader=loader_of(tagged),
        predict=forward,
        truth=lambda batch: batch[1],
    )


@healthy
def stripes() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y)

    return Case(
        name="stripes",
        model=conv_net,
        batch=images,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=2e-3),
        loader=loader_of(images),
        predict=forward,
        truth=lambda batch: batch[1],
    )


def padded(split: str, seed: int, size: int) -> dict[str, Tensor]:
    """Walks of several lengths: x [B, 10, 2], their running sums y [B, 10, 1], mask [B, 10]."""
    source = generator(split, seed)
    length = torch.randint(4, 11, (size, 1), generator=source)
    mask = torch.arange(10) < length
    x = 0.5 * torch.randn(size, 10, 2, generator=source) * mask[..., None]
    y = (x @ fixed(2, 1)).cumsum(1)
    return {"x": x, "y": y, "mask": mask}


class Tracker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(2, 24, batch_first=True)
        self.head = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(x)
        output: Tensor = self.head(states)
        return output


@healthy
def padded_walks() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        error: Tensor = (model(batch["x"]) - batch["y"]).square().squeeze(-1)
        mask = batch["mask"]
        return (error * mask).sum() / mask.sum()

    return Case(
        name="padded_walks",
        model=Tracker,
        batch=padded,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=1e-2),
        loader=loader_of(padded),
        predict=lambda model, batch: model(batch["x"]),
    )


def followers(split: str, seed: int, size: int) -> Pair:
    """Tokens [B, 11] and those that come next [B, 11]."""
    sequence = tokens(split, seed, size)
    return sequence[:, :-1], sequence[:, 1:]


@healthy
def next_token() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    return Case(
        name="next_token",
        model=lambda: LanguageModel(tied=True),
        batch=followers,
        loss=loss,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3),
        loader=loader_of(followers),
        predict=forward,
        truth=lambda batch: batch[1],
        declared=Declared(shift=1, tied=[["embedding.weight", "head.weight"]]),
    )


def mixtures(split: str, seed: int, size: int) -> Tensor:
    """Points [B, 12] near a surface of three dimensions."""
    hidden = torch.randn(size, 3, generator=generator(split, seed))
    return torch.tanh(hidden @ fixed(3, 12))


@healthy
def autoencoder() -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        return F.mse_loss(model(batch), batch)

    return Case(
        name="autoencoder",
        model=lambda: nn.Sequential(mlp(12, 32, 3), mlp(3, 32, 12)),
        batch=mixtures,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=5e-3),
        loader=loader_of(mixtures),
        predict=lambda model, batch: model(batch),
        truth=lambda batch: batch,
    )


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(12, 32, 6), mlp(3, 32, 12)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(x)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return self.decoder(code), mean, log_variance


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2


@healthy
def variational() -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Losses:
        output, mean, log_variance = model(batch)
        terms = {"fit": F.mse_loss(output, batch), "kl": divergence(mean, log_variance)}
        return Losses(total=terms["fit"] + 0.01 * terms["kl"], terms=terms)

    def predict(model: Any, batch: Tensor) -> Tensor:
        mean, _ = model.encode(batch)
        output: Tensor = model.decoder(mean)
        return output

    return Case(
        name="variational",
        model=Variational,
        batch=mixtures,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=5e-3),
        loader=loader_of(mixtures),
        predict=predict,
        truth=lambda batch: batch,
        declared=Declared(weights={"fit": 1.0, "kl": 0.01}),
    )


def answers(split: str, seed: int, size: int) -> dict[str, Tensor]:
    """x [B, 8], a number [B, 1] and a class [B]."""
    source = generator(split, seed)
    x = torch.randn(size, 8, generator=source)
    return {"x": x, "number": torch.tanh(x @ fixed(8, 1)), "kind": (x @ fixed(8, 3)).argmax(1)}


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.number, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.trunk(x)
        return {"number": self.number(hidden), "kind": self.kind(hidden)}


@healthy
def two_tasks() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Losses:
        output = model(batch["x"])
        number = F.mse_loss(output["number"], batch["number"])
        kind = F.cross_entropy(output["kind"], batch["kind"])
        return Losses(total=number + 0.5 * kind, terms={"number": number, "kind": kind})

    return Case(
        name="two_tasks",
        model=TwoHeads,
        batch=answers,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=1e-2),
        loader=loader_of(answers),
        predict=lambda model, batch: model(batch["x"])["number"],
        truth=lambda batch: batch["number"],
        declared=Declared(weights={"number": 1.0, "kind": 0.5}),
    )


def filtered(split: str, seed: int, size: int) -> Pair:
    """Complex x [B, 6] and its image under a complex matrix [B, 4]."""
    x = torch.randn(size, 6, dtype=torch.complex64, generator=generator(split, seed))
    return x, x @ torch.complex(fixed(6, 4), fixed(4, 6).mT) / 3


@healthy
def complex_regression() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = model(x) - y
        return error.abs().square().mean()

    return Case(
        name="complex_regression",
        model=lambda: nn.Linear(6, 4, dtype=torch.complex64),
        batch=filtered,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=3e-2),
        loader=loader_of(filtered),
        predict=forward,
        truth=lambda batch: batch[1],
    )


def measured(split: str, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two sensors a, b [B, 4], and what depends on both [B, 1]."""
    source = generator(split, seed)
    a, b = torch.randn(2, size, 4, generator=source)
    return a, b, torch.tanh(a @ fixed(4, 1)) - b @ fixed(1, 4).mT


class TwoSensors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.joint = mlp(8, 32, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        output: Tensor = self.joint(torch.cat([a, b], 1))
        return output


@healthy
def two_sensors() -> Case:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        a, b, y = batch
        return F.mse_loss(model(a, b), y)

    return Case(
        name="two_sensors",
        model=TwoSensors,
        batch=measured,
        loss=loss,
        optimizer=lambda model: Adam(model.parameters(), lr=1e-2),
        loader=loader_of(measured),
        predict=lambda model, batch: model(batch[0], batch[1]),
        truth=lambda batch: batch[2],
    )
