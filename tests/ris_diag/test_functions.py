"""Own autograd functions: what is compared, and what is meant to differ."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

from ris_diag.derivatives import Derivatives
from ris_diag.functions import Applied, applied, kept
from ris_diag.restored import own_weights_loaded
from tests.faults.plant_derivatives import (
    Product,
    Reversed,
    SoftSign,
    Spike,
    TurnedBack,
    Unscaled,
)


class Rounded(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(4 * x) / 4

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Energy(Function):
    """|z|^2 of complex numbers."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        energy: Tensor = (z * z.conj()).real
        return energy

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        slope: Tensor = 2 * grad * z
        return slope


class Conjugated(Energy):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        slope: Tensor = 2 * grad * z.conj()
        return slope


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def called(kind: type[Function], *args: Tensor) -> Applied:
    with applied() as found:
        kind.apply(*(a.requires_grad_() for a in args))  # type: ignore[no-untyped-call]
    (call,) = found
    return call


@pytest.mark.parametrize(
    ("kind", "args", "wanted"),
    [
        (SoftSign, (drawn(16, 8),), 1.0),
        (Reversed, (drawn(16, 8),), -1.0),
        (Product, (drawn(16, 8), drawn(8, 4)), 1.0),
        (Energy, (drawn(16, 8, dtype=torch.complex64),), 1.0),
    ],
)
def test_what_backward_keeps(kind: type[Function], args: tuple[Tensor, ...], wanted: float) -> None:
    assert kept(called(kind, *args)) == pytest.approx([wanted, wanted], abs=0.02)


def test_a_factor_of_one_argument() -> None:
    ratios = kept(called(Unscaled, drawn(16, 8), drawn(8, 4)))
    assert ratios is not None
    assert ratios == pytest.approx([10.0, 10.0], rel=0.02)


def test_a_conjugate_of_complex_numbers() -> None:
    ratios = kept(called(Conjugated, drawn(16, 8, dtype=torch.complex64)))
    assert ratios is not None
    assert max(ratios) < 0.5


@pytest.mark.parametrize("kind", [TurnedBack, Spike, Rounded])
def test_what_means_another_backward_is_not_compared(kind: type[Function]) -> None:
    assert kept(called(kind, drawn(64, 8))) is None


def test_nothing_stays_behind() -> None:
    before = Function.__dict__["apply"], torch.nn.Module.load_state_dict
    with applied(), own_weights_loaded():
        assert Function.__dict__["apply"] is not before[0]
    assert (Function.__dict__["apply"], torch.nn.Module.load_state_dict) == before


def test_first_calls_that_want_a_gradient_are_kept() -> None:
    with applied() as found:
        for x in (drawn(3), drawn(3).requires_grad_(), drawn(3).requires_grad_()):
            SoftSign.apply(x)  # type: ignore[no-untyped-call]
    assert [one.kind for one in found] == [SoftSign]


def test_a_copy_is_no_reference() -> None:
    model = torch.nn.Linear(3, 3)
    with own_weights_loaded() as found:
        model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
        assert not found
        model.load_state_dict(model.state_dict())
    assert [kind for kind, _ in found] == ["Linear"]


@pytest.mark.parametrize(("graph", "wanted"), [(True, 0), (False, 1)])
def test_derivatives_without_a_graph(graph: bool, wanted: int) -> None:
    model, x = torch.nn.Linear(3, 1), drawn(4, 3).requires_grad_()
    derivatives = Derivatives()
    with derivatives:
        y = model(x).square()
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=graph, retain_graph=True)
        (y + slope.norm(dim=1, keepdim=True)).sum()
    assert len(derivatives.constants) == wanted
