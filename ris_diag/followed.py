"""Where the user's code makes the loss from the network's output, operation by operation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ris_diag.graph import tensors_in
from ris_diag.places import calling_place, made_by_toolkit


@dataclass(frozen=True)
class _Made:
    place: str
    inputs: list[Tensor]
    results: list[Tensor]


class Followed(TorchFunctionMode):
    """Notes every operation inside the `with`, and keeps its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[_Made] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function and note it."""
        result = func(*args, **(kwargs or {}))
        results = [t for t in tensors_in(result) if t.is_floating_point() or t.is_complex()]
        if results and not made_by_toolkit():
            self._made.append(_Made(calling_place(), tensors_in((args, kwargs or {})), results))
        return result

    def meeting(self, value: Tensor, truth: Tensor | None) -> tuple[str, str]:
        """file:line where output and truth meet, and where one of them was changed before.

        Args:
            value: what is made from both.
            truth: None where it isn't known: any other tensor then.
        """
        known = set() if truth is None else {truth.untyped_storage().data_ptr()}
        meeting = change = ""
        for made in self._made:
            ours = any(t.requires_grad for t in made.inputs)
            if ours and not _leads(made, value):
                continue
            others = [t for t in made.inputs if not t.requires_grad and t.dtype != torch.bool]
            from_truth = any(t.untyped_storage().data_ptr() in known for t in others)
            if ours and from_truth:
                return made.place, change
            if ours and any(t.numel() > 1 for t in others):
                meeting = meeting or made.place
            elif ours or from_truth:
                change = made.place
            if from_truth:
                known |= {t.untyped_storage().data_ptr() for t in made.results}
        return meeting, change

    def maker(self, value: Tensor) -> str:
        """file:line of the operation that gave this very tensor; "" if none did."""
        places = [made.place for made in self._made if any(t is value for t in made.results)]
        return places[-1] if places else ""

    def breaking(self, value: Tensor) -> str:
        """file:line of the operation that makes a value, or its slope, not finite; "" if none."""
        for made in self._made:
            finite = all(bool(t.isfinite().all()) for t in made.inputs if not _whole(t))
            if finite and not all(bool(t.isfinite().all()) for t in made.results):
                return made.place
        for made in reversed(self._made):
            if _slope_breaks(value, made):
                return made.place
        return ""


def _leads(made: _Made, value: Tensor) -> bool:
    """Whether a value is computed from what an operation gave."""
    results = [t for t in made.results if t.requires_grad]
    if not results or not value.requires_grad or any(t is value for t in results):
        return bool(results)
    slopes = torch.autograd.grad(value, results, retain_graph=True, allow_unused=True)
    return any(slope is not None for slope in slopes)


def _whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


def _slope_breaks(value: Tensor, made: _Made) -> bool:
    """Whether the slope is finite behind an operation and not in front of it."""
    results = [t for t in made.results if t.requires_grad]
    inputs = [t for t in made.inputs if t.requires_grad and not any(t is r for r in results)]
    if not results or not inputs or not value.requires_grad:
        return False
    behind = torch.autograd.grad(value, results, retain_graph=True, allow_unused=True)
    pairs = [(r, s) for r, s in zip(results, behind, strict=True) if s is not None]
    if not pairs or not all(bool(slope.isfinite().all()) for _, slope in pairs):
        return False
    front = torch.autograd.grad(
        [r for r, _ in pairs], inputs, [s for _, s in pairs], retain_graph=True, allow_unused=True
    )
    return any(slope is not None and not bool(slope.isfinite().all()) for slope in front)
