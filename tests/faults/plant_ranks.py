"""Faults in what the ranks of a training do together: collectives, means, randomness."""

from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ris_diag import Case, Epoch, Plan
from tests.faults import registry
from tests.faults.ranked_parts import (
    Pair,
    TwoHeads,
    heads_by_turns,
    mse,
    of,
    plain_ddp,
    rank,
    ranked,
    seeded_by_rank,
    shares,
    sums_over_all_samples,
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


def padded(split: str, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, 8], y [B, 1] and which samples count, [B, 1]: other shares on each rank."""
    x, y = regression(split, seed, size)
    kept = torch.arange(size)[:, None] < (size if rank() == 0 else size // 4)
    return x, y, kept


def masked(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Sum over what counts, and its number."""
    x, y, kept = batch
    return ((model(x) - y).square() * kept).sum(), kept.sum()


@ranked
def masks_over_all_ranks() -> Case:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        total, count = masked(model, batch)
        if dist.is_initialized():
            dist.all_reduce(count)
        return total * world() / count

    return replace(plain_ddp(), name="masks", batch=padded, loader=shares(padded, (8,)), **of(loss))


@fault(
    "L064",
    says="by what they hold of the mean they count 0.80, 0.20",
    cause="shares-count-alike",
    healthy=masks_over_all_ranks,
    source="Hugging Face, Fixing Gradient Accumulation (2024)",
)
def tokens_are_counted_by_rank() -> Case:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        total, count = masked(model, batch)
        return total / count

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, loss)  # planted: tokens_are_counted_by_rank

    return replace(masks_over_all_ranks(), **{**of(loss), "fit": fit})


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
