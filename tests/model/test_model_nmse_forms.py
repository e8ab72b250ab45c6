"""What the benchmark of the kernel rests on: the candidate and the roofline are right."""

import pytest
import torch
from torch import Tensor

from model.nmse import nmse
from tests.bench.candidates import looking
from tests.bench.roofline import TARGET_SIZE, copy_bandwidth, least_bytes, share


def matrices(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    R_hat, R_true = (
        torch.randn(*shape, dtype=torch.complex64, generator=generator) for _ in range(2)
    )
    return R_hat, R_true


@pytest.mark.parametrize("shape", [(3, 2, 2), (5, 16, 16)])
def test_the_candidate_is_the_kernel(shape: tuple[int, ...]) -> None:
    R_hat, R_true = matrices(*shape)
    results = []
    for form in (nmse, looking):
        R = R_hat.detach().requires_grad_()
        value = form(R, R_true)
        (gradient,) = torch.autograd.grad(value.sum(), R)
        results.append((value.detach(), gradient))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_candidate_that_looks_refuses_what_it_would_get_wrong() -> None:
    R_hat, R_true = (1e-30 * R for R in matrices(2, 3, 3))
    with pytest.raises(ValueError, match="safe range"):
        looking(R_hat, R_true)


def test_the_bytes_of_the_roofline() -> None:
    """Those that docs/gpu.md states."""
    assert least_bytes(*TARGET_SIZE, torch.complex64, backward=False) == 339_738_624
    assert least_bytes(*TARGET_SIZE, torch.complex64, backward=True) == 849_346_560
    assert least_bytes(*TARGET_SIZE, torch.complex128, backward=True) == 1_698_693_120


def test_the_share_of_the_roofline() -> None:
    R, _ = matrices(4, 8, 8)
    bandwidth = copy_bandwidth(R, lambda call: 2.0)
    assert bandwidth == 4 * 64 * 8  # read and written in two seconds
    shown = share(4, 8, torch.complex64, backward=True, seconds=5.0, bandwidth=bandwidth)
    assert shown == pytest.approx(5 * 4 * 64 * 8 / 5 / bandwidth)
