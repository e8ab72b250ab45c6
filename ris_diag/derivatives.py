"""Derivatives that the user's code takes inside of its loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ris_diag.graph import tensors_in
from ris_diag.places import calling_place


class Derivatives(TorchFunctionMode):
    """Finds gradients with respect to an input, taken without a graph, that enter a loss.

    Those with respect to parameters weigh terms or make first-order steps, on purpose.

    Attributes:
        constants: where such a gradient was taken, and where it meets what has a graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.constants: dict[str, str] = {}
        self._taken: dict[int, tuple[Tensor, str]] = {}  # kept alive: ids are used again

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it; follow what has lost its graph."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is torch.autograd.grad:
            self._note(result, args, kwargs)
        elif self._taken:
            self._follow(result, tensors_in((args, kwargs)))
        return result

    def _note(self, result: Any, args: Any, kwargs: Any) -> None:
        inputs = tensors_in(kwargs.get("inputs", args[1:2]))
        if any(x.is_leaf and not isinstance(x, nn.Parameter) for x in inputs):
            place = calling_place()
            for found in tensors_in(result):
                if not found.requires_grad:
                    self._taken[id(found)] = found, place

    def _follow(self, result: Any, given: list[Tensor]) -> None:
        taken = next((self._taken[id(t)][1] for t in given if id(t) in self._taken), None)
        if taken is None:
            return
        if any(t.requires_grad and not t.is_leaf for t in given):
            self.constants.setdefault(taken, calling_place())
        else:
            for found in tensors_in(result):
                if not found.requires_grad:
                    self._taken[id(found)] = found, taken
