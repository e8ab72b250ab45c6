"""The forms of the kernel and a candidate against the roofline of the device.

    pytest tests/bench/bench_nmse_forms.py --gpu -s -p no:randomly -p no:xdist --benchmark-only

All forms and the copy run in one interleaved run, a block of each a round; on CUDA between two
events, after which the host waits. On CUDA the kernel has to reach 70 % of the bandwidth of a copy
at (1024, 144), forward and backward; `docs/gpu.md` has the bytes behind it.
"""

import statistics

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from model import fused
from model.nmse import nmse
from tests.bench.bench_nmse import Form, extra_memory, seconds, step
from tests.bench.candidates import looking
from tests.bench.roofline import TARGET, TARGET_SIZE, copy_bandwidth, least_bytes, share

SIZES = [(64, 16), (64, 144), (256, 144), TARGET_SIZE]
ROUNDS = 12


def kernel(*, compiled: bool) -> Form:
    """The kernel in one form for all sizes: what `fused.pays` decides by."""

    def form(R_hat: Tensor, R_true: Tensor) -> Tensor:
        before, fused.pays = fused.pays, lambda R: compiled
        try:
            return nmse(R_hat, R_true)
        finally:
            fused.pays = before

    return form


@pytest.fixture
def device(ris_device: str) -> torch.device:
    return torch.device(ris_device)


@pytest.mark.filterwarnings("default::DeprecationWarning")  # of torch, while it compiles
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize(("batch", "size"), SIZES, ids=str)
def test_forms(
    benchmark: BenchmarkFixture, device: torch.device, batch: int, size: int, backward: bool
) -> None:
    if (batch, size) == TARGET_SIZE and device.type != "cuda":
        pytest.skip("measures the memory of a GPU, 849 MB a step: needs --gpu")
    generator = torch.Generator().manual_seed(0)
    shape, dtype = (batch, size, size), torch.complex64
    R_hat = torch.randn(shape, dtype=dtype, generator=generator).to(device).requires_grad_(backward)
    R_true = torch.randn(shape, dtype=dtype, generator=generator).to(device)
    forms = {
        "kernel": nmse,
        "eager": kernel(compiled=False),
        "compiled": kernel(compiled=True),
        "looking": looking,
    }
    torch.compiler.reset()  # for this size alone, as in a training
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on the CPU times are of the process
    for form in forms.values():
        step(form, R_hat, R_true, backward)  # compiles
    times: dict[str, list[float]] = {name: [] for name in forms}
    bandwidths: list[float] = []

    def a_round() -> None:
        bandwidths.append(copy_bandwidth(R_true, lambda call: seconds(call, device)))
        for name, form in forms.items():
            times[name].append(seconds(lambda f=form: step(f, R_hat, R_true, backward), device))  # type: ignore[misc]

    benchmark.pedantic(a_round, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    bandwidth = statistics.median(bandwidths[1:])
    shares, lines = {}, []
    for name, form in forms.items():
        median = statistics.median(times[name][1:])
        shares[name] = share(
            batch, size, dtype, backward=backward, seconds=median, bandwidth=bandwidth
        )
        R_hat.grad = None
        memory = extra_memory(lambda f=form: step(f, R_hat, R_true, backward), device)  # type: ignore[misc]
        extra = "-" if memory is None else f"{memory / R_true.nbytes:.1f}"
        lines.append(f"  {name:<9}{1e6 * median:>9.0f} us {shares[name]:>7.1%}   {extra}")
    title = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, one thread"
    moved = least_bytes(batch, size, dtype, backward=backward) / 1e6
    direction = "forward and backward" if backward else "forward"
    print(  # noqa: T201  # a benchmark
        f"\n({batch}, {size}) {direction} on {title}, torch {torch.__version__}: {moved:.0f} MB, "
        f"copy {bandwidth / 1e9:.0f} GB/s\n  form          time   share   extra inputs\n"
        + "\n".join(lines)
    )
    benchmark.extra_info.update(
        device=title, bandwidth=bandwidth, shares=shares, batch=batch, size=size, backward=backward
    )
    limited = device.type == "cuda" and (batch, size) == TARGET_SIZE and backward
    if limited and shares["kernel"] < TARGET:
        pytest.fail(
            f"the kernel reaches {shares['kernel']:.0%} of the bandwidth of a copy, asked for are "
            f"{TARGET:.0%}"
        )
