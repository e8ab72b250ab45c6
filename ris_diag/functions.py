"""The user's own autograd functions, and whether their backward is the derivative of forward."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.autograd import Function

from ris_diag.graph import tensors_in
from ris_diag.places import where

STEPS = (1e-2, 1e-3)  # of the input's norm
FEW_VALUES = 0.25  # share of distinct numbers in an output: below, it was rounded
FLAT = 0.02  # of the promised change


@dataclass(frozen=True)
class Applied:
    """One call of an autograd function: the first of its class.

    Attributes:
        kind: its class.
        args: as they were given; tensors are copies without a graph.
        differentiable: positions of the arguments that want a gradient.
    """

    kind: type[Function]
    args: tuple[Any, ...]
    differentiable: tuple[int, ...]


@contextmanager
def applied() -> Iterator[list[Applied]]:
    """The first call of each autograd function of the user's own, while this is open."""
    found: list[Applied] = []
    original = Function.apply.__func__  # type: ignore[attr-defined]

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        known = any(one.kind is cls for one in found)
        if not (known or kwargs) and ":" in where(cls.backward):  # a file of the user's
            wanted = [k for k, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
            if wanted and torch.is_grad_enabled() and not _transformed():
                copies = (a.detach().clone() if isinstance(a, Tensor) else a for a in args)
                found.append(Applied(cls, tuple(copies), tuple(wanted)))
        return original(cls, *args, **kwargs)

    with patch.object(Function, "apply", classmethod(apply)):
        yield found


def kept(call: Applied) -> list[float] | None:
    """Change of the output over what backward promises of it, for two sizes of a step.

    Argument by argument; those of the one that is off most. None where backward is meant to be
    another thing than the derivative: a forward that hands on its input (a reversed, scaled or
    clipped gradient), or that rounds (a straight-through estimate, a surrogate); and where there
    is no number to compare.
    """
    inputs = [call.args[k].detach().clone().requires_grad_() for k in call.differentiable]
    first = _output(call, inputs)
    if first is None or not first.requires_grad or _deliberate(first, inputs):
        return None
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(first.shape, generator=generator, dtype=first.dtype).to(first.device)
    slopes = torch.autograd.grad(first, inputs, weight, allow_unused=True)
    tried = [
        _ratios(call, inputs, k, slope, weight)
        for k, slope in enumerate(slopes)
        if slope is not None
    ]
    return max(filter(None, tried), key=lambda ratios: abs(ratios[-1] - 1), default=None)


def _ratios(
    call: Applied, inputs: list[Tensor], number: int, slope: Tensor, weight: Tensor
) -> list[float] | None:
    """The same for one argument, along its gradient."""
    promised = float(slope.abs().double().square().sum())
    size = float(torch.linalg.vector_norm(inputs[number].detach().flatten()))
    if not (0 < promised < math.inf and 0 < size < math.inf):
        return None

    def shifted(by: float) -> float:
        moved = [x.detach() for x in inputs]
        moved[number] = moved[number] + by * slope
        output = _output(call, moved)
        if output is None or output.shape != weight.shape:
            return math.nan
        return float((weight.conj() * output.detach()).real.double().sum())

    steps = [share * size / promised**0.5 for share in STEPS]
    ratios = [(shifted(h) - shifted(-h)) / (2 * h * promised) for h in steps]
    flat = max(map(abs, ratios)) < FLAT
    return None if flat or not all(map(math.isfinite, ratios)) else ratios


def _output(call: Applied, inputs: list[Tensor]) -> Tensor | None:
    """The first real or complex tensor that forward gives for these inputs."""
    args = [a.clone() if isinstance(a, Tensor) else a for a in call.args]
    for k, x in zip(call.differentiable, inputs, strict=True):
        args[k] = x.clone()
    given = tensors_in(call.kind.apply(*args))  # type: ignore[no-untyped-call]
    return next((t for t in given if t.is_floating_point() or t.is_complex()), None)


def _deliberate(output: Tensor, inputs: list[Tensor]) -> bool:
    same = any(output.shape == x.shape and torch.equal(output, x) for x in inputs)
    numbers = torch.view_as_real(output) if output.is_complex() else output
    distinct = len(torch.unique(numbers.detach()))
    return same or distinct <= max(2, FEW_VALUES * numbers.numel())


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active()
