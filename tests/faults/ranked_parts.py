"""Healthy trainings on several processes, as their authors would write them."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from ris_diag import Case, Declared, Epoch, Plan, Progress, Training
from tests.faults.zoo_parts import adam, classes, generator, mlp, regression

RANKED_HEALTHY: dict[str, Callable[[], Case]] = {}
Pair = tuple[Tensor, Tensor]
SAMPLES = 96


def ranked(factory: Callable[[], Case]) -> Callable[[], Case]:
    """Enters a healthy training of several processes."""
    RANKED_HEALTHY[factory.__name__] = factory
    return factory


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def data(split: str, samples: int = SAMPLES) -> TensorDataset:
    return TensorDataset(*regression(split, 0, samples))


def dealt(split: str, seed: int) -> DataLoader[Any]:
    samples = data(split)
    sampler: DistributedSampler[Any] = DistributedSampler(samples, world(), rank(), seed=seed)
    return DataLoader(samples, batch_size=8, sampler=sampler, drop_last=True)


def shares(data: Any, counts: tuple[int, ...], batches: int = 6) -> Callable[[str, int], Any]:
    """A loader of batches that are of another size on each rank."""

    def loader(split: str, seed: int) -> list[Any]:
        first = 1000 * seed + 100 * rank()
        return [data(split, first + k, counts[rank() % len(counts)]) for k in range(batches)]

    return loader


def mse(model: nn.Module, batch: Pair) -> Tensor:
    x, y = batch
    return F.mse_loss(model(x), y)


def told_the_epoch(batches: Iterable[Any], epoch: int) -> None:
    sampler = getattr(batches, "sampler", None)
    if isinstance(sampler, DistributedSampler):
        sampler.set_epoch(epoch)


def trained(model: nn.Module, plan: Plan, loss: Callable[[nn.Module, Any], Tensor]) -> list[Epoch]:
    """The loop of the trainings in which only the loss is of interest."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for epoch in range(1, plan.epochs + 1):
        told_the_epoch(plan.train, epoch)
        model.train()
        losses = []
        for batch in plan.train:
            value: Any = loss(model, batch)
            plan.on_step(epoch, value)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
        history.append(Epoch(train=sum(losses) / len(losses)))
    return history


def of(loss: Callable[[nn.Module, Any], Tensor]) -> dict[str, Any]:
    """The parts of a case with a loop of its own around a loss."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, loss)

    def part(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        return loss(model, batch)

    return {"fit": fit, "loss": part}


@ranked
def plain_ddp() -> Case:
    return Case(
        name="plain-ddp",
        model=lambda: mlp(8, 16, 1),
        batch=regression,
        loader=dealt,
        distributed=DistributedDataParallel,
        **of(mse),
    )


@ranked
def with_dropout() -> Case:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))

    return replace(plain_ddp(), name="with-dropout", model=model)


@ranked
def seeded_by_rank() -> Case:
    """Equal weights, then noise of one's own."""

    def model() -> nn.Module:
        torch.manual_seed(7)  # planted: seed_is_that_of_all_ranks
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))

    def distributed(model: nn.Module) -> nn.Module:
        torch.manual_seed(7 + rank())
        return DistributedDataParallel(model)

    return replace(plain_ddp(), name="seeded-by-rank", model=model, distributed=distributed)


@ranked
def accumulates_without_sync() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        history = []
        for epoch in range(1, plan.epochs + 1):
            told_the_epoch(plan.train, epoch)
            losses = []
            for number, batch in enumerate(plan.train, 1):
                last = number % 2 == 0
                with nullcontext() if last else getattr(model, "no_sync", nullcontext)():
                    loss: Any = mse(model, batch) / 2
                    plan.on_step(epoch, loss)
                    loss.backward()
                losses.append(loss.item())
                if last:
                    optimizer.step()
                    optimizer.zero_grad()
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history

    return replace(
        plain_ddp(), name="accumulates", fit=fit, declared=Declared(accumulation=2, tied=())
    )


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


@ranked
def batch_norm() -> Case:
    return replace(plain_ddp(), name="batch-norm", model=normed)


def sync_batch_norm() -> Case:
    """On GPUs alone: there is no SyncBatchNorm on the CPU."""

    def distributed(model: nn.Module) -> nn.Module:
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        return DistributedDataParallel(convert(model), broadcast_buffers=False)

    return replace(batch_norm(), name="sync-batch-norm", distributed=distributed)


def summed_right(model: nn.Module, batch: Pair) -> Tensor:
    """The rank's sum over the samples of all ranks; the ranks are averaged behind it."""
    x, y = batch
    count = torch.tensor(float(len(x)), device=x.device)
    if dist.is_initialized():
        dist.all_reduce(count)
    return F.mse_loss(model(x), y, reduction="sum") * world() / count


@ranked
def sums_over_all_samples() -> Case:
    return replace(plain_ddp(), name="sums", loader=shares(regression, (8, 6)), **of(summed_right))


class TwoHeads(nn.Module):
    """One head at a time, by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(16, 1), nn.Linear(16, 1)])
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.turn += 1
        output: Tensor = self.heads[self.turn % 2](self.body(x))
        return output


@ranked
def heads_by_turns() -> Case:
    wrap = partial(DistributedDataParallel, find_unused_parameters=True)
    return replace(plain_ddp(), name="heads-by-turns", model=TwoHeads, distributed=wrap)


class Twice(nn.Module):
    """One layer that is gone through twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x).relu()
        output: Tensor = self.head(self.again(self.again(hidden).relu()).relu())
        return output


@ranked
def static_graph() -> Case:
    wrap = partial(DistributedDataParallel, static_graph=True)
    return replace(plain_ddp(), name="static-graph", model=Twice, distributed=wrap)


def two_views(split: str, seed: int, size: int) -> Pair:
    """x [B, 8] and a noisy copy."""
    x, _ = regression(split, seed, size)
    return x, x + 0.1 * torch.randn(size, 8, generator=generator(split, seed + 1))


@ranked
def compares_samples() -> Case:
    """Each sample is told from the others of its rank's batch: no share of one global loss."""

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        one, other = model(torch.cat(batch)).chunk(2)
        return F.cross_entropy(one @ other.T, torch.arange(len(one), device=one.device))

    return replace(
        plain_ddp(),
        name="compares-samples",
        model=lambda: mlp(8, 16, 4),
        batch=two_views,
        loader=shares(two_views, (8,)),
        **of(loss),
    )


def uneven(split: str, seed: int) -> list[Pair]:
    """Three batches on rank 0, two on the others."""
    first = 1000 * seed + 100 * rank()
    return [regression(split, first + k, 8) for k in range(3 if rank() == 0 else 2)]


def joined(model: nn.Module) -> Any:
    return Join([model]) if isinstance(model, DistributedDataParallel) else nullcontext()


@ranked
def uneven_but_joined() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        with joined(model):
            return trained(model, plan, mse)

    return replace(plain_ddp(), name="joined", loader=uneven, **{**of(mse), "fit": fit})


@ranked
def averages_by_hand() -> Case:
    """Without a wrapper: weights are sent out once, gradients averaged at every step."""

    def distributed(model: nn.Module) -> nn.Module:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, src=0)
        return model

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        history = []
        for epoch in range(1, plan.epochs + 1):
            told_the_epoch(plan.train, epoch)
            losses = []
            for batch in plan.train:
                loss: Any = mse(model, batch)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                loss.backward()
                for parameter in model.parameters():
                    if dist.is_initialized() and parameter.grad is not None:
                        dist.all_reduce(parameter.grad)
                        parameter.grad /= world()
                optimizer.step()
                losses.append(loss.item())
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history

    return replace(plain_ddp(), name="by-hand", distributed=distributed, **{**of(mse), "fit": fit})


@ranked
def by_steps() -> Case:
    """The loop is ris-diag's, the step the author's."""

    def step(training: Training, batch: Pair, progress: Progress) -> float:
        loss: Any = mse(training.model, batch)
        training.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step()
        return float(loss.item())

    return replace(plain_ddp(), name="by-steps", fit=None, step=step, optimizer=adam(1e-2))


@ranked
def lent_parts() -> Case:
    """What a script has at hand, and the class that wraps it."""
    samples = data("train")
    model = mlp(8, 16, 1)
    sampler: DistributedSampler[Any] = DistributedSampler(samples, world(), rank())
    return Case.from_xy(
        model,
        DataLoader(samples, batch_size=8, sampler=sampler),
        F.mse_loss,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        name="lent",
        distributed=DistributedDataParallel,
    )


@ranked
def of_classes() -> Case:
    """Cross entropy, no loader: each rank gets other samples of Case.batch."""

    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    return replace(
        plain_ddp(),
        name="classes",
        model=lambda: mlp(8, 16, 4),
        batch=classes,
        loader=None,
        **of(loss),
    )
