"""The kernel on other devices: nothing is read back, values and gradients are those of the CPU.

On the meta device no number can be read: what runs there waits for no device. The paths that other
devices take, the eager one and the passes that are compiled for large batches, run on the CPU, too,
where their numbers are compared. The tests that need CUDA run where it is.
"""

import itertools
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import model.nmse
from model import fused
from model.nmse import nmse

BOTH = [torch.complex64, torch.complex128]
DEVICES = [
    pytest.param("cuda", marks=pytest.mark.cuda),
    "unread",
    "fused",
]
Kernel = Callable[..., list[Tensor]]


def random(*shape: int, dtype: torch.dtype = torch.complex64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def value_and_gradient(R_hat: Tensor, R_true: Tensor, **weights: Any) -> list[Tensor]:
    R_hat = R_hat.detach().requires_grad_()
    value = nmse(R_hat, R_true, **weights)
    (gradient,) = torch.autograd.grad(value.sum(), R_hat)
    without_graph = nmse(R_hat.detach(), R_true, **weights)
    return [t.detach().cpu() for t in (value, gradient, without_graph)]


def fused_here(patched: pytest.MonkeyPatch) -> None:
    """All of complex64 takes the passes for large batches on CUDA, whatever device and size."""
    patched.setattr(fused, "pays", lambda R: R.dtype == torch.complex64)


@pytest.fixture(params=DEVICES)
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Value, gradient and value without a graph, on CUDA or by its path on the CPU."""

    def run(R_hat: Tensor, R_true: Tensor, **weights: Any) -> list[Tensor]:
        if request.param == "cuda":
            return value_and_gradient(R_hat.to("cuda"), R_true.to("cuda"), **weights)
        with monkeypatch.context() as patched:
            if request.param == "fused":
                fused_here(patched)
                patched.setattr(fused, "compiled", lambda function: function)
            patched.setattr(model.nmse, "_may_look", lambda R: False)
            return value_and_gradient(R_hat, R_true, **weights)

    return run


def tolerance(dtype: torch.dtype, size: int) -> float:
    """Two sums of 2 N^2 squares, a quotient, a square: 2 lambda sqrt(2 N^2) u with lambda = 8.

    The bound of Higham and Mary (2019) for sums of n terms, as in `ris_diag.rounding`.
    """
    unit = torch.finfo(dtype).eps / 2
    return float(2 * 8 * (2 * size * size + 8) ** 0.5 * unit)


def agree(ours: list[Tensor], theirs: list[Tensor], size: int) -> None:
    for a, b in zip(ours, theirs, strict=True):
        limit = tolerance(a.dtype, size)
        assert a.dtype == b.dtype
        assert torch.equal(a.isfinite(), b.isfinite())
        sizes = b[b.isfinite()].abs()
        largest = float(sizes.max()) if sizes.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=limit, atol=limit * largest, equal_nan=True)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("size", [1, 2, 5, 16])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_values_and_gradients_are_those_of_the_cpu(
    elsewhere: Kernel, dtype: torch.dtype, size: int, scale: float
) -> None:
    R_hat, R_true = (scale * random(4, size, size, dtype=dtype, seed=k) for k in range(2))
    agree(elsewhere(R_hat, R_true), value_and_gradient(R_hat, R_true), size)


def test_a_large_batch(elsewhere: Kernel) -> None:
    R_hat, R_true = (random(64, 48, 48, seed=k) for k in range(2))
    agree(elsewhere(R_hat, R_true), value_and_gradient(R_hat, R_true), 48)


@pytest.mark.parametrize("dtype", BOTH)
def test_the_edges_are_those_of_the_cpu(elsewhere: Kernel, dtype: torch.dtype) -> None:
    """Zero, tiny, huge and missing parts, in every combination."""
    info = torch.finfo(dtype)
    sizes = [0.0, info.tiny, 1.0, 0.9 * info.max, torch.nan, torch.inf]
    combinations = list(itertools.product(sizes, repeat=4))
    entries = torch.tensor(combinations, dtype=dtype)[:, :, None, None]
    off = ~torch.eye(3, dtype=torch.bool)
    R_hat = torch.where(off, entries[:, 0], entries[:, 2])
    R_true = torch.where(off, entries[:, 1], entries[:, 3])
    for weights in ({}, {"w_diag": 1.0, "w_off": 0.0}, {"w_diag": 0.0, "w_off": 1.0}):
        ours, theirs = elsewhere(R_hat, R_true, **weights), value_and_gradient(
            R_hat, R_true, **weights
        )  # fmt: skip
        # Sample by sample: the largest gradient of all is beyond 1e38.
        for row, combination in enumerate(combinations):
            try:
                agree([t[row] for t in ours], [t[row] for t in theirs], 3)
            except AssertionError as error:
                raise AssertionError(f"{combination}, {weights}: {error}") from error


@pytest.mark.parametrize("dtype", BOTH)
def test_a_power_of_two_changes_no_bit(elsewhere: Kernel, dtype: torch.dtype) -> None:
    R_hat, R_true = (random(5, 6, 6, dtype=dtype, seed=k) for k in range(2))
    wanted = elsewhere(R_hat, R_true)
    for exponent in (-110, -40, -1, 3, 60, 110):
        scale = 2.0**exponent
        value, gradient, _ = elsewhere(R_hat * scale, R_true * scale)
        assert torch.equal(value, wanted[0])
        assert torch.equal(gradient * scale, wanted[1])


def test_an_empty_batch(elsewhere: Kernel) -> None:
    value, gradient, _ = elsewhere(random(0, 3, 3), random(0, 3, 3))
    assert (value.shape, gradient.shape) == ((0,), (0, 3, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(elsewhere: Kernel, dtype: torch.dtype) -> None:
    R_hat, R_true = (random(3, 7, 7, seed=k) for k in range(2))
    wanted = elsewhere(R_hat, R_true)
    gpu = torch.autocast("cuda", dtype=dtype, enabled=torch.cuda.is_available())
    with torch.autocast("cpu", dtype=dtype), gpu:
        assert all(map(torch.equal, elsewhere(R_hat, R_true), wanted))


def test_higher_orders_and_transforms(elsewhere: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    R_hat, R_true = (random(3, 4, 4, dtype=torch.complex128, seed=k) for k in range(2))

    def orders(R_hat: Tensor, R_true: Tensor) -> list[Tensor]:
        def energy(R: Tensor, truth: Tensor) -> Tensor:
            slope = torch.func.grad(lambda R: nmse(R, truth).sum())(R)
            return torch.view_as_real(slope).square().sum()

        R = R_hat.detach().requires_grad_()
        (first,) = torch.autograd.grad(nmse(R, R_true).sum(), R, create_graph=True)
        (second,) = torch.autograd.grad(torch.view_as_real(first).square().sum(), R)
        mapped = torch.func.vmap(torch.func.grad(energy))(R_hat, R_true)
        return [t.detach().cpu() for t in (first, second, mapped)]

    wanted = orders(R_hat, R_true)
    monkeypatch.setattr(model.nmse, "_may_look", lambda R: False)
    for ours, theirs in zip(orders(R_hat, R_true), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_second_order_of_the_fused_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    R_hat, R_true = (random(3, 4, 4, seed=k) for k in range(2))

    def second() -> Tensor:
        R = R_hat.clone().requires_grad_()
        (first,) = torch.autograd.grad(nmse(R, R_true).sum(), R, create_graph=True)
        (gradient,) = torch.autograd.grad(torch.view_as_real(first).square().sum(), R)
        return gradient

    wanted = second()
    fused_here(monkeypatch)
    monkeypatch.setattr(fused, "compiled", lambda function: function)
    torch.testing.assert_close(second(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.cuda
def test_a_batch_that_is_compiled_on_cuda() -> None:
    """Where the compiler is: this test says so, if it is missing."""
    R_hat, R_true = (random(256, 144, 144, seed=k) for k in range(2))
    assert fused.pays(R_true.to("cuda"))
    ours = value_and_gradient(R_hat.to("cuda"), R_true.to("cuda"))
    agree(ours, value_and_gradient(R_hat, R_true), 144)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("shape", [(4, 5, 5), (2, 3, 1, 1), (6, 6)])
def test_no_number_is_read(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """On the meta device there is none: reading one raises."""
    R_hat = torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)
    R_true = torch.empty(shape, dtype=dtype, device="meta")
    for reduction in ("none", "mean", "sum"):
        value = nmse(R_hat, R_true, reduction=reduction)
        (first,) = torch.autograd.grad(value.sum(), R_hat, create_graph=True)
        (second,) = torch.autograd.grad(torch.view_as_real(first).sum(), R_hat)
        assert (first.device.type, first.shape, second.shape) == ("meta", shape, shape)
    assert nmse(R_hat.detach(), R_true).device.type == "meta"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on the CPU")
@pytest.mark.skipif(" " in torch.__file__, reason="torch.compile can't link in a path with a space")
@pytest.mark.filterwarnings("default::DeprecationWarning")  # of torch, while it compiles
def test_the_passes_for_large_batches_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the first shape, and once more for all others."""
    fused_here(monkeypatch)
    torch.compiler.reset()
    for batch, size, scale in ((4, 12, 1.0), (3, 9, 1e30), (5, 16, 1e-30)):
        R_hat, R_true = (scale * random(batch, size, size, seed=k) for k in range(2))
        with monkeypatch.context() as patched:
            patched.setattr(fused, "pays", lambda R: False)
            wanted = value_and_gradient(R_hat, R_true)
        with torch.compiler.set_stance("fail_on_recompile" if size == 16 else "default"):
            agree(value_and_gradient(R_hat, R_true), wanted, size)


class Placed(torch.Tensor):
    """A tensor that says it is on CUDA."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # read-only there, too
        return torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("shape", "dtype", "able", "wanted"),
    [
        ((1024, 64, 64), torch.complex64, True, True),
        ((1024, 64, 63), torch.complex64, True, False),  # bound by launches
        ((1024, 64, 64), torch.complex128, True, False),  # no dtype holds the squares
        ((1024, 64, 64), torch.complex64, False, False),  # no compiler
    ],
)
def test_large_complex64_is_compiled_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    able: bool,
    wanted: bool,
) -> None:
    monkeypatch.setattr(fused, "_compiles", lambda device: able)
    R = torch.empty(shape, dtype=dtype, device="meta")
    assert not fused.pays(R)  # not on CUDA
    R = R.as_subclass(Placed)
    assert fused.pays(R) == wanted
    with FlopCounterMode(display=False):
        assert not fused.pays(R)
    with torch.overrides.BaseTorchFunctionMode():
        assert not fused.pays(R)
