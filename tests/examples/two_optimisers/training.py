"""Rates of users for items: sparse tables and dense layers have an optimiser each."""

import torch
from torch import Tensor, nn

USERS, ITEMS = 30, 40
Batch = tuple[Tensor, Tensor, Tensor]


class Ratings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(USERS, 8, sparse=True)
        self.items = nn.Embedding(ITEMS, 8, sparse=True)
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        rating: Tensor = self.head(torch.cat([self.users(user), self.items(item)], dim=1))
        return rating.squeeze(1)


def make_batch(samples: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    user = torch.randint(USERS, (samples,), generator=generator)
    item = torch.randint(ITEMS, (samples,), generator=generator)
    return user, item, 3 + (user % 3 - 1) + 0.5 * (item % 2)


def make_optimizers(model: Ratings) -> list[torch.optim.Optimizer]:
    tables = [*model.users.parameters(), *model.items.parameters()]
    return [
        torch.optim.SparseAdam(tables, lr=0.02),
        torch.optim.Adam(model.head.parameters(), lr=0.01),
    ]


def training_step(model: Ratings, optimizers: list[torch.optim.Optimizer], batch: Batch) -> float:
    user, item, rating = batch
    loss = nn.functional.mse_loss(model(user, item), rating)
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()
