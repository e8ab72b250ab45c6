"""Watches a running training: the losses really differentiated, the steps really taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ris_diag.places import calling_place


class TrainingStopped(BaseException):
    """Ends a loop after the asked number of steps; no `except Exception` swallows it."""


@dataclass
class Trace:
    """What was seen.

    Attributes:
        backward: value of every tensor on which `backward()` was called, in order: [] scalars.
        gradient_norms: for every backward pass the norm of each parameter's gradient after it
            (before any clipping), real [P]; 0 where there is none.
        learning_rates: for every optimiser step the learning rate of each parameter group.
        step_place: file:line of the user's code that took the first optimiser step.
    """

    backward: list[Tensor] = field(default_factory=list)
    gradient_norms: list[Tensor] = field(default_factory=list)
    learning_rates: list[list[float]] = field(default_factory=list)
    step_place: str = ""

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return len(self.learning_rates)

    @property
    def losses(self) -> list[float]:
        """Values of `backward` as numbers."""
        return [float(value) for value in self.backward]


@contextmanager
def observe(model: nn.Module | None = None, *, stop_after: int | None = None) -> Iterator[Trace]:
    """Watch all training inside the `with`; nothing stays behind after it.

    Args:
        model: whose gradient norms are recorded.
        stop_after: ends the body of the `with` after so many optimiser steps.

    Yields:
        the trace, filled while the body runs.
    """
    trace = Trace()
    parameters = [] if model is None else list(model.parameters())
    original = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
        original(tensors, *args, **kwargs)
        for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
            trace.backward.append(tensor.detach().clone())
        if parameters:
            norms = [
                p.new_zeros((), dtype=torch.float64)
                if p.grad is None
                else p.grad.detach().norm().double()
                for p in parameters
            ]
            trace.gradient_norms.append(torch.stack(norms))

    def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        trace.step_place = trace.step_place or calling_place()
        trace.learning_rates.append([float(group["lr"]) for group in optimizer.param_groups])

    def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if stop_after is not None and trace.steps >= stop_after:
            raise TrainingStopped

    hooks = [
        register_optimizer_step_pre_hook(before),
        register_optimizer_step_post_hook(after),
    ]
    torch.autograd.backward = backward
    try:
        yield trace
    except TrainingStopped:
        if stop_after is None:
            raise
    finally:
        torch.autograd.backward = original
        for hook in hooks:
            hook.remove()
