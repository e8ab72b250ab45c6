"""A training of milliseconds, whose best parameters are known, for the tests of the search."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ris_diag

WEIGHTS = torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
Batch = tuple[Tensor, Tensor]


def batch(split: str, seed: int, size: int, noise: float = 0.0) -> Batch:
    generator = torch.Generator().manual_seed(seed % 2**31)
    x = torch.randn(size, 4, generator=generator)
    return x, x @ WEIGHTS + noise * torch.randn(size, 1, generator=generator)


def loss(model: nn.Module, batch: Batch, progress: ris_diag.Progress) -> Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def metric(model: nn.Module, batch: Batch) -> float:
    return float(nn.functional.mse_loss(model(batch[0]), batch[1]))


class Loader:
    """Shuffles by a random state of its own, and calls `between` in front of every epoch."""

    def __init__(self, seed: int, size: int, between: Any = None) -> None:
        self.x, self.y = batch("train", seed, 64)
        self.size, self.between = size, between
        self.generator = torch.Generator().manual_seed(seed % 2**31)

    def __iter__(self) -> Any:
        if self.between is not None:
            self.between()
        order = torch.randperm(64, generator=self.generator)
        return iter([(self.x[i], self.y[i]) for i in torch.split(order, self.size)])


def tiny(
    *, learning_rate: float = 1e-2, momentum: float = 0.5, batch_size: int = 16,
    unused: float = 1.0, hidden: int = 0, wait: float = 0.0,
) -> ris_diag.Case:  # fmt: skip
    """A case by its loss and its optimiser, which can be resumed."""
    pause = float(os.environ.get("TINY_WAIT", wait))

    def make() -> nn.Module:
        if hidden:
            return nn.Sequential(nn.Linear(4, hidden), nn.Dropout(0.1), nn.Linear(hidden, 1))
        return nn.Linear(4, 1)

    def between() -> None:
        if pause:
            time.sleep(pause)

    return ris_diag.Case(
        name="tiny",
        model=make,
        batch=batch,
        loss=loss,
        loader=lambda split, seed: Loader(seed, batch_size, between),
        optimizer=lambda model: torch.optim.SGD(
            model.parameters(), lr=learning_rate, momentum=momentum
        ),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.95),
        metric=metric,
        baselines={"zero": lambda batch: batch[1].square().mean()},
    )


def noisy(*, learning_rate: float = 1e-2, momentum: float = 0.5, hidden: int = 4) -> ris_diag.Case:
    """The same with labels that can't be foretold: no metric is below the variance of the noise."""
    noise = 0.5

    def loader(split: str, seed: int) -> Loader:
        served = Loader(seed, 16)
        served.x, served.y = batch("train", seed, 64, noise)
        return served

    return replace(
        tiny(learning_rate=learning_rate, momentum=momentum, hidden=hidden),
        batch=lambda split, seed, size: batch(split, seed, size, noise),
        loader=loader,
    )


def own_loop(*, learning_rate: float = 1e-2, momentum: float = 0.5) -> ris_diag.Case:
    """The same with an author's own loop."""

    def fit(model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
        history = []
        for epoch in range(1, plan.epochs + 1):
            losses = []
            for x, y in plan.train:
                value = nn.functional.mse_loss(model(x), y)
                plan.on_step(epoch, value)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(value.item())
            history.append(ris_diag.Epoch(train=sum(losses) / len(losses)))
        return history

    return ris_diag.Case(
        name="tiny-own", model=lambda: nn.Linear(4, 1), batch=batch, fit=fit, metric=metric,
        loss=loss, loader=lambda split, seed: Loader(seed, 16),
    )  # fmt: skip


def own_loop_kept(*, learning_rate: float = 1e-2, momentum: float = 0.5) -> ris_diag.Case:
    """The author's own loop, which tells what it keeps: it can be resumed."""

    def fit(model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
        noise = torch.Generator().manual_seed(5)
        history = []
        for epoch in range(plan.resume(optimizer, scheduler, noise), plan.epochs + 1):
            for x, y in plan.train:
                jitter = 0.1 * torch.randn(x.shape, generator=noise)
                value = nn.functional.mse_loss(model(x + jitter), y)
                plan.on_step(epoch, value)
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            scheduler.step()
            history.append(ris_diag.Epoch(train=value.item()))
        return history

    return replace(
        own_loop(),
        fit=fit,
        model=lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 1)),
    )


def picky(*, learning_rate: float = 1e-2, momentum: float = 0.5) -> ris_diag.Case:
    """Refuses a momentum."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}: admissible is 0 <= momentum < 1")
    return tiny(learning_rate=learning_rate, momentum=momentum)


def breaking(*, learning_rate: float = 1e-2, kind: str = "none") -> ris_diag.Case:
    """Breaks by its parameters: raises, gives NaN, a metric of NaN or minus infinity."""

    def spoiled(model: nn.Module, batch: Batch, progress: ris_diag.Progress) -> Tensor:
        if kind == "raises":
            raise RuntimeError("no such layer")
        if kind == "late" and progress.epoch > 2:
            raise RuntimeError("too late")
        value = loss(model, batch, progress)
        return value * float("nan") if kind == "nan" else value

    def judge(model: nn.Module, batch: Batch) -> float:
        return {"metric": float("nan"), "minus": float("-inf")}.get(kind, metric(model, batch))

    return ris_diag.Case(
        name="breaking", model=lambda: nn.Linear(4, 1), batch=batch, loss=spoiled, metric=judge,
        loader=lambda split, seed: Loader(seed, 16),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=learning_rate),
    )  # fmt: skip


def kill_once(path: Path) -> None:
    """kill -9 of this process, the first time."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
