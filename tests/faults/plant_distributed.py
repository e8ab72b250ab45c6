"""Faults of a training on several processes."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from ris_diag import Case, Epoch, Plan
from tests.faults import registry
from tests.faults.ranked_parts import (
    Pair,
    TwoHeads,
    accumulates_without_sync,
    batch_norm,
    data,
    heads_by_turns,
    mse,
    normed,
    of,
    plain_ddp,
    rank,
    seeded_by_rank,
    shares,
    sums_over_all_samples,
    told_the_epoch,
    trained,
    uneven,
    uneven_but_joined,
    with_dropout,
    world,
)
from tests.faults.zoo_parts import mlp, regression

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
    def distributed(model: nn.Module) -> Any:
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


# ---- parameters that wait


class Spare(nn.Module):
    """A head that the loss never sees, or that a rank's data never need."""

    def __init__(self, *, by_rank: bool) -> None:
        super().__init__()
        self.net, self.by_rank = mlp(8, 16, 1), by_rank
        self.spare = nn.Linear(8, 1)  # planted: head_is_never_used

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x)
        needed = self.by_rank and float(x[0, 0]) < 2.5  # as a mask that is empty for a batch
        return output + self.spare(x) if needed else output


@fault(
    "L060",
    says="rank 0: spare.weight, spare.bias",
    cause=("parameters-unused", "module-never-used"),
    place=("here", "spare.weight"),
    healthy=heads_by_turns,
    source=DDP,
)
def head_is_never_used() -> Case:
    return replace(
        plain_ddp(),
        model=partial(Spare, by_rank=False),
        distributed=DistributedDataParallel,  # planted: head_is_never_used
    )


def extreme(split: str, seed: int) -> list[Pair]:
    """Batches of which those of rank 1 begin with a sample far out."""
    found = [regression(split, 1000 * seed + 100 * rank() + k, 8) for k in range(6)]
    for x, _ in found:
        x[0, 0] = 3.0 if rank() == 1 else 0.0
    return found


@fault(
    "L060",
    says="rank 1: spare.weight, spare.bias",
    cause="parameters-unused",
    place=("here", "spare.weight"),
    healthy=heads_by_turns,
    source=DDP,
)
def head_is_unused_on_one_rank() -> Case:
    return replace(
        plain_ddp(),
        model=partial(Spare, by_rank=True),
        loader=extreme,
        distributed=DistributedDataParallel,  # planted: head_is_unused_on_one_rank
    )


@fault(
    "L060",
    says="parameters get no gradient in some step",
    cause="parameters-unused",
    place=("here", "heads.0.weight"),
    healthy=heads_by_turns,
    source=DDP,
)
def wrapper_expects_both_heads() -> Case:
    return replace(
        heads_by_turns(),
        model=TwoHeads,
        distributed=DistributedDataParallel,  # planted: wrapper_expects_both_heads
    )


# ---- ranks that part


@fault(
    "L060",
    says="had finished its loop",
    cause="collective-on-some-ranks",
    healthy=plain_ddp,
    source="PyTorch, torch.distributed.monitored_barrier",
)
def rank_0_waits_at_a_barrier() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        history = trained(model, plan, mse)
        if rank() == 0 and world() > 1:
            dist.barrier()  # planted: rank_0_waits_at_a_barrier
        return history

    return replace(plain_ddp(), fit=fit)


@fault(
    "L060",
    says="the ranks get 3, 2 batches in an epoch",
    cause="ranks-get-uneven-batches",
    healthy=uneven_but_joined,
    source="PyTorch, Distributed Training with Uneven Inputs Using the Join Context Manager",
    within=(trained, mse),
)
def uneven_without_join() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, mse)  # planted: uneven_without_join

    return replace(uneven_but_joined(), loader=uneven, fit=fit)


@fault(
    "L060",
    says="rank 1: ValueError: a scene without sources",
    cause="rank-raises-alone",
    healthy=plain_ddp,
    source="PyTorch, torch.distributed.elastic, error propagation",
)
def rank_1_raises() -> Case:
    def loss(model: nn.Module, batch: Pair) -> Tensor:
        if world() > 1 and rank() == 1:
            raise ValueError("a scene without sources")  # planted: rank_1_raises
        return mse(model, batch)

    return replace(plain_ddp(), **of(loss))


# ---- a mean that is none


@fault(
    "L064",
    says="it is 0.5 times as large: the loss is a sum over the rank's batch",
    cause="sum-averaged-over-ranks",
    healthy=sums_over_all_samples,
    source=SCALING,
)
def summed_loss_is_averaged() -> Case:
    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y, reduction="sum")

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, loss)  # planted: summed_loss_is_averaged

    return replace(sums_over_all_samples(), **{**of(loss), "fit": fit})


@fault(
    "L064",
    says="it is 0.5 times as large: a mean is divided by the number of ranks once more",
    cause="divided-by-ranks-twice",
    healthy=plain_ddp,
    source=SCALING,
)
def loss_is_divided_by_the_ranks() -> Case:
    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return mse(model, batch) / world()

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, loss)  # planted: loss_is_divided_by_the_ranks

    return replace(plain_ddp(), **{**of(loss), "fit": fit})


@fault(
    "L064",
    says="each rank's mean counts the same, of 12, 4 samples",
    cause="shares-count-alike",
    healthy=sums_over_all_samples,
    source=SCALING,
)
def means_of_uneven_batches() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, mse)  # planted: means_of_uneven_batches

    loader = shares(regression, (12, 4))
    return replace(sums_over_all_samples(), loader=loader, **{**of(mse), "fit": fit})


@fault(
    "L064",
    says="neither a share, a sum nor a mean of the ranks' own gradients",
    cause="gradient-depends-on-ranks",
    healthy=plain_ddp,
    source=SCALING,
)
def ranks_are_weighted() -> Case:
    def loss(model: nn.Module, batch: Pair) -> Tensor:
        return mse(model, batch) * (1 + rank())

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, loss)  # planted: ranks_are_weighted

    return replace(plain_ddp(), **{**of(loss), "fit": fit})


# ---- noise


@fault(
    "L065",
    says="the ranks drew equal numbers",
    cause="ranks-share-their-noise",
    healthy=seeded_by_rank,
    source="PyTorch, Reproducibility",
)
def seed_is_that_of_all_ranks() -> Case:
    # planted: seed_is_that_of_all_ranks
    return replace(seeded_by_rank(), distributed=DistributedDataParallel)


@fault(
    "L065",
    says="from torch",
    cause="ranks-share-their-noise",
    healthy=with_dropout,
    source="PyTorch, Reproducibility",
    within=(trained,),
)
def augmentation_is_seeded_by_the_epoch() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        torch.manual_seed(plan.epochs)  # planted: augmentation_is_seeded_by_the_epoch
        return trained(model, plan, noisy)

    def noisy(model: nn.Module, batch: Pair) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x + 0.1 * torch.randn_like(x)), y)

    return replace(plain_ddp(), fit=fit)
