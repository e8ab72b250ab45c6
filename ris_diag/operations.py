"""Every operation of a running training: where its graph is cut."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ris_diag.graph import leaves, tensors_in
from ris_diag.places import calling_place, made_by_toolkit


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation worth noting.

    Attributes:
        name: "detach()", "argmax()", "linear() under no_grad", ...
        place: file:line of the user's code.
        behind: of a cut, ids of the leaf tensors to which the graph of the input leads.
    """

    name: str
    place: str
    behind: frozenset[int] = field(default=frozenset(), repr=False)


class Operations(TorchFunctionMode):
    """Looks at every operation inside the `with`; a step takes several times as long.

    Attributes:
        cuts: operations with a gradient at their input and none at their output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cuts: list[Operation] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if made_by_toolkit():
            return result
        name = _name(func)
        inputs = [a for a in tensors_in((args, kwargs)) if a.requires_grad]
        if inputs and name not in ASKING and _cuts(name, result):
            self._cut(name, inputs)
        return result

    def _cut(self, name: str, inputs: list[Tensor]) -> None:
        shown = ".data" if name == "data" else f"{name}()"
        if not torch.is_grad_enabled() and name not in LEAVING:
            shown += " under no_grad"
        behind = frozenset(id(leaf) for tensor in inputs for leaf in leaves(tensor))
        self.cuts.append(Operation(name=shown, place=calling_place(), behind=behind))


# Values that leave the graph for good, choices without a slope, questions that are no computation.
LEAVING = frozenset(["item", "tolist", "numpy", "__array__", "__float__", "detach", "data"])
CHOICES = frozenset(["argmax", "argmin", "argsort", "gt", "lt", "ge", "le", "bernoulli"])
ASKING = frozenset(["requires_grad", "grad", "grad_fn", "backward", "requires_grad_", "zero_"])


def _cuts(name: str, result: Any) -> bool:
    if name in LEAVING:
        return True
    outputs = [t for t in tensors_in(result) if t.is_floating_point() or t.is_complex()]
    if not outputs:
        return name in CHOICES
    return not any(t.requires_grad for t in outputs)


def _name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
