"""Where the autograd graph is cut: the operation, and file:line in the user's code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ris_diag.graph import leaves, tensors_in
from ris_diag.places import calling_place


@dataclass(frozen=True, kw_only=True)
class Cut:
    """An operation with a gradient at its input and none at its output.

    Attributes:
        operation: "detach()", "argmax()", "linear() under no_grad", ...
        behind: ids of the leaf tensors to which the graph of the input leads.
    """

    operation: str
    place: str
    behind: frozenset[int]


class Cuts(TorchFunctionMode):
    """Inside the `with`, notes every cut in `found`. Slows each operation down: a few steps do."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Cut] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function; note it where the graph ends in it."""
        result = func(*args, **(kwargs or {}))
        inputs = [a for a in tensors_in((args, kwargs or {})) if a.requires_grad]
        name = _name(func)
        if inputs and name in LEAVING | {"detach", "data"}:
            self._note(f"{name}()" if name != "data" else ".data", inputs)
        elif inputs and name not in ASKING:
            outputs = [t for t in tensors_in(result) if t.is_floating_point() or t.is_complex()]
            if outputs and not any(t.requires_grad for t in outputs):
                enabled = torch.is_grad_enabled()
                self._note(f"{name}()" + ("" if enabled else " under no_grad"), inputs)
            elif not outputs and name in DISCRETE:
                self._note(f"{name}()", inputs)
        return result

    def _note(self, operation: str, inputs: list[Tensor]) -> None:
        behind = frozenset(id(leaf) for tensor in inputs for leaf in leaves(tensor))
        self.found.append(Cut(operation=operation, place=calling_place(), behind=behind))


# Values that leave torch, choices without a slope, and questions that give no part of a result.
LEAVING = frozenset({"item", "tolist", "numpy", "__array__", "__float__"})
DISCRETE = frozenset({"argmax", "argmin", "argsort", "gt", "lt", "ge", "le", "bernoulli"})
ASKING = frozenset({"requires_grad", "grad", "grad_fn", "backward", "requires_grad_", "zero_"})


def _name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
