"""Learns a wave: a bare PyTorch loop."""

import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]
log = logging.getLogger(__name__)


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))


def make_batch(samples: int, seed: int) -> Pair:
    x = 4 * torch.rand(samples, 1, generator=torch.Generator().manual_seed(seed)) - 2
    return x, 2 + torch.sin(2 * x)


def ignore(epoch: int, loss: Tensor) -> None:
    """Nobody watches."""


def train(
    model: nn.Module,
    batches: Iterable[Pair],
    epochs: int,
    on_step: Callable[[int, Tensor], None] = ignore,
) -> list[float]:
    """Mean loss of every epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    history = []
    for epoch in range(1, epochs + 1):
        losses = []
        for x, y in batches:
            loss = nn.functional.mse_loss(model(x), y)
            on_step(epoch, loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
        history.append(sum(losses) / len(losses))
        log.info("epoch %d: %.4f", epoch, history[-1])
    return history


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    train(make_model(), [make_batch(32, seed) for seed in range(20)], epochs=10)
