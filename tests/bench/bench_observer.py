"""What it costs to watch: a step of the reference learner, and all quick checks of a small case.

Blocks of watched and unwatched steps alternate; the ratio is the median over rounds of process
times, one thread.
"""

import statistics
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import ris_diag
from model.case import Reference
from ris_diag import Losses, Progress, observe
from tests.faults.zoo import ZOO

ROUNDS, BLOCK = 30, 3
MAX_RATIO = 1.10
MAX_SECONDS = 0.3


def test_a_watched_step(benchmark: BenchmarkFixture) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reference = Reference()
    model, batch = reference.model(), reference.batch("train", 0, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def steps(count: int) -> float:
        start = time.process_time()
        for _ in range(count):
            optimizer.zero_grad()
            losses: Losses = reference.loss(model, batch, Progress(epoch=1, epochs=2))
            torch.autograd.backward(losses.total)
            optimizer.step()
        return time.process_time() - start

    steps(5)
    ratios, behind = [], []

    def watched() -> None:
        plain = steps(BLOCK)
        with observe(model):
            steps(1)  # names the parameters
            ratios.append(steps(BLOCK) / plain)
        behind.append(steps(BLOCK) / plain)

    benchmark.pedantic(watched, rounds=ROUNDS)  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    ratio, after = statistics.median(ratios), statistics.median(behind)
    benchmark.extra_info.update(watched_over_plain=ratio, behind_over_plain=after)
    print(f"\na watched step takes {ratio:.3f} of a plain one, one behind the watch {after:.3f}")  # noqa: T201
    if ratio > MAX_RATIO:
        pytest.fail(f"watching costs {ratio - 1:.1%} of a step, asked for is at most 10 %")


def test_all_guard_and_litmus_checks_on_a_small_case(benchmark: BenchmarkFixture) -> None:
    case = ZOO["mlp_100k"]()

    times = []

    def run() -> None:
        start = time.process_time()
        ris_diag.run(case, select=["guard", "litmus"])
        times.append(time.process_time() - start)

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    seconds = statistics.median(times[1:])  # once imported
    print(f"\nall guard and litmus checks on an MLP of 100 k parameters take {seconds:.3f} s")  # noqa: T201
    if seconds > MAX_SECONDS:
        pytest.fail(f"the checks take {seconds:.2f} s, asked for is at most {MAX_SECONDS} s")
