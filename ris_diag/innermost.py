"""The innermost module whose outputs of two runs part although the same entered it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.context import Subject
from ris_diag.graph import tensors_in
from ris_diag.places import where
from ris_diag.watched import place_of_model

# Whether two tensors agree as far as they must; None where that can't be said of such shapes.
Agree = Callable[[Tensor, Tensor], bool | None]


@dataclass
class _Call:
    path: str
    given: list[Tensor]
    made: list[Tensor] = field(default_factory=list)


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[_Call]]:
    """The calls of a model's modules, in the order in which they end."""
    running: list[_Call] = []
    ended: list[_Call] = []

    def begin(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            running.append(_Call(path, _copies((args, kwargs))))

        return hook

    def end(module: nn.Module, args: Any, output: Any) -> None:
        call = running.pop()
        call.made = _copies(output)
        ended.append(call)

    with ExitStack() as stack:
        for path, module in model.named_modules():
            handles = (
                module.register_forward_pre_hook(begin(path), with_kwargs=True),
                module.register_forward_hook(end, always_call=True),
            )
            for handle in handles:
                stack.callback(handle.remove)
        yield ended


def _copies(value: Any) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors_in(value)]


def place_of_parting(
    model: nn.Module, subject: Subject, runs: list[Callable[[], object]], agree: Agree
) -> str:
    """file:line of the user's innermost class around the first module at which two runs part.

    Args:
        model: what both runs call.
        runs: two calls of it.
        agree: whether two tensors agree as far as they must. A module is named if what entered
            it agrees in both runs and what it gave doesn't.

    Returns:
        "" where no module is such.
    """
    calls = []
    for run in runs:
        with _recording(model) as seen:
            run()
        calls.append(seen)
    for first, second in zip(*calls, strict=False):
        given = [len(call.given) for call in (first, second)]
        made = [len(call.made) for call in (first, second)]
        if first.path != second.path or given[0] != given[1] or made[0] != made[1]:
            return ""
        entered = list(map(_entered_alike, repeat(agree), first.given, second.given))
        parts = [found is False for found in map(agree, first.made, second.made)]
        if entered and all(entered) and any(parts):
            return _place(model, subject, first.path)
    return ""


def _entered_alike(agree: Agree, first: Tensor, second: Tensor) -> bool:
    found = agree(first, second)
    return torch.equal(first, second) if found is None else found


def _place(model: nn.Module, subject: Subject, path: str) -> str:
    """The user's innermost class around a module, and the module's path where it isn't his."""
    place, module = place_of_model(model, subject), model
    for part in path.split(".") if path else ():
        module = module.get_submodule(part)
        own = where(type(module))
        place = own if ":" in own else place
    users = ":" in where(type(module)) or not path
    return place if users else f"{place} ({path}: {type(module).__name__})"
