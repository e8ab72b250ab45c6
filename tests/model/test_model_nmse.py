import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.nmse import nmse
from model.scene import Scenes

BOTH = [torch.complex64, torch.complex128]


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.complex128)


def by_definition(R_hat: Tensor, R_true: Tensor, w_diag: float = 0.2, w_off: float = 0.8) -> Tensor:
    R_hat, R_true = R_hat.to(torch.complex128), R_true.to(torch.complex128)
    diagonal = torch.eye(R_true.shape[-1], dtype=torch.bool)
    parts = []
    for mask in (diagonal, ~diagonal):
        error, truth = (
            torch.view_as_real(R * mask).square().sum((1, 2, 3)) for R in (R_hat - R_true, R_true)
        )
        parts.append(error / truth)
    return (w_diag * parts[0] + w_off * parts[1]) / (w_diag + w_off)


def test_zero_at_equality(scenes: Scenes) -> None:
    assert nmse(scenes.R_true, scenes.R_true).tolist() == [0.0] * 8


def test_one_for_the_zero_matrix(scenes: Scenes) -> None:
    got = nmse(torch.zeros_like(scenes.R_true), scenes.R_true)
    assert torch.allclose(got, torch.ones(8), rtol=1e-6)


@pytest.mark.parametrize("dtype", BOTH)
def test_a_two_by_two_example_by_hand(dtype: torch.dtype) -> None:
    R_true = torch.tensor([[[2, 1j], [-1j, 1]]], dtype=dtype)
    R_hat = torch.tensor([[[3, 1 + 2j], [1 - 2j, 3]]], dtype=dtype)
    # Diagonal: (1 + 4) / (4 + 1) = 1; off: (2 + 2) / (1 + 1) = 2.
    got = nmse(R_hat, R_true)
    assert got.shape == (1,)
    assert got.dtype == (torch.float32 if dtype == torch.complex64 else torch.float64)
    assert got.item() == pytest.approx(0.2 * 1 + 0.8 * 2, rel=1e-6)
    assert nmse(R_hat, R_true, w_diag=3, w_off=1).item() == pytest.approx(1.25, rel=1e-6)
    assert nmse(R_hat, R_true, w_diag=0.0, w_off=5.0).item() == pytest.approx(2.0, rel=1e-6)
    assert nmse(R_hat, R_true, w_diag=7.0, w_off=0.0).item() == pytest.approx(1.0, rel=1e-6)


def test_a_part_that_does_not_count_spoils_nothing() -> None:
    """Beside a counted part that is zero in the truth: it gives no scale and no slope."""
    tiny = torch.finfo(torch.float32).tiny
    off = torch.tensor([[0, 1], [1, 0]], dtype=torch.complex64)
    on = torch.eye(2, dtype=torch.complex64)
    R_hat = torch.stack([0 * on, tiny * on + off]).requires_grad_()
    value = nmse(R_hat, torch.stack([tiny * off, 0 * on]), w_diag=1.0, w_off=0.0)
    (gradient,) = torch.autograd.grad(value.sum(), R_hat)
    assert value.tolist() == [0.0, 1.0]
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("N", [2, 3, 12])
def test_the_value_is_the_definition(N: int) -> None:
    R_hat, R_true = random(20, N, N, seed=1), random(20, N, N, seed=2)
    assert torch.allclose(nmse(R_hat, R_true), by_definition(R_hat, R_true), rtol=1e-12)
    single = nmse(R_hat.to(torch.complex64), R_true.to(torch.complex64))
    assert torch.allclose(single.double(), by_definition(R_hat, R_true), rtol=1e-5)


def test_every_sample_is_measured_by_itself(scenes: Scenes) -> None:
    order = torch.tensor([6, 1, 3])
    whole = nmse(scenes.R_samp, scenes.R_true)
    assert torch.equal(whole[order], nmse(scenes.R_samp[order], scenes.R_true[order]))


def test_conjugating_both_changes_nothing(scenes: Scenes) -> None:
    expected = nmse(scenes.R_samp, scenes.R_true)
    for turned in (
        nmse(scenes.R_samp.mH, scenes.R_true.mH),
        nmse(scenes.R_samp.mT, scenes.R_true.mT),
        nmse(scenes.R_samp.conj().resolve_conj(), scenes.R_true.conj().resolve_conj()),
    ):
        assert torch.allclose(turned, expected, rtol=1e-6)


def test_a_conjugate_view_is_read(scenes: Scenes) -> None:
    expected = nmse(scenes.R_samp, scenes.R_true)
    assert torch.allclose(nmse(scenes.R_samp.conj(), scenes.R_true.conj()), expected, rtol=1e-6)


@pytest.mark.parametrize("exponent", [-30, -20, -7, 0, 7, 20, 30])
@pytest.mark.parametrize("dtype", BOTH)
def test_a_common_scale_changes_nothing(scenes: Scenes, exponent: int, dtype: torch.dtype) -> None:
    scale = 10.0**exponent
    R_samp, R_true = scenes.R_samp.to(dtype), scenes.R_true.to(dtype)
    got = nmse(R_samp * scale, R_true * scale)
    expected = by_definition(R_samp, R_true)
    assert torch.allclose(got.double(), expected, rtol=1e-5 if dtype == BOTH[0] else 1e-12)


def test_samples_of_very_different_scale_share_a_batch(scenes: Scenes) -> None:
    scale = torch.logspace(-30, 30, 8)[:, None, None]
    got = nmse(scenes.R_samp * scale, scenes.R_true * scale)
    assert torch.allclose(got, nmse(scenes.R_samp, scenes.R_true), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e20])
def test_the_gradient_scales_with_the_inverse(scenes: Scenes, scale: float) -> None:
    def gradient(factor: float) -> Tensor:
        R_hat = (scenes.R_samp * factor).requires_grad_()
        return torch.autograd.grad(nmse(R_hat, scenes.R_true * factor).sum(), R_hat)[0]

    assert torch.allclose(gradient(scale) * scale, gradient(1.0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("ratio", [1e-3, 1e-6, 1e-9, 1e-12, 1e-16])
def test_tiny_off_diagonal_entries_keep_their_digits(ratio: float) -> None:
    def narrow(seed: int) -> Tensor:
        off = random(4, 6, 6, seed=seed) * (1 - torch.eye(6))
        return (ratio * off + torch.eye(6)).to(torch.complex64)

    R_hat, R_true = narrow(1), narrow(2)
    got = nmse(R_hat, R_true)
    assert torch.allclose(got.double(), by_definition(R_hat, R_true), rtol=1e-5)
    assert got.min() > 0.5  # 0.8 * 2 are expected


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_diagonal_truth(dtype: torch.dtype, scale: float) -> None:
    R_true = 2 * torch.eye(4, dtype=dtype)[None]
    R_hat = R_true.clone()
    R_hat[0, 0, 1] = torch.tensor(1j)
    # The error's energy 1 against the truth's whole energy 16.
    got = nmse((R_hat * scale).requires_grad_(), R_true * scale)
    assert got.item() == pytest.approx(1 / 16, rel=1e-5)
    assert nmse(torch.zeros_like(R_true), R_true * scale).item() == pytest.approx(1, rel=1e-6)
    assert nmse(R_true * scale, R_true * scale).item() == 0.0


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_zero_truth(dtype: torch.dtype, scale: float) -> None:
    R_hat = (random(3, 4, 4) * scale).to(dtype)
    R_hat[2] = 0
    R_hat.requires_grad_()
    got = nmse(R_hat, torch.zeros_like(R_hat).detach())
    assert torch.allclose(got.double(), torch.tensor([1.0, 1.0, 0.0]).double())
    (gradient,) = torch.autograd.grad(got.sum(), R_hat)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", BOTH)
def test_one_element(dtype: torch.dtype) -> None:
    R_true = torch.full((2, 1, 1), 2.0, dtype=dtype)
    R_hat = torch.tensor([[[3.0]], [[2.0]]], dtype=dtype).requires_grad_()
    got = nmse(R_hat, R_true)
    assert torch.allclose(got.double(), torch.tensor([0.25, 0.0]).double())
    (gradient,) = torch.autograd.grad(got.sum(), R_hat)
    assert torch.allclose(gradient, torch.tensor([[[0.5]], [[0.0]]], dtype=dtype))


@pytest.mark.parametrize("N", [1, 2, 4])
@pytest.mark.parametrize("weights", [(0.2, 0.8), (1.0, 0.0), (0.0, 3.0)])
@pytest.mark.parametrize("scale", [1.0, 1e-40])
def test_gradient(N: int, weights: tuple[float, float], scale: float) -> None:
    R_hat, R_true = random(3, N, N, seed=1).requires_grad_(), random(3, N, N, seed=2)

    def value(R: Tensor) -> Tensor:
        return nmse(R * scale, R_true * scale, w_diag=weights[0], w_off=weights[1])

    assert torch.autograd.gradcheck(value, (R_hat,))


def test_gradient_with_a_diagonal_truth() -> None:
    R_hat = random(2, 3, 3, seed=1).requires_grad_()
    R_true = torch.eye(3, dtype=torch.complex128).repeat(2, 1, 1)
    assert torch.autograd.gradcheck(lambda R: nmse(R, R_true), (R_hat,))


def test_gradient_at_equality_is_zero(scenes: Scenes) -> None:
    R_hat = scenes.R_true.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nmse(R_hat, scenes.R_true).sum(), R_hat)
    assert not gradient.any()


def test_the_arguments_are_left_alone(scenes: Scenes) -> None:
    copies = scenes.R_samp.clone(), scenes.R_true.clone()
    nmse(scenes.R_samp * 1, scenes.R_true)
    nmse(scenes.R_samp, scenes.R_true)
    assert torch.equal(copies[0], scenes.R_samp)
    assert torch.equal(copies[1], scenes.R_true)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("spoilt", ["estimate", "truth"])
def test_what_is_not_finite_stays_visible(scenes: Scenes, value: float, spoilt: str) -> None:
    bad = {"estimate": scenes.R_samp.clone(), "truth": scenes.R_true.clone()}
    bad[spoilt][5, 0, 1] = value
    got = nmse(bad["estimate"], bad["truth"])
    assert [i for i, finite in enumerate(got.isfinite().tolist()) if not finite] == [5]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"w_diag": -0.1}, "w_diag=-0.1: admissible is 0 <= w_diag <= 1e+06"),
        ({"w_off": math.nan}, "w_off=nan: admissible is 0 <= w_off <= 1e+06"),
        ({"w_off": math.inf}, "w_off=inf: admissible is 0 <= w_off <= 1e+06"),
        ({"w_diag": True}, "w_diag=True: admissible is 0 <= w_diag <= 1e+06"),
        (
            {"w_diag": 0, "w_off": 0.0},
            "w_diag=0 and w_off=0: at least one of them must be above 0",
        ),
    ],
)
def test_weights_out_of_range(wrong: dict[str, Any], message: str) -> None:
    R = torch.eye(2, dtype=torch.complex64)[None]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        nmse(R, R, **wrong)


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 3, 3), (2, 1, 2)])
def test_shapes_that_differ(shape: tuple[int, ...]) -> None:
    message = f"R_hat {list(shape)} and R_true [2, 2, 2] must agree"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        nmse(torch.ones(shape).to(torch.complex64), torch.ones(2, 2, 2).to(torch.complex64))


@pytest.mark.parametrize("weights", [(0.2, 0.8), (1.0, 0.0), (0.0, 1.0)])
def test_gradient_at_a_diagonal_truth(weights: tuple[float, float]) -> None:
    w_diag, w_off = weights
    R_true = 2 * torch.eye(3, dtype=torch.complex128)[None]
    R_hat = (R_true + 0.5 - 0.25j).requires_grad_()
    value = nmse(R_hat, R_true, w_diag=w_diag, w_off=w_off)
    (gradient,) = torch.autograd.grad(value.sum(), R_hat)
    if w_diag == 0:  # what counts of the truth is zero: 1, whatever the error
        assert value.item() == 1
        assert gradient.abs().max() == 0
        return
    counts = torch.eye(3) if w_off == 0 else torch.ones(3, 3)
    error = (R_hat - R_true).detach() * counts
    assert value.item() == pytest.approx(float(error.abs().square().sum()) / 12)
    assert torch.allclose(gradient, 2 * error / 12)


@pytest.mark.parametrize("dtype", BOTH)
def test_power_of_two_changes_no_bit(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    R_hat, R_true = (torch.randn(5, 6, 6, dtype=dtype, generator=generator) for _ in range(2))
    limit = 110 if dtype == torch.complex64 else 1000
    wanted = nmse(R_hat, R_true)
    (slope,) = torch.autograd.grad(wanted_of(R_hat, R_true), R_hat)
    for exponent in range(-limit, limit + 1, 5):
        scale = 2.0**exponent
        scaled = (R_hat.detach() * scale).requires_grad_()
        value = nmse(scaled, R_true * scale)
        (gradient,) = torch.autograd.grad(value.sum(), scaled)
        assert torch.equal(value, wanted), f"scale 2^{exponent}"
        assert torch.equal(gradient * scale, slope), f"gradient at scale 2^{exponent}"


def wanted_of(R_hat: torch.Tensor, R_true: torch.Tensor) -> torch.Tensor:
    return nmse(R_hat.requires_grad_(), R_true).sum()


@pytest.mark.parametrize("dtype", BOTH)
def test_extremes_of_the_range_mixed_in_one_matrix_stay_finite(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    sizes = [0.0, info.tiny, 1.0, 0.9 * info.max]
    for entries in itertools.product(sizes, repeat=4):
        R_hat, R_true = (torch.full((1, 3, 3), size, dtype=dtype) for size in entries[:2])
        R_hat.diagonal(dim1=1, dim2=2).fill_(entries[2])
        R_true.diagonal(dim1=1, dim2=2).fill_(entries[3])
        value = nmse(R_hat.requires_grad_(), R_true)
        (gradient,) = torch.autograd.grad(value.sum(), R_hat)
        assert torch.isfinite(value).all(), entries
        assert torch.isfinite(gradient).all(), entries


@pytest.mark.parametrize(("dtype", "limit"), [(torch.complex64, 1e-6), (torch.complex128, 1e-14)])
@pytest.mark.parametrize("off", [1.0, 1e-4])
@pytest.mark.parametrize("size", [2, 16, 144])
def test_accuracy_against_long_double(
    dtype: torch.dtype, limit: float, off: float, size: int
) -> None:
    generator = torch.Generator().manual_seed(size)
    amplitude = torch.eye(size) + off * (1 - torch.eye(size))
    R_hat, R_true = (
        torch.randn(4, size, size, dtype=dtype, generator=generator) * amplitude for _ in range(2)
    )
    truth = np.abs(R_true.numpy().astype(np.clongdouble)) ** 2
    error = np.abs(R_hat.numpy().astype(np.clongdouble) - R_true.numpy()) ** 2
    diag = np.eye(size, dtype=bool)
    wanted = sum(
        weight * error[:, mask].sum(1) / truth[:, mask].sum(1)
        for weight, mask in ((0.2, diag), (0.8, ~diag))
    )
    got = nmse(R_hat, R_true).numpy()
    assert float(np.max(np.abs(got - wanted) / wanted)) < limit


def test_transforms_give_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    R_hat, R_true = (
        torch.randn(4, 3, 3, dtype=torch.complex128, generator=generator) for _ in range(2)
    )
    values, slope = nmse(R_hat, R_true), torch.func.grad(lambda R: nmse(R, R_true).sum())(R_hat)
    assert torch.equal(torch.func.vmap(nmse)(R_hat, R_true), values)
    assert torch.equal(torch.func.vmap(nmse, in_dims=(0, None))(R_hat, R_true[0])[0], values[0])
    assert torch.equal(torch.func.vmap(torch.func.grad(nmse))(R_hat, R_true), slope)
    scaled = torch.func.vmap(torch.func.grad(nmse))(R_hat * 1e-200, R_true * 1e-200)
    assert torch.allclose(scaled * 1e-200, slope, rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 2.0**-300])
def test_the_second_derivative_is_right(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    R_hat, R_true = (
        scale * torch.randn(2, 3, 3, dtype=torch.complex128, generator=generator) for _ in range(2)
    )

    def scaled(R: Tensor) -> Tensor:  # finite differences need steps of the usual size
        return nmse(R * scale, R_true)

    R = (R_hat / scale).requires_grad_()
    assert torch.autograd.gradcheck(scaled, R)
    assert torch.autograd.gradgradcheck(scaled, R)


@pytest.mark.parametrize("scale", [1.0, 2.0**-300])
def test_higher_derivatives_are_those_of_the_definition(scale: float) -> None:
    R_hat, R_true = random(2, 3, 3, seed=1), random(2, 3, 3, seed=2)

    def fourth(value: Callable[[Tensor, Tensor], Tensor], scale: float) -> list[Tensor]:
        def energy(R: Tensor) -> Tensor:
            return value(R * scale, R_true * scale).square().sum()

        def energy_of_slope(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            return lambda R: torch.view_as_real(torch.func.grad(f)(R)).square().sum()

        transformed = torch.func.grad(energy_of_slope(energy_of_slope(energy)))(R_hat)
        R = R_hat.clone().requires_grad_()
        total = energy(R)
        for _ in range(2):
            (gradient,) = torch.autograd.grad(total, R, create_graph=True)
            total = torch.view_as_real(gradient).square().sum()
        return [*torch.autograd.grad(total, R), transformed]

    for ours, theirs in zip(fourth(nmse, scale), fourth(by_definition, 1.0), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 2.0**-300])
def test_the_second_derivative_under_transforms(scale: float) -> None:
    R_hat, R_true = random(3, 4, 4, seed=1), random(3, 4, 4, seed=2)

    def energy(R: Tensor, truth: Tensor) -> Tensor:
        slope = torch.func.grad(lambda R: nmse(R * scale, truth * scale).sum())(R)
        return torch.view_as_real(slope).square().sum()

    R = R_hat.clone().requires_grad_()
    value = nmse(R * scale, R_true * scale).sum()
    (first,) = torch.autograd.grad(value, R, create_graph=True)
    (wanted,) = torch.autograd.grad(torch.view_as_real(first).square().sum(), R)
    assert wanted.abs().max() > 0
    assert torch.allclose(torch.func.grad(energy)(R_hat, R_true), wanted)
    assert torch.allclose(torch.func.vmap(torch.func.grad(energy))(R_hat, R_true), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    R_hat, R_true = (
        torch.randn(2, 5, 5, dtype=torch.complex64, generator=generator) for _ in range(2)
    )
    wanted = nmse(R_hat, R_true)
    with torch.autocast("cpu", dtype=dtype):
        assert torch.equal(nmse(R_hat, R_true), wanted)


def test_no_error_in_one_part_keeps_the_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    R_true = torch.randn(3, 4, 4, dtype=torch.complex64, generator=generator)
    R_hat = R_true.clone()
    R_hat[:, 0, 1] += 0.5
    values = nmse(R_hat, R_true)
    assert (values > 0).all()
    assert torch.equal(nmse(R_hat * 2.0**70, R_true * 2.0**70), values)


@pytest.mark.parametrize("scale", [1.0, 2.0**-300])
def test_every_backward_pass_gives_the_same_gradient_and_leaves_the_others_alone(
    scale: float,
) -> None:
    R_hat, R_true = random(3, 4, 4, seed=1) * scale, random(3, 4, 4, seed=2) * scale
    values = nmse(R_hat.requires_grad_(), R_true)
    assert torch.equal(values, nmse(R_hat.detach(), R_true))
    gradients, copies = [], []
    for create_graph in (True, False, True, False):
        (gradient,) = torch.autograd.grad(
            values.sum(), R_hat, retain_graph=True, create_graph=create_graph
        )
        gradients.append(gradient)
        copies.append(gradient.detach().clone())
    assert all(torch.equal(copy, copies[0]) for copy in copies)
    assert all(map(torch.equal, gradients, copies))
    values = nmse(R_hat, R_true)
    batched = torch.func.vmap(
        lambda grad: torch.autograd.grad(values, R_hat, grad, retain_graph=True)[0]
    )
    assert torch.equal(batched(torch.eye(3, dtype=torch.float64)).sum(0), copies[0])


def test_reductions() -> None:
    generator = torch.Generator().manual_seed(0)
    R_hat, R_true = (
        torch.randn(2, 3, 4, 4, dtype=torch.complex128, generator=generator) for _ in range(2)
    )
    values = nmse(R_hat, R_true)
    assert values.shape == (2, 3)
    assert torch.equal(nmse(R_hat, R_true, reduction="mean"), values.mean())
    assert torch.equal(nmse(R_hat, R_true, reduction="sum"), values.sum())
    with pytest.raises(ValueError, match="reduction='max': admissible are 'none', 'mean', 'sum'"):
        nmse(R_hat, R_true, reduction="max")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ValueError, match=r"pass R_true\.detach\(\)"):
        nmse(R_hat, R_true.requires_grad_())


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [
        (torch.complex64, [1.3e-30, 7e-21, 3.0, 9e19, 0.7e30]),
        (torch.complex128, [1.3e-300, 7e-200, 3.0, 9e199, 0.7e300]),
    ],
)
def test_any_common_scale_costs_a_few_ulp(dtype: torch.dtype, scales: list[float]) -> None:
    R_hat, R_true = random(5, 6, 6, seed=1).to(dtype), random(5, 6, 6, seed=2).to(dtype)
    ulp = torch.finfo(dtype).eps
    wanted = nmse(R_hat.requires_grad_(), R_true)
    (slope,) = torch.autograd.grad(wanted.sum(), R_hat)
    for scale in scales:
        scaled = (R_hat.detach() * scale).requires_grad_()
        value = nmse(scaled, R_true * scale)
        (gradient,) = torch.autograd.grad(value.sum(), scaled)
        assert ((value - wanted).abs() <= 16 * ulp * wanted).all(), scale
        largest = slope.abs().max()
        assert ((gradient * scale - slope).abs() <= 32 * ulp * largest).all(), scale


def test_views_of_any_layout_give_the_same() -> None:
    R_hat, R_true = random(4, 5, 5, seed=1), random(4, 5, 5, seed=2)
    wanted = nmse(R_hat, R_true)
    strided = torch.stack([R_hat, R_true], dim=-1)[..., 0]
    assert not strided.is_contiguous()
    assert torch.equal(nmse(strided, R_true), wanted)
    assert torch.equal(nmse(R_hat.mT, R_true.mT), nmse(R_hat.mT.clone(), R_true.mT.clone()))
    expanded = R_hat[:1].expand(4, 5, 5).requires_grad_()
    assert torch.equal(nmse(expanded, R_true), nmse(expanded.detach().clone(), R_true))
    (gradient,) = torch.autograd.grad(nmse(expanded, R_true).sum(), expanded)
    assert gradient.shape == (4, 5, 5)


@pytest.mark.parametrize("dtype", BOTH)
def test_an_empty_batch(dtype: torch.dtype) -> None:
    R_hat = torch.empty(0, 3, 3, dtype=dtype, requires_grad=True)
    value = nmse(R_hat, torch.empty(0, 3, 3, dtype=dtype))
    assert value.shape == (0,)
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert R_hat.grad is not None
    assert R_hat.grad.shape == (0, 3, 3)


@pytest.mark.parametrize("size", [1e-38, 1e38])
def test_a_zero_truth_and_an_estimate_in_one_part(size: float) -> None:
    diagonal = size * torch.eye(3, dtype=torch.complex64)[None]
    off_diagonal = torch.full((1, 3, 3), size, dtype=torch.complex64) - diagonal
    for R_hat in (diagonal, off_diagonal):
        assert nmse(R_hat, torch.zeros(1, 3, 3, dtype=torch.complex64)).tolist() == [1.0]
