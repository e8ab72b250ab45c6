"""Weights that are put back, gradients that are turned, updates that are rounded away."""

import math

import pytest
import torch
from torch import Tensor, nn

from ris_diag.undone import LOOKED_AT, Turned, Undone, rounded_away


def weights(*values: float) -> list[Tensor]:
    return [nn.Parameter(torch.tensor([value, value])) for value in values]


def step(undone: Undone, held: list[Tensor], by: float) -> None:
    """One step of `by`, remembered as the observer does."""
    before = [p.detach().clone() for p in held]
    add(held, by)
    undone.stepped(held, before)


def add(held: list[Tensor], by: float) -> None:
    with torch.no_grad():
        for p in held:
            p.add_(by)


def test_nothing_is_undone_in_front_of_the_first_step_or_without_a_change() -> None:
    undone, held = Undone(), weights(1.0, 2.0)
    assert undone.share(held) == 0.0
    step(undone, held, 1.0)
    assert undone.share(held) == 0.0


@pytest.mark.parametrize(("back", "share"), [(1.0, 1.0), (0.5, 0.5), (0.1, 0.1), (-0.5, 0.0)])
def test_the_share_of_the_last_step(back: float, share: float) -> None:
    undone, held = Undone(), weights(1.0, 2.0)
    step(undone, held, 1.0)
    add(held, -back)
    assert undone.share(held) == pytest.approx(share)


def test_the_way_since_the_first_step_counts_as_well() -> None:
    undone, held = Undone(), weights(0.0)
    for _ in range(3):
        step(undone, held, 1.0)
    add(held, -3.0)  # an old state is loaded: not where the last step began
    assert undone.share(held) == pytest.approx(1.0)


def test_weights_that_go_elsewhere_are_not_undone() -> None:
    undone, held = Undone(), weights(0.0)
    step(undone, held, 1.0)
    with torch.no_grad():
        held[0].copy_(torch.tensor([1.0, 40.0]))
    assert undone.share(held) == 0.0


def test_the_weights_that_stayed_do_not_count() -> None:
    undone, held = Undone(), weights(0.0, 0.0)
    step(undone, held, 1.0)
    add(held[1:], -1.0)
    assert undone.share(held) == pytest.approx(1.0)


def test_parameters_that_come_go_or_change_their_shape_are_not_judged() -> None:
    undone, held = Undone(), weights(0.0, 0.0)
    step(undone, held, 1.0)
    assert undone.share(held[:1]) == 0.0
    held[0].data = torch.zeros(5)
    assert undone.share(held) == 0.0


def test_a_change_is_seen_by_the_first_entries() -> None:
    undone = Undone()
    held: list[Tensor] = [nn.Parameter(torch.zeros(LOOKED_AT + 1))]
    step(undone, held, 1.0)
    with torch.no_grad():
        held[0][-1] = 0.0
    assert undone.share(held) == 0.0


def test_complex_weights() -> None:
    undone = Undone()
    held: list[Tensor] = [nn.Parameter(torch.zeros(3, dtype=torch.complex64))]
    before = [held[0].detach().clone()]
    with torch.no_grad():
        held[0].add_(1j)
    undone.stepped(held, before)
    with torch.no_grad():
        held[0].sub_(1j)
    assert undone.share(held) == pytest.approx(1.0)


# ---- gradients between backward and step


def with_gradient(*values: float) -> Tensor:
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter


@pytest.mark.parametrize(
    ("now", "cosine"),
    [
        ((1.0, 0.0), 1.0),
        ((0.1, 0.0), 1.0),  # clipped
        ((-1.0, 0.0), -1.0),
        ((0.0, 1.0), 0.0),
        ((1.0, 1.0), math.sqrt(0.5)),
        ((0.0, 0.0), 1.0),  # nothing to compare
    ],
)
def test_the_angle_between_the_gradients(now: tuple[float, float], cosine: float) -> None:
    turned, parameter = Turned(), with_gradient(1.0, 0.0)
    turned.arrived([parameter])
    parameter.grad = torch.tensor(now)
    assert turned.cosine([parameter]) == pytest.approx(cosine)


def test_an_angle_of_nothing() -> None:
    turned, parameter = Turned(), with_gradient(1.0)
    assert turned.cosine([parameter]) == 1.0
    turned.arrived([parameter])
    parameter.grad = None
    assert turned.cosine([parameter]) == 1.0
    assert turned.cosine([]) == 1.0


def test_gradients_changed_in_place_are_noticed() -> None:
    turned, parameter = Turned(), with_gradient(1.0, 2.0)
    turned.arrived([parameter])
    assert parameter.grad is not None
    parameter.grad.neg_()
    assert turned.cosine([parameter]) == pytest.approx(-1.0)


# ---- updates that half precision swallows


def half(dtype: torch.dtype, *gradient: float) -> Tensor:
    parameter = nn.Parameter(torch.ones(len(gradient), dtype=dtype))
    parameter.grad = torch.tensor(gradient, dtype=dtype)
    return parameter


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_updates_that_change_nothing_are_counted(dtype: torch.dtype) -> None:
    parameter = half(dtype, 1.0, 1.0, 1.0, 0.0)
    assert rounded_away([parameter], [torch.tensor([0.0, 0.0, 0.1, 0.0])]) == pytest.approx(2 / 3)
    assert rounded_away([parameter], [torch.ones(4)]) == 0.0


def test_full_precision_and_missing_gradients_do_not_count() -> None:
    assert rounded_away([half(torch.float32, 1.0)], [torch.zeros(1)]) == 0.0
    parameter = half(torch.float16, 1.0)
    parameter.grad = None
    assert rounded_away([parameter], [torch.zeros(1)]) == 0.0
    assert rounded_away([], []) == 0.0
