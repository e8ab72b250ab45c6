"""What a training on several processes does, observed on a rank without any check."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ris_diag import Case, Plan
from ris_diag.ranks import Ranks
from tests.faults.effects import _trained

EPOCHS, BATCHES, SIZE, SECONDS = 2, 4, 8, 3.0
DIGITS = 5  # sums may round differently


class Shown:
    """The first batches of a loader; its sampler shows through."""

    def __init__(self, batches: Any, seen: list[Any]) -> None:
        self.batches, self.seen = batches, seen
        self.sampler = getattr(batches, "sampler", None)

    def __iter__(self) -> Iterator[Any]:
        for batch in islice(self.batches, BATCHES):
            self.seen.append([_number(part) for part in batch])
            yield batch


def outcome_of_rank(factory: Callable[[], Case], ranks: Ranks) -> dict[str, Any]:
    """Name of an observable to plain data."""
    seen: dict[str, Any] = {"served": [], "gradients": [], "weights": []}
    with ranks.together(SECONDS), torch.random.fork_rng(devices=()):
        torch.manual_seed(100 + ranks.rank)
        try:
            _observe(factory(), ranks, seen)
        except Exception as error:  # noqa: BLE001  # that it raises is what is observed
            seen["raises"] = type(error).__name__
        seen["drawn"] = _number(torch.rand(4))
    return seen


def _observe(case: Case, ranks: Ranks, seen: dict[str, Any]) -> None:
    assert case.model is not None
    assert case.batch is not None
    assert case.distributed is not None
    offset = BATCHES * ranks.rank
    batches: Any = [case.batch("train", offset + k, SIZE) for k in range(BATCHES)]
    if case.loader is not None:
        batches = case.loader("train", 1)
    model = case.distributed(case.model())

    def before(*_: Any) -> None:
        held = [p.grad for p in model.parameters() if p.grad is not None]
        seen["gradients"].append([_number(gradient) for gradient in held])

    def behind(*_: Any) -> None:
        seen["weights"].append(_state(model))

    hooks = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(behind)]
    try:
        plan = Plan(epochs=EPOCHS, train=Shown(batches, seen["served"]))
        seen["reported"] = str(len(_trained(case, model, plan)))
    finally:
        for hook in hooks:
            hook.remove()


def _state(model: nn.Module) -> dict[str, Any]:
    held = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    return {
        **{name: _number(tensor) for name, tensor in model.state_dict().items()},
        "beside": [_number(tensor) for tensor in held],
    }


def _number(tensor: Tensor) -> list[float]:
    wide = tensor.detach().double()
    return [float(f"{float(value):.{DIGITS}g}") for value in (wide.norm(), wide.abs().sum())]
