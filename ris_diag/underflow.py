"""What float16 loses of a gradient that is too small for it at the scale in use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ris_diag.graph import leaves
from ris_diag.places import calling_place

# Powers of two change no digit that float16 can hold; the largest that overflows nowhere is taken.
FACTORS = (2.0**20, 2.0**16, 2.0**12, 2.0**8, 2.0**4)
COUNTS = 1e-3  # of the largest gradient: a parameter's below it may be nothing but rounding


@dataclass
class Passes:
    """What was seen of the backward passes.

    Attributes:
        seen: those that were compared.
        refused: what PyTorch says where a graph doesn't let its gradient be taken twice.
    """

    seen: list["Lost"] = field(default_factory=list)
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """One backward pass, compared with that of a larger loss.

    Attributes:
        number: of the pass among all, from 0.
        shares: by name of the parameter what is lost of its gradient, `||g - g'|| / ||g'||`, where
            g' is the gradient of the larger loss divided by the factor; 0 where there is next to
            none.
        factor: by which the loss was larger; 1 where the scale is as large as float16 allows.
        place: file:line of the user's backward pass.
    """

    number: int
    shares: dict[str, float]
    factor: float
    place: str


@contextmanager
def losing(model: nn.Module) -> Iterator[Passes]:
    """Take every backward pass inside the `with` once more, with a larger loss.

    Left out are passes whose gradient isn't finite as it is: a GradScaler lowers its scale then.
    """
    watch = _Watch({id(p): name for name, p in model.named_parameters()})
    with patch.object(torch.autograd, "backward", watch.noted(torch.autograd.backward)):
        yield watch.passes


class _Watch:
    def __init__(self, names: dict[int, str]) -> None:
        self.names, self.passes, self.count = names, Passes(), 0

    def noted(self, original: Callable[..., None]) -> Callable[..., None]:
        """`torch.autograd.backward` with a look at the gradient in front of it."""

        def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
            root = tensors if isinstance(tensors, Tensor) else next(iter(tensors))
            if root.numel() == 1 and root.grad_fn is not None and not self.passes.refused:
                try:
                    self._compare(root)
                except RuntimeError as error:  # checkpoints that are re-entered, for one
                    self.passes.refused = str(error).partition("\n")[0]
            self.count += 1
            original(tensors, *args, **kwargs)

        return backward

    def _compare(self, root: Tensor) -> None:
        held = list({id(leaf): leaf for leaf in leaves(root)}.values())
        names = [self.names.get(id(leaf), f"tensor {list(leaf.shape)}") for leaf in held]
        as_it_is = _gradient(root, held, 1.0)
        if not _finite(as_it_is):
            return
        shares, factor = [0.0] * len(held), 1.0
        for larger_by in FACTORS:
            larger = _gradient(root, held, larger_by)
            if _finite(larger):
                shares, factor = _shares(as_it_is, larger), larger_by
                break
        named = dict(zip(names, shares, strict=True))
        lost = Lost(number=self.count, shares=named, factor=factor, place=calling_place())
        self.passes.seen.append(lost)


def _shares(as_it_is: list[Tensor], larger: list[Tensor]) -> list[float]:
    norms = [float(g.norm()) for g in larger]
    least = COUNTS * max(norms, default=0.0)
    return [
        float((a - b).norm()) / norm if norm > least else 0.0
        for a, b, norm in zip(as_it_is, larger, norms, strict=True)
    ]


def _gradient(root: Tensor, held: list[Tensor], factor: float) -> list[Tensor]:
    """Gradient of `factor` times the root, divided by the factor in double precision."""
    gradients = torch.autograd.grad(
        root, held, torch.full_like(root, factor), retain_graph=True, materialize_grads=True
    )
    wide = [g.to(torch.complex128 if g.is_complex() else torch.float64) for g in gradients]
    return [g / factor for g in wide]


def _finite(tensors: list[Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in tensors)
