"""Trainings whose labels, predictions or metrics are in another form than the loss's own."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Progress
from tests.faults.zoo_parts import (
    adam,
    classes,
    fixed,
    generator,
    healthy,
    mlp,
    regression,
    supervised,
    tokens,
)

Pair = tuple[Tensor, Tensor]
MIDDLE, UNIT = 240.0, 85.0  # of prices


def prices(split: str, seed: int, size: int) -> Pair:
    x, y = regression(split, seed, size)
    return x, MIDDLE + UNIT * y[:, 0]


@healthy
def prices_in_their_own_unit() -> Case:
    """The loss is that of standardised prices; prediction and truth are prices."""

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.smooth_l1_loss(model(x).squeeze(-1), (y - MIDDLE) / UNIT)

    return Case(
        name="prices_in_their_own_unit",
        model=lambda: mlp(8, 32, 1),
        batch=prices,
        loss=loss,
        optimizer=adam(1e-2),
        predict=lambda model, batch: MIDDLE + UNIT * model(batch[0]).squeeze(-1),
        truth=lambda batch: batch[1],
    )


def seldom(split: str, seed: int, size: int) -> Pair:
    """x [B, 8], y [B, 1]: one of thirty is a yes, so that most batches have none."""
    x, _ = regression(split, seed, size)
    return x, (x @ fixed(8, 1) > 1.85 * fixed(8, 1).norm()).float()


@healthy
def one_yes_in_thirty() -> Case:
    """Logits of a sample that is a no are far below 0 when it is learnt."""
    return supervised(
        "one_yes_in_thirty",
        lambda: mlp(8, 32, 1),
        seldom,
        F.binary_cross_entropy_with_logits,
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )


@healthy
def logits_of_grey_pixels() -> Case:
    """Labels between 0 and 1, all of them dark, and logits as the prediction."""

    def dark(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, 0.04 * y.sigmoid()

    return supervised(
        "logits_of_grey_pixels",
        lambda: mlp(8, 32, 1),
        dark,
        F.binary_cross_entropy_with_logits,
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )


class Undecided(nn.Module):
    """A head that has one class in front for all samples before it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(8, 32, 16)
        self.head = nn.Linear(16, 4)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([5.0, 0.0, 0.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


@healthy
def chosen_class_as_the_prediction() -> Case:
    return supervised(
        "chosen_class_as_the_prediction",
        Undecided,
        classes,
        F.cross_entropy,
        optimizer=adam(1e-2),
        predict=lambda model, batch: model(batch[0]).argmax(1),
        truth=lambda batch: batch[1],
    )


@healthy
def yes_as_a_number() -> Case:
    return replace(
        one_yes_in_thirty(),
        name="yes_as_a_number",
        predict=lambda model, batch: (model(batch[0]) > 0).float(),
    )


def neighbours(split: str, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features [B, 6, 5] of six nodes, edges [B, 6, 6], kinds [B, 6]."""
    source = generator(split, seed)
    kinds = torch.randint(3, (size, 6), generator=source)
    same = kinds[:, :, None] == kinds[:, None, :]
    drawn = torch.rand(size, 6, 6, generator=source).triu(1)
    edges = (drawn > torch.where(same, 0.4, 0.9)).float()
    noise = torch.randn(size, 6, 5, generator=source)
    return fixed(3, 5)[kinds] + noise, edges + edges.mT, kinds


class Attention(nn.Module):
    """Nodes look at their neighbours; scores are linear in what is passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(5, 16)
        self.asks, self.tells = nn.Linear(16, 1), nn.Linear(16, 1)
        self.kind = nn.Linear(16, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        value = self.value(x)
        scores = F.leaky_relu(self.asks(value) + self.tells(value).mT, 0.2)
        reached = edges + torch.eye(6, device=edges.device) > 0
        weights = scores.masked_fill(~reached, -torch.inf).softmax(-1)
        kinds: Tensor = self.kind(F.elu(weights @ value))
        return kinds


@healthy
def attention_over_neighbours() -> Case:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, edges, kinds = batch
        return F.cross_entropy(model(x, edges).flatten(0, 1), kinds.flatten())

    return Case(
        name="attention_over_neighbours",
        model=Attention,
        batch=neighbours,
        loss=loss,
        optimizer=adam(1e-2),
        predict=lambda model, batch: model(batch[0], batch[1]),
    )


class Switches(nn.Module):
    """Half of the columns of a table are thresholds: they choose, and have no slope."""

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp(8, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        switched = torch.cat([x[:, :4], (x[:, 4:] > 0).float()], 1)
        output: Tensor = self.network(switched)
        return output


@healthy
def columns_that_switch() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, y + (x[:, 4:] > 0).float().sum(1, keepdim=True)

    return supervised("columns_that_switch", Switches, data, F.mse_loss, optimizer=adam(1e-2))


class Backwards(nn.Module):
    """Says a sequence of symbols in reverse."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 24)
        self.read = nn.GRU(24, 48, batch_first=True)
        self.steps = nn.Parameter(torch.randn(12, 24))
        self.write = nn.GRU(24, 48, batch_first=True)
        self.head = nn.Linear(48, 16)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.read(self.embedding(x))
        states, _ = self.write(self.steps.expand(len(x), -1, -1).contiguous(), state)
        symbols: Tensor = self.head(states)
        return symbols


@healthy
def share_of_sentences_without_error() -> Case:
    """No untrained network gets one right."""

    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        return F.cross_entropy(model(batch).flatten(0, 1), batch.flip(1).flatten())

    def metric(model: nn.Module, batch: Tensor) -> float:
        with torch.no_grad():
            right = (model(batch).argmax(-1) == batch.flip(1)).all(1)
        return 1 - float(right.float().mean())

    return Case(
        name="share_of_sentences_without_error",
        model=Backwards,
        batch=tokens,
        loss=loss,
        optimizer=adam(5e-3),
        predict=lambda model, batch: model(batch),
        metric=metric,
    )


@healthy
def prices_with_their_perfect_output() -> Case:
    case = prices_in_their_own_unit()
    predict: Any = case.predict
    return replace(
        case,
        name="prices_with_their_perfect_output",
        oracle=lambda batch: (batch[1][:, None] - MIDDLE) / UNIT,
        metric=lambda model, batch: (predict(model, batch) - batch[1]).abs().mean().detach(),
    )
