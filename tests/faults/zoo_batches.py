"""Trainings that give an optimiser and a loss: kinds of batches."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Progress
from tests.faults.zoo_parts import (
    adam,
    classes,
    generator,
    healthy,
    loader_of,
    mlp,
    regression,
    supervised,
)


@healthy
def siamese() -> Case:
    class Pairs(NamedTuple):
        first: Tensor
        second: Tensor
        same: Tensor

    def data(split: str, seed: int, size: int) -> Pairs:
        first, one = classes(split, seed, size)
        second, other = classes(f"{split} partner", seed, size)
        return Pairs(first, second, (one == other).float())

    def loss(model: nn.Module, batch: Pairs, progress: Progress) -> Tensor:
        distance = F.pairwise_distance(model(batch.first), model(batch.second))
        apart = F.relu(3.0 - distance).square()
        value: Tensor = torch.where(batch.same > 0, distance.square(), apart).mean()
        return value

    return Case(
        name="siamese",
        model=lambda: mlp(8, 32, 8),
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
        predict=lambda model, batch: model(batch.first),
    )


@healthy
def contrastive_among_batch_mates() -> Case:
    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        source = generator(split, seed)
        x = torch.randn(size, 8, generator=source)
        views = [x + 0.1 * torch.randn(size, 8, generator=source) for _ in range(2)]
        return {"one": views[0], "other": views[1]}

    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        one, other = (F.normalize(model(batch[view]), dim=1) for view in ("one", "other"))
        return F.cross_entropy(one @ other.T / 0.2, torch.arange(len(one), device=one.device))

    return Case(
        name="contrastive_among_batch_mates",
        model=lambda: mlp(8, 32, 8),
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
        predict=lambda model, batch: model(batch["one"]),
    )


@healthy
def nested_batches() -> Case:
    def data(split: str, seed: int, size: int) -> dict[str, Any]:
        x, y = regression(split, seed, size)
        return {"input": {"left": x[:, :4], "right": [x[:, 4:]]}, "targets": (y,), "split": split}

    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = nn.Linear(4, 16), nn.Linear(4, 16), nn.Linear(32, 1)

        def forward(self, inputs: dict[str, Any]) -> Tensor:
            hidden = torch.cat([self.left(inputs["left"]), self.right(inputs["right"][0])], 1)
            output: Tensor = self.head(hidden.relu())
            return output

    return Case(
        name="nested_batches",
        model=TwoInputs,
        batch=data,
        loss=lambda model, batch, progress: F.mse_loss(model(batch["input"]), batch["targets"][0]),
        optimizer=adam(1e-2),
        loader=loader_of(data),
        predict=lambda model, batch: model(batch["input"]),
    )


@healthy
def nodes_of_one_graph() -> Case:
    """A batch is one graph: its samples, the nodes, are meant to depend on each other."""

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        x, label = classes(split, seed, size)
        near = (label[:, None] == label).float()
        return {"x": x, "adjacency": near / near.sum(1, keepdim=True), "label": label}

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
            output: Tensor = adjacency @ self.second((adjacency @ self.first(x)).relu())
            return output

    return Case(
        name="nodes_of_one_graph",
        model=Graph,
        batch=data,
        loss=lambda model, batch, progress: F.cross_entropy(
            model(batch["x"], batch["adjacency"]), batch["label"]
        ),
        optimizer=adam(2e-2),
        predict=lambda model, batch: model(batch["x"], batch["adjacency"]),
        exempt={"L027": "the nodes of one graph are meant to depend on each other"},
    )


@healthy
def two_volumes_at_most() -> Case:
    """Samples so large that a batch holds two."""

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        source = generator(split, seed)
        clean = F.avg_pool3d(torch.randn(min(size, 2), 1, 8, 8, 8, generator=source), 3, 1, 1)
        return clean + 0.1 * torch.randn(clean.shape, generator=source), 5 * clean

    return supervised(
        "two_volumes_at_most",
        lambda: nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 1)),
        data,
        F.mse_loss,
        optimizer=adam(2e-2),
    )


@healthy
def one_sample_at_a_time() -> Case:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        return regression(split, seed, 1)

    return supervised(
        "one_sample_at_a_time",
        lambda: nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)),
        data,
        F.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01),
    )
