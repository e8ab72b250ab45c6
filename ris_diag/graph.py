"""The autograd graph behind a loss."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def leaves(loss: Tensor) -> Iterator[Tensor]:
    """The tensors with a gradient of their own to which the graph of `loss` leads."""
    waiting: list[Any] = [loss.grad_fn]
    seen = set()
    if loss.grad_fn is None and loss.requires_grad:
        yield loss
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [following for following, _ in node.next_functions]
