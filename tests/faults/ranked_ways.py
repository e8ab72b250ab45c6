"""Healthy trainings on several processes that do more than the plain ones."""

import copy
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ris_diag import Case, Epoch, Plan
from tests.faults.ranked_parts import (
    Pair,
    mse,
    of,
    plain_ddp,
    ranked,
    shares,
    told_the_epoch,
    world,
)
from tests.faults.zoo_parts import LanguageModel, mlp, tokens


@ranked
def exchanges_in_half_precision() -> Case:
    def distributed(model: nn.Module) -> nn.Module:
        wrapped = DistributedDataParallel(model)
        wrapped.register_comm_hook(None, fp16_compress_hook)
        return wrapped

    return replace(plain_ddp(), name="half-exchange", distributed=distributed)


@ranked
def computes_in_half_precision() -> Case:
    def loss(model: nn.Module, batch: Pair) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
        return F.mse_loss(output.float(), y)

    return replace(plain_ddp(), name="half-computed", **of(loss))


@ranked
def keeps_an_average() -> Case:
    """A copy of the inner model that follows it, a schedule, clipping, a loss of all ranks."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=500)
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        average = copy.deepcopy(inner)
        history = []
        for epoch in range(1, plan.epochs + 1):
            told_the_epoch(plan.train, epoch)
            model.train()
            losses = []
            for batch in plan.train:
                optimizer.zero_grad()
                loss = mse(model, batch)
                plan.on_step(epoch, loss)
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                with torch.no_grad():
                    for held, new in zip(average.parameters(), inner.parameters(), strict=True):
                        held.lerp_(new, 0.1)
                reported = loss.detach().clone()
                if dist.is_initialized():
                    dist.all_reduce(reported)
                losses.append(float(reported) / world())
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history

    return replace(plain_ddp(), name="average", **{**of(mse), "fit": fit})


class Parts(nn.Module):
    """Two networks behind each other."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.back = mlp(8, 16, 4), mlp(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.back(self.front(x))
        return output


@ranked
def two_wrappers() -> Case:
    def distributed(model: nn.Module) -> nn.Module:
        for name, part in list(model.named_children()):
            setattr(model, name, DistributedDataParallel(part))
        return model

    return replace(plain_ddp(), name="two-wrappers", model=Parts, distributed=distributed)


@ranked
def next_token_of_ranks() -> Case:
    """Tied embeddings and dropout."""

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        output = model(batch[:, :-1])
        return F.cross_entropy(output.flatten(0, 1), batch[:, 1:].flatten())

    return replace(
        plain_ddp(),
        name="next-token",
        model=lambda: LanguageModel(tied=True),
        batch=tokens,
        loader=shares(tokens, (8,)),
        **of(loss),
    )
