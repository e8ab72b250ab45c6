"""Whether something outside of the optimiser puts weights back to where they were."""

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
        self._glimpse = [_glimpse(p).clone() for p in held]

    def share(self, held: list[Tensor]) -> float:
        """How much of the way since the last step, or since the first, is taken back; 0 to 1."""
        if len(held) != len(self._after):
            return 0.0
        changed = [
            k
            for k, (p, glimpse) in enumerate(zip(held, self._glimpse, strict=True))
            if not torch.equal(_glimpse(p), glimpse)
        ]
        if not changed:
            return 0.0
        return max(self._taken_back(held, old, changed) for old in (self._before, self._first))

    def _taken_back(self, held: list[Tensor], old: list[Tensor], changed: list[int]) -> float:
        left = went = 0.0
        for k in changed:
            if old[k].shape != held[k].shape:
                return 0.0
            left += float((held[k].detach() - old[k]).abs().square().sum())
            went += float((self._after[k] - old[k]).abs().square().sum())
        return max(0.0, 1 - (left / went) ** 0.5) if went > 0 else 0.0


def _glimpse(parameter: Tensor) -> Tensor:
    return parameter.detach().flatten()[:LOOKED_AT]
