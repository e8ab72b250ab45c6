"""The NMSE kernel against the research form and against the memory limit of the same run.

A round runs a block of steps of the limit, of the research form and of the kernel, one after the
other, so that all three meet the same machine. Times are of the process, medians of a block;
ratios are medians over rounds. The process has freed large blocks before, as any training has:
the C library then keeps what it gets back, and steps of all three forms pay fewer page faults.
"""

import ctypes
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from model.nmse import nmse
from tests.bench.research import research_nmse

SIZES = [(64, 16), (64, 64), (64, 144), (16, 256), (256, 144)]
CUDA_SIZES = [*SIZES, (1024, 144)]
BLOCK = 5
ROUNDS = 12
Form = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(scope="module", autouse=True)
def used_allocator() -> None:
    for _ in range(2):
        torch.ones(31 * 2**20, dtype=torch.uint8)


@pytest.fixture
def device(ris_device: str) -> torch.device:
    return torch.device(ris_device)


@pytest.fixture(params=["one thread", "all threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_num_threads()
    torch.set_num_threads(1 if request.param == "one thread" else os.cpu_count() or 1)
    yield request.param
    torch.set_num_threads(before)


def step(form: Form, R_hat: Tensor, R_true: Tensor, backward: bool) -> None:
    if backward:
        R_hat.grad = None
        form(R_hat, R_true).sum().backward()  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            form(R_hat, R_true)


def limit(R_hat: Tensor, R_true: Tensor, backward: bool, target: Tensor) -> None:
    """Moves the bytes that must be moved: two tensors read; then two read, one written."""
    with torch.no_grad():
        torch.dot(torch.view_as_real(R_hat).flatten(), torch.view_as_real(R_true).flatten())
        if backward:
            torch.add(torch.view_as_real(R_hat), torch.view_as_real(R_true), out=target)


def seconds(call: Callable[[], None], device: torch.device) -> float:
    """Median seconds of a call in a block: process time, on CUDA the mean between two events."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(BLOCK):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / BLOCK
    times = [time.process_time()]
    for _ in range(BLOCK):
        call()
        times.append(time.process_time())
    return statistics.median(b - a for a, b in itertools.pairwise(times))


def extra_memory(call: Callable[[], None], device: torch.device) -> float | None:
    """Peak bytes that a call takes beside its input; None where the system can't tell."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        call()
        return float(torch.cuda.max_memory_allocated() - allocated)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free, but kept, would hide what is taken anew
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak of the resident set starts anew
        before = resident("VmRSS")
        call()
        return resident("VmHWM") - before
    except (OSError, AttributeError):
        return None


def resident(key: str) -> float:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key))
    return 1024.0 * int(line.split()[1])


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward+backward"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize(("batch", "size"), CUDA_SIZES, ids=lambda n: str(n))
def test_nmse(
    benchmark: BenchmarkFixture,
    device: torch.device,
    threads: str,
    batch: int,
    size: int,
    dtype: torch.dtype,
    backward: bool,
) -> None:
    if device.type == "cpu" and (batch, size) not in SIZES:
        pytest.skip("the largest size is for CUDA")
    generator = torch.Generator().manual_seed(0)
    shape = (batch, size, size)
    R_hat = torch.randn(shape, dtype=dtype, generator=generator).to(device).requires_grad_(backward)
    R_true = torch.randn(shape, dtype=dtype, generator=generator).to(device)
    target = torch.empty_like(torch.view_as_real(R_true))
    calls = {
        "limit": lambda: limit(R_hat, R_true, backward, target),
        "research": lambda: step(research_nmse, R_hat, R_true, backward),
        "kernel": lambda: step(nmse, R_hat, R_true, backward),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}

    def others() -> None:
        for name in ("limit", "research"):
            times[name].append(seconds(calls[name], device))

    def kernel() -> None:
        times["kernel"].append(seconds(calls["kernel"], device))

    benchmark.pedantic(kernel, setup=others, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    memory = {}
    for name in ("kernel", "research"):
        R_hat.grad = None
        memory[name] = extra_memory(calls[name], device)
    bytes_in = R_true.nbytes
    benchmark.extra_info.update(
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        direction="forward + backward" if backward else "forward",
        threads=threads,
        batch=batch,
        size=size,
        microseconds={name: 1e6 * statistics.median(t[1:]) for name, t in times.items()},
        over_research=ratio(times["research"], times["kernel"]),
        over_limit=ratio(times["kernel"], times["limit"]),
        extra_inputs={k: None if m is None else m / bytes_in for k, m in memory.items()},
        gigabytes_per_second=bytes_in * (5 if backward else 2) / min(times["kernel"]) / 1e9,
    )


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median of the ratios round by round, the warm-up round left out."""
    return statistics.median(s / f for s, f in list(zip(slow, fast, strict=True))[1:])
