"""Faults in what each rank of a training has: its replica, its data, its buffers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from ris_diag import Case, Epoch, Plan
from tests.faults import registry
from tests.faults.ranked_parts import (
    Pair,
    accumulates_without_sync,
    batch_norm,
    data,
    mse,
    normed,
    of,
    plain_ddp,
    rank,
    ranked,
    told_the_epoch,
    trained,
    world,
)
from tests.faults.zoo_parts import mlp

fault = partial(registry.fault, ranks=2)
DDP = "PyTorch, Distributed Data Parallel, internal design and notes"
SAMPLER = "PyTorch, torch.utils.data.distributed.DistributedSampler"
SCALING = "Goyal et al., Accurate, Large Minibatch SGD (2017), pitfalls of distributed SGD"


def stepped(
    model: nn.Module,
    plan: Plan,
    optimizer: torch.optim.Optimizer,
    between: Callable[[], Any],
) -> list[Epoch]:
    """The loop, with something between backward() and step()."""
    history = []
    for epoch in range(1, plan.epochs + 1):
        told_the_epoch(plan.train, epoch)
        losses = []
        for batch in plan.train:
            loss: Any = mse(model, batch)
            plan.on_step(epoch, loss)
            optimizer.zero_grad()
            loss.backward()
            between()
            optimizer.step()
            losses.append(loss.item())
        history.append(Epoch(train=sum(losses) / len(losses)))
    return history


# ---- replicas that are none


@fault(
    "L061",
    says="there is no DistributedDataParallel in the model that the loop gets",
    cause="model-not-wrapped",
    healthy=plain_ddp,
    source=DDP,
)
def model_is_not_wrapped() -> Case:
    def distributed(model: nn.Module) -> nn.Module:
        return model  # planted: model_is_not_wrapped

    return replace(plain_ddp(), distributed=distributed)


@fault(
    "L061",
    says="the wrapper was called 0 times",
    cause="wrapper-not-called",
    healthy=plain_ddp,
    source=DDP,
    within=(trained,),
)
def wrapped_module_is_called() -> Case:
    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, y = batch
        output = getattr(model, "module", model)(x)  # planted: wrapped_module_is_called
        return F.mse_loss(output, y)

    return replace(plain_ddp(), **of(loss))


@fault(
    "L061",
    says="ran under no_sync()",
    cause="no-sync-never-ends",
    healthy=accumulates_without_sync,
    source=DDP,
)
def no_sync_lasts() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        history = []
        for epoch in range(1, plan.epochs + 1):
            told_the_epoch(plan.train, epoch)
            losses = []
            with getattr(model, "no_sync", nullcontext)():  # planted: no_sync_lasts
                for number, batch in enumerate(plan.train, 1):
                    loss: Any = mse(model, batch) / 2
                    plan.on_step(epoch, loss)
                    loss.backward()
                    losses.append(loss.item())
                    if number % 2 == 0:
                        optimizer.step()
                        optimizer.zero_grad()
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history

    return replace(accumulates_without_sync(), fit=fit)


@fault(
    "L061",
    says="those of the others are equal",
    cause="parameters-outside-wrapper",
    place=("here", "adapter.weight"),
    healthy=plain_ddp,
    source=DDP,
)
def adapter_is_added_behind_the_wrapping() -> Case:
    def distributed(model: nn.Module) -> nn.Module:
        wrapped = DistributedDataParallel(model)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            # planted: adapter_is_added_behind_the_wrapping
            wrapped.module.adapter = nn.Linear(8, 1)
        return wrapped

    return replace(plain_ddp(), model=Adapted, distributed=distributed)


class Adapted(nn.Module):
    """With an adapter, once there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(8, 16, 1)
        self.adapter: Any
        self.register_module("adapter", None)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x)
        return output if self.adapter is None else output + self.adapter(x)


@fault(
    "L060",
    says="waits for parameters that get no gradient: RuntimeError: Expected to have finished",
    cause="parameters-unused",
    healthy=plain_ddp,
    source=DDP,
)
def head_is_replaced_behind_the_wrapping() -> Case:
    def distributed(model: nn.Module) -> Any:
        wrapped: Any = DistributedDataParallel(model)
        wrapped.module[-1] = nn.Linear(16, 1)  # planted: head_is_replaced_behind_the_wrapping
        return wrapped

    return replace(plain_ddp(), distributed=distributed)


@fault(
    "L061",
    says="when the model is called first",
    cause="weights-begin-apart",
    healthy=plain_ddp,
    source=DDP,
)
def weights_are_initialised_behind_the_wrapping() -> Case:
    def distributed(model: Any) -> Any:
        wrapped: Any = DistributedDataParallel(model)
        # planted: weights_are_initialised_behind_the_wrapping
        nn.init.xavier_uniform_(model[0].weight)
        return wrapped

    return replace(plain_ddp(), distributed=distributed)


@fault(
    "L061",
    says="although they got equal gradients",
    cause="steps-of-ranks-differ",
    healthy=plain_ddp,
    source=SCALING,
    within=(stepped,),
)
def rate_depends_on_the_rank() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        # planted: rate_depends_on_the_rank
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05 * (1 + rank()))
        return stepped(model, plan, optimizer, lambda: None)

    return replace(plain_ddp(), fit=fit)


@fault(
    "L061",
    says="differ between the ranks at a step",
    cause="gradients-changed-by-rank",
    healthy=plain_ddp,
    source=DDP,
    within=(stepped,),
)
def noise_is_added_to_the_gradient() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        def between() -> None:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    # planted: noise_is_added_to_the_gradient
                    parameter.grad += 0.01 * torch.randn_like(parameter)

        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        return stepped(model, plan, optimizer, between)

    return replace(plain_ddp(), fit=fit)


# ---- data that are not divided


@fault(
    "L062",
    says="the ranks get the same samples in the same order",
    cause="sampler-missing",
    healthy=plain_ddp,
    source=SAMPLER,
)
def loader_shuffles_alike() -> Case:
    def loader(split: str, seed: int) -> Any:
        source = torch.Generator().manual_seed(seed)
        # planted: loader_shuffles_alike
        return DataLoader(data(split), batch_size=8, shuffle=True, generator=source)

    return replace(plain_ddp(), loader=loader)


@fault(
    "L062",
    says="each rank goes through all samples",
    cause="sampler-missing",
    healthy=plain_ddp,
    source=SAMPLER,
)
def loader_has_no_sampler() -> Case:
    def loader(split: str, seed: int) -> Any:
        # planted: loader_has_no_sampler
        return DataLoader(data(split), batch_size=8, shuffle=True)

    return replace(plain_ddp(), loader=loader)


@fault(
    "L062",
    says="ranks get samples of each other",
    cause="samplers-disagree",
    healthy=plain_ddp,
    source=SAMPLER,
)
def sampler_is_seeded_by_rank() -> Case:
    def loader(split: str, seed: int) -> Any:
        samples = data(split)
        sampler: DistributedSampler[Any] = DistributedSampler(
            samples,
            world(),
            rank(),
            seed=rank(),  # planted: sampler_is_seeded_by_rank
        )
        return DataLoader(samples, batch_size=8, sampler=sampler)

    return replace(plain_ddp(), loader=loader)


@fault(
    "L062",
    says="come in the same order in two epochs",
    cause="epoch-not-set",
    healthy=plain_ddp,
    source=SAMPLER,
)
def epoch_is_never_set() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        history = []
        for epoch in range(1, plan.epochs + 1):  # planted: epoch_is_never_set
            losses = []
            for batch in plan.train:
                loss: Any = mse(model, batch)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history

    return replace(plain_ddp(), fit=fit)


# ---- buffers


@fault(
    "L063",
    says="buffers differ between the ranks from call 2 on",
    cause="buffers-not-shared",
    place=("here", "1.running_mean"),
    healthy=batch_norm,
    source=DDP,
)
def buffers_are_not_sent() -> Case:
    # planted: buffers_are_not_sent
    wrap = partial(DistributedDataParallel, broadcast_buffers=False)
    return replace(batch_norm(), model=normed, distributed=wrap)


class Scaled(nn.Module):
    """Divides its input by a moving average of its size, kept beside the buffers."""

    def __init__(self, *, registered: bool) -> None:
        super().__init__()
        self.net = mlp(8, 16, 1)
        size = torch.ones(())
        if registered:
            self.register_buffer("size", size)
        else:
            self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.size = 0.9 * self.size + 0.1 * x.detach().abs().mean()
        output: Tensor = self.net(x / self.size)
        return output


@ranked
def scaled() -> Case:
    """The moving average is a buffer."""
    return replace(plain_ddp(), name="scaled", model=partial(Scaled, registered=True))


@fault(
    "L063",
    says="size by",
    cause="buffers-not-shared",
    place=("here", "size"),
    healthy=scaled,
    source=DDP,
)
def average_is_no_buffer() -> Case:
    # planted: average_is_no_buffer
    return replace(scaled(), model=partial(Scaled, registered=False))
