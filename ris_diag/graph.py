"""The autograd graph behind a loss, and the tensors in a structure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in tuples, lists and mappings, whatever they nest."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in tensors_in(item)]
    if isinstance(value, list | tuple):
        return [t for item in value for t in tensors_in(item)]
    return []


def map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure of tuples, lists, mappings and dataclasses, each leaf changed."""
    if isinstance(value, Mapping):
        changed = {key: map_leaves(item, change) for key, item in value.items()}
        return type(value)(changed)  # type: ignore[call-arg]  # dict, OrderedDict and the like
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_leaves(item, change) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(map_leaves(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type) and not hasattr(value, "to"):
        moved: Any = copy(value)
        for field in fields(value):
            item = map_leaves(getattr(value, field.name), change)
            object.__setattr__(moved, field.name, item)  # it may be frozen
        return moved
    return change(value)


def nodes(loss: Tensor) -> list[Any]:
    """The operations in the graph of `loss`, always in the same order."""
    waiting: list[Any] = [loss.grad_fn]
    seen: dict[Any, None] = {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen[node] = None
        waiting += [following for following, _ in node.next_functions]
    return list(seen)


def leaves(loss: Tensor, graph: Iterable[Any] | None = None) -> Iterator[Tensor]:
    """The tensors with a gradient of their own to which the graph of `loss` leads.

    Args:
        graph: its `nodes`, where they are known.
    """
    if loss.grad_fn is None and loss.requires_grad:
        yield loss
    for node in nodes(loss) if graph is None else graph:
        if hasattr(node, "variable"):
            yield node.variable
