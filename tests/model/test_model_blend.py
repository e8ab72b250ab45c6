import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from model.blend import BlendSchedule, blend


def walk(epochs: int, **changes: float) -> list[float]:
    schedule = BlendSchedule(**changes)
    return [schedule.beta(epoch, epochs) for epoch in range(1, epochs + 1)]


def random(*shape: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_thirty_epochs() -> None:
    assert BlendSchedule().warmup_epochs(30) == 6
    expected = [0.0, 0.06, 0.12, 0.18, 0.24, 0.30] + [0.30] * 24
    got = walk(30)
    assert got == pytest.approx(expected, abs=1e-12)
    assert got[0] == 0.0
    assert got[5] == 0.30


def test_the_five_steps_of_the_litmus() -> None:
    assert BlendSchedule().warmup_epochs(25) == 5
    assert walk(25)[:6] == pytest.approx([0.0, 0.075, 0.150, 0.225, 0.300, 0.300], abs=1e-12)
    assert walk(5, warmup_share=1.0) == pytest.approx([0.0, 0.075, 0.150, 0.225, 0.300])


@pytest.mark.parametrize(
    ("epochs", "warmup"), [(2, 2), (9, 2), (10, 2), (14, 2), (15, 3), (19, 3), (20, 4), (1000, 200)]
)
def test_warmup_is_a_fifth_of_the_epochs_rounded_down_and_at_least_two(
    epochs: int, warmup: int
) -> None:
    assert BlendSchedule().warmup_epochs(epochs) == warmup
    betas = walk(epochs)
    assert betas[0] == 0.0
    assert betas[warmup - 2] < 0.30 - 1e-9
    assert betas[warmup - 1 :] == [0.30] * (epochs - warmup + 1)


def test_ends_of_ones_own() -> None:
    assert walk(4, beta_start=0.2, beta_final=1.0, warmup_share=0.75) == pytest.approx(
        [0.2, 0.6, 1.0, 1.0]
    )
    assert walk(3, beta_start=0.5, beta_final=0.1, warmup_share=1.0) == pytest.approx(
        [0.5, 0.3, 0.1]
    )


def jittered(schedule: BlendSchedule, epoch: int, count: int = 400) -> list[float]:
    generator = torch.Generator().manual_seed(3)
    return [schedule.beta(epoch, 30, generator) for _ in range(count)]


def test_jitter_only_with_a_generator() -> None:
    schedule = BlendSchedule(jitter=0.05)
    assert [schedule.beta(epoch, 30) for epoch in range(1, 31)] == walk(30)
    assert set(jittered(BlendSchedule(), 30, 5)) == {0.30}
    draws = jittered(schedule, 30)
    assert 0.25 <= min(draws) < 0.26
    assert 0.34 < max(draws) <= 0.35
    assert sum(draws) / 400 == pytest.approx(0.30, abs=0.005)
    assert draws == jittered(schedule, 30)


def test_jitter_is_clamped() -> None:
    low = jittered(BlendSchedule(jitter=0.05), 1)
    assert min(low) == 0.0
    assert max(low) <= 0.05
    assert low.count(0.0) == pytest.approx(200, abs=50)
    high = jittered(BlendSchedule(beta_final=0.94, jitter=0.05), 30)
    assert max(high) == 0.95
    assert min(high) >= 0.89


def test_jitter_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    jittered(BlendSchedule(jitter=0.05), 3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta_start": -0.1}, "beta_start=-0.1: admissible is 0 <= beta_start <= 1"),
        ({"beta_final": 1.1}, "beta_final=1.1: admissible is 0 <= beta_final <= 1"),
        ({"beta_final": math.nan}, "beta_final=nan: admissible is 0 <= beta_final <= 1"),
        ({"warmup_share": 0.0}, "warmup_share=0.0: admissible is 0 < warmup_share <= 1"),
        ({"warmup_share": 1.5}, "warmup_share=1.5: admissible is 0 < warmup_share <= 1"),
        ({"jitter": -0.01}, "jitter=-0.01: admissible is 0 <= jitter <= 0.5"),
        ({"jitter": 0.6}, "jitter=0.6: admissible is 0 <= jitter <= 0.5"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BlendSchedule(**wrong)


@pytest.mark.parametrize(
    ("epoch", "epochs", "message"),
    [
        (1, 0, "epochs=0: admissible are the integers 1 <= epochs <= 1000000"),
        (1, -3, "epochs=-3: admissible are the integers 1 <= epochs <= 1000000"),
        (1, 2.0, "epochs=2.0: admissible are the integers 1 <= epochs <= 1000000"),
        (
            1,
            1,
            "epochs=1: the warm-up of beta takes 2 epochs, longer than the run; admissible is "
            "epochs >= 2",
        ),
        (0, 30, "epoch=0: admissible are the integers 1 <= epoch <= 30"),
        (31, 30, "epoch=31: admissible are the integers 1 <= epoch <= 30"),
    ],
)
def test_epochs_out_of_range(epoch: int, epochs: int, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BlendSchedule().beta(epoch, epochs)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_blend(dtype: torch.dtype) -> None:
    R_pred = torch.tensor([[[1, 1j], [-1j, 2]]], dtype=dtype)
    R_samp = torch.tensor([[[5, 3j], [-3j, 0]]], dtype=dtype)
    expected = torch.tensor([[[2, 1.5j], [-1.5j, 1.5]]], dtype=dtype)
    got = blend(R_pred, R_samp, 0.25)
    assert got.dtype == dtype
    assert torch.equal(got, expected)
    assert torch.equal(blend(R_pred, R_samp, 0), R_pred)
    assert torch.equal(blend(R_pred, R_samp, 1.0), R_samp)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_gradient_of_the_blend_is_one_minus_beta(beta: float) -> None:
    R_pred = random(2, 3, 3).requires_grad_()
    total = blend(R_pred, random(2, 3, 3), beta).real.sum()
    (gradient,) = torch.autograd.grad(total, R_pred)
    assert torch.allclose(gradient, torch.full_like(gradient, 1 - beta))


@pytest.mark.parametrize("beta", [-1e-9, 1.0000001, math.nan, math.inf, "0.3", True, None])
def test_beta_out_of_range(beta: Any) -> None:
    R = random(2, 3, 3)
    message = f"beta={beta!r}: admissible is 0 <= beta <= 1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        blend(R, R, beta)


@pytest.mark.parametrize(
    "shape", [(1, 3, 3), (4, 3, 3), (2, 4, 4)], ids=["broadcastable", "batch", "elements"]
)
def test_shapes_that_do_not_agree(shape: tuple[int, ...]) -> None:
    message = (
        f"shapes do not agree: R_pred [2, 3, 3], R_samp {list(shape)}; expected one [B, N, N] "
        "for all"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        blend(random(2, 3, 3), random(*shape), 0.3)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 4), (1, 2, 3, 3)])
def test_what_is_no_batch_of_square_matrices(shape: tuple[int, ...]) -> None:
    message = f"R_pred has shape {list(shape)}: expected [B, N, N]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        blend(random(*shape), random(*shape), 0.3)
    message = f"R_samp has shape {list(shape)}: expected [B, N, N]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        blend(random(2, 3, 3), random(*shape), 0.3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.complex32])
@pytest.mark.parametrize("shape", [(2, 5, 5), (4, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("wrong", ["R_pred", "R_samp"])
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_real_and_half_precision_is_never_reinterpreted(
    wrong: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    message = (
        f"{wrong} is {dtype} {list(shape)}: admissible are torch.complex64 and torch.complex128; "
        "convert real and imaginary parts with torch.complex(re, im)"
    )
    arguments = {"R_pred": random(*shape), "R_samp": random(*shape)}
    arguments[wrong] = torch.zeros(shape, dtype=dtype)
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        blend(**arguments, beta=0.3)


def test_mixed_dtypes() -> None:
    message = (
        "dtypes do not agree: R_pred torch.complex64, R_samp torch.complex128; cast all to one "
        "of them"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        blend(random(2, 3, 3), random(2, 3, 3, dtype=torch.complex128), 0.3)
