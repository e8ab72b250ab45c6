"""What happens to weights and gradients between backward pass and step, and between steps."""

import torch
from torch import Tensor

LOOKED_AT = 256  # entries of a parameter that tell whether it changed


class Undone:
    """Remembers the weights around an optimiser's last step, and those at its first."""

    def __init__(self) -> None:
        self._first: list[Tensor] = []
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []
        self._glimpse: list[Tensor] = []

    def stepped(self, held: list[Tensor], before: list[Tensor]) -> None:
        """Keep the weights in front of a step (copies) and behind it."""
        self._first = self._first or before
        self._before = before
        self._after = [p.detach().clone() for p in held]
        self._glimpse = [glimpse(p).clone() for p in held]

    def share(self, held: list[Tensor]) -> float:
        """How much of the way since the last step, or since the first, is taken back; 0 to 1."""
        if len(held) != len(self._after):
            return 0.0
        changed = [
            k
            for k, (p, seen) in enumerate(zip(held, self._glimpse, strict=True))
            if not torch.equal(glimpse(p), seen)
        ]
        if not changed:
            return 0.0
        return max(self._taken_back(held, old, changed) for old in (self._before, self._first))

    def halved(self, held: list[Tensor]) -> torch.dtype | None:
        """The half precision to which the weights were rounded since the last step, if to one.

        Judged by what changed since then: all of it is now what that dtype holds exactly, and was
        not before.
        """
        if len(held) != len(self._after):
            return None
        pairs = [
            (glimpse(p), seen)
            for p, seen in zip(held, self._glimpse, strict=True)
            if p.dtype in (torch.float32, torch.float64) and not torch.equal(glimpse(p), seen)
        ]
        for dtype in (torch.bfloat16, torch.float16):  # the coarser one first
            if pairs and all(_held_by(dtype, p) and not _held_by(dtype, s) for p, s in pairs):
                return dtype
        return None

    def _taken_back(self, held: list[Tensor], old: list[Tensor], changed: list[int]) -> float:
        left = went = 0.0
        for k in changed:
            if k >= len(old) or old[k].shape != held[k].shape:  # a group was added since
                return 0.0
            left += float((held[k].detach() - old[k]).abs().square().sum())
            went += float((self._after[k] - old[k]).abs().square().sum())
        return max(0.0, 1 - (left / went) ** 0.5) if went > 0 else 0.0


class Turned:
    """Remembers the gradients behind the last backward pass."""

    def __init__(self) -> None:
        self._left: dict[int, Tensor] = {}

    def arrived(self, parameters: list[Tensor]) -> None:
        """Keep the gradients as backward left them."""
        self._left = {
            id(p): p.grad.detach().clone()
            for p in parameters
            if p.grad is not None and not p.grad.is_sparse
        }

    def cosine(self, held: list[Tensor]) -> float:
        """Between the gradients now and as they were; 1 where there is nothing to compare."""
        pairs = [
            (p.grad.detach(), self._left[id(p)])
            for p in held
            if p.grad is not None
            and id(p) in self._left
            and p.grad.shape == self._left[id(p)].shape
        ]
        inner = sum(float((now.conj() * was).real.sum()) for now, was in pairs)
        one, other = (sum(float(pair[k].abs().square().sum()) for pair in pairs) for k in range(2))
        size = (one * other) ** 0.5
        return inner / size if 0 < size < float("inf") else 1.0


def rounded_away(held: list[Tensor], updates: list[Tensor]) -> float:
    """Of half-precision parameters: share of the entries with a gradient that didn't change."""
    still = counted = 0
    for parameter, update in zip(held, updates, strict=False):
        if parameter.dtype in (torch.float16, torch.bfloat16) and parameter.grad is not None:
            wanted = parameter.grad != 0
            counted += int(wanted.sum())
            still += int((wanted & (update == 0)).sum())
    return still / counted if counted else 0.0


def _held_by(dtype: torch.dtype, values: Tensor) -> bool:
    return torch.equal(values.to(dtype).to(values.dtype), values)


def glimpse(parameter: Tensor) -> Tensor:
    """A few entries, enough to tell that a parameter changed."""
    return parameter.detach().flatten()[:LOOKED_AT]
