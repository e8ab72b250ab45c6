"""What one rank sees of itself while the author's loop runs on several."""

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ris_diag.case import Batch
from ris_diag.context import to_device
from ris_diag.marks import Mark, digests, mark, marks_of
from ris_diag.places import calling_place
from ris_diag.wrapped import held_tensors, plain_names, wrappers

SEEDING = (
    ("torch", torch, "manual_seed"),
    ("numpy", np.random, "seed"),
    ("random", random, "seed"),
)


@dataclass
class Replica:
    """What one rank saw of itself, plain data.

    Attributes:
        wrapped: whether a DistributedDataParallel is there; entered: its calls; inside: the calls
            of what it wraps.
        start: marks of the weights when the model is called first.
        steps: gradients and weights at every optimiser step: {"gradients", "weights", "synced",
            "place"}; a gradient that isn't there is None.
        buffers: marks of buffers, and of tensors that modules hold beside them, at each call.
        drawn: source of random numbers to a number for its state in front of a draw, one for
            every step and batch in which something was drawn.
        epochs: digests of the samples, by epoch and batch.
        seeded: source of random numbers to file:line that seeded it last.
    """

    wrapped: bool = False
    entered: int = 0
    inside: int = 0
    start: dict[str, Mark] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    buffers: list[dict[str, Mark]] = field(default_factory=list)
    drawn: list[dict[str, int]] = field(default_factory=list)
    epochs: list[list[list[int]]] = field(default_factory=list)
    seeded: dict[str, str] = field(default_factory=dict)


class Portion:
    """The first batches of the author's own loader, on a device; what else it has shows through."""

    def __init__(
        self,
        batches: Iterable[Batch],
        most: int,
        device: torch.device,
        note: Callable[[int, Batch], None] = lambda number, batch: None,
    ) -> None:
        self._batches, self._most, self._device, self._note = batches, most, device, note

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(islice(self._batches, self._most)):
            self._note(number, batch)
            yield to_device(batch, self._device)

    def __len__(self) -> int:
        return min(len(self._batches), self._most)  # type: ignore[arg-type]  # raises as it does itself

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


@contextmanager
def seeding(seen: Replica) -> Iterator[None]:
    """Note who seeds inside of the `with`."""

    def noted(kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def seed(*args: Any, **kwargs: Any) -> Any:
            seen.seeded[kind] = calling_place()
            return original(*args, **kwargs)

        return seed

    with ExitStack() as stack:
        for kind, owner, name in SEEDING:
            stack.enter_context(patch.object(owner, name, noted(kind, getattr(owner, name))))
        yield


class ReplicaWatch:
    """The hooks of one rank."""

    def __init__(self, seen: Replica, wrapped: nn.Module) -> None:
        self.seen, self.wrapped = seen, wrapped
        self.found = wrappers(wrapped)
        self.synced = True
        self._served = self._called = _random_states()
        self._behind: dict[str, int] = {}
        seen.wrapped = bool(self.found)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The hooks are there inside of the `with`."""
        inner = [each.module for each in self.found] or [self.wrapped]

        # A copy of the model, as a moving average begins with, takes its hooks along: functions
        # are shared by copies, a bound method would be copied with all that its object holds.
        def entering(module: nn.Module, args: Any) -> None:
            self.seen.entered += any(module is each for each in self.found)

        def calling(module: nn.Module, args: Any) -> None:
            if any(module is each for each in inner):
                self.calling()

        with ExitStack() as stack:
            for hook in (
                register_optimizer_step_pre_hook(self.before_step),
                register_optimizer_step_post_hook(self.after_step),
                *(each.register_forward_pre_hook(entering) for each in self.found),
                *(each.register_forward_pre_hook(calling) for each in inner),
            ):
                stack.callback(hook.remove)
            yield

    def serving(self, number: int, batch: Batch) -> None:
        """A batch is about to be handed to the loop."""
        if number == 0:
            self.seen.epochs.append([])
        self.seen.epochs[-1].append(digests(batch))
        self._served = self._called = _random_states()
        if number and self._behind:  # an epoch begins with draws of the loader's own
            self._drew(self._behind, self._served)

    def _drew(self, before: dict[str, int], now: dict[str, int]) -> bool:
        """Keep the states of the sources from which something was drawn."""
        moved = {kind: state for kind, state in before.items() if state != now.get(kind)}
        self.seen.drawn += [moved] if moved else []
        return bool(moved)

    def calling(self) -> None:
        """What is wrapped is called: behind all that its wrapper sends in front of that."""
        self.seen.inside += 1
        self.synced = all(each.require_backward_grad_sync for each in self.found)
        if not self.seen.start:
            self.seen.start = marks_of(plain_names(self.wrapped))
        self._called = _random_states()
        if torch.is_grad_enabled():
            self.seen.buffers.append(marks_of(held_tensors(self.wrapped)))

    def before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Note gradients as the step finds them."""
        named = plain_names(self.wrapped)
        self.seen.steps.append(
            {
                "gradients": {name: mark(p.grad) for name, p in named.items()},
                "synced": self.synced,
                "place": calling_place(),
            }
        )
        now = _random_states()
        if not self._drew(self._called, now):
            self._drew(self._served, now)

    def after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """Note weights as the step leaves them."""
        self.seen.steps[-1]["weights"] = marks_of(plain_names(self.wrapped))
        self._behind = _random_states()


def _random_states() -> dict[str, int]:
    """A number for the state of each source of random numbers."""
    numpy_state = np.random.get_state(legacy=False)["state"]
    states = {
        "torch": zlib.crc32(torch.get_rng_state().numpy().tobytes()),
        "numpy": zlib.crc32(repr((numpy_state["pos"], numpy_state["key"].tobytes())).encode()),
        "random": zlib.crc32(repr(random.getstate()).encode()),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = zlib.crc32(torch.cuda.get_rng_state().numpy().tobytes())
    return states
