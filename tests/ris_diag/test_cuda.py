"""What there is of CUDA, told; on a GPU, what a check finds set and what the report says of it."""

import os
import warnings
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

import ris_diag
from ris_diag import Runner
from ris_diag.cuda import DRIVER, Found, OnCard, absent, found, own_device, usable_device
from ris_diag.errors import DeviceError
from ris_diag.result import Card, merged
from tests.faults.healthy import small

CPU_BUILD = Found(torch="2.13.0+cpu", build="", driver="", visible=None, count=0)
CUDA_BUILD = Found(torch="2.13.0", build="13.0", driver="13.1", visible=None, count=2)
NO_DRIVER = f"no driver (no {DRIVER})"


@pytest.mark.parametrize(
    ("device", "there", "message"),
    [
        (
            "cuda",
            CPU_BUILD,
            f"torch sees no CUDA device: torch 2.13.0+cpu, built without CUDA; {NO_DRIVER}; "
            "CUDA_VISIBLE_DEVICES not set. Try: install a build of torch with CUDA "
            "(pytorch.org/get-started) and the driver (a container: start it with its GPUs), or "
            "run on the cpu",
        ),
        (
            "cuda",
            replace(CPU_BUILD, driver="12.4"),
            "torch sees no CUDA device: torch 2.13.0+cpu, built without CUDA; driver for CUDA "
            "12.4; CUDA_VISIBLE_DEVICES not set. Try: install a build of torch with CUDA "
            "(pytorch.org/get-started), or run on the cpu",
        ),
        (
            "cuda:1",
            replace(CUDA_BUILD, driver="", count=0, said=("CUDA initialization: no driver",)),
            f"torch sees no CUDA device: torch 2.13.0, built for CUDA 13.0; {NO_DRIVER}; "
            "CUDA_VISIBLE_DEVICES not set; torch says: CUDA initialization: no driver. Try: "
            "install the driver (a container: start it with its GPUs), or run on the cpu",
        ),
        (
            "cuda",
            replace(CUDA_BUILD, visible="", count=0),
            "torch sees no CUDA device: torch 2.13.0, built for CUDA 13.0; driver for CUDA 13.1; "
            "CUDA_VISIBLE_DEVICES ''. Try: unset CUDA_VISIBLE_DEVICES, or name GPUs that "
            "nvidia-smi lists",
        ),
        (
            "cuda",
            replace(CUDA_BUILD, count=0),
            "torch sees no CUDA device: torch 2.13.0, built for CUDA 13.0; driver for CUDA 13.1; "
            "CUDA_VISIBLE_DEVICES not set. Try: look at what nvidia-smi says",
        ),
        (
            "cuda:2",
            CUDA_BUILD,
            "torch sees 2 CUDA devices: torch 2.13.0, built for CUDA 13.0; driver for CUDA 13.1; "
            "CUDA_VISIBLE_DEVICES not set. Try: ask for one of cuda:0 to cuda:1",
        ),
        (
            "cuda:1",
            replace(CUDA_BUILD, visible="3", count=1),
            "torch sees 1 CUDA device: torch 2.13.0, built for CUDA 13.0; driver for CUDA 13.1; "
            "CUDA_VISIBLE_DEVICES '3'. Try: ask for one of cuda:0 to cuda:0",
        ),
    ],
)
def test_what_is_missing_and_what_to_do(device: str, there: Found, message: str) -> None:
    assert absent(device, there) == f"device {device!r} asked for, but {message}"


@pytest.mark.parametrize("visible", [None, "", "7"])
def test_this_machine(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    there = found()
    assert (there.torch, there.build) == (torch.__version__, torch.version.cuda or "")
    assert there.visible == visible


def test_what_torch_complains_of_is_told_and_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def complains() -> int:
        warnings.warn("CUDA initialization:\n  the driver is too old", stacklevel=1)
        return 0

    monkeypatch.setattr(torch.cuda, "device_count", complains)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found().said == ("CUDA initialization: the driver is too old",)


def test_cuda_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("CUDA error: system not yet\ninitialized\n")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", init)
    with pytest.raises(
        DeviceError,
        match="device 'cuda' doesn't start: CUDA error: system not yet initialized; torch",
    ):
        usable_device("cuda")


def test_the_cpu_needs_nothing() -> None:
    assert usable_device("cpu") == torch.device("cpu")


H100 = Card(device="cuda:0", name="NVIDIA H100", capability="9.0", peak_bytes=3 * 2**20)


def test_a_card_in_words() -> None:
    assert str(H100) == "cuda:0: NVIDIA H100, compute capability 9.0, peak memory 3.0 MiB"


def test_each_card_once_with_its_highest_peak() -> None:
    higher, other = replace(H100, peak_bytes=9), replace(H100, device="cuda:1", peak_bytes=1)
    lower = replace(H100, peak_bytes=2)
    assert merged([other, lower, higher, lower]) == [higher, other]


def test_nothing_is_invented_for_the_cpu() -> None:
    runner = Runner(small())
    report = runner.report([runner.run_check("G001")])
    assert report.cards == []
    assert report.to_json()["cards"] == []
    assert report.device == "cpu"


def test_cards_in_the_report() -> None:
    report = ris_diag.Report(case="c", device="cuda", seed=0, versions={}, results=[], cards=[H100])
    assert report.to_json()["cards"] == [
        {"device": "cuda:0", "name": "NVIDIA H100", "capability": "9.0", "peak_bytes": 3 * 2**20}
    ]


def seen_by_the_loss(current: int = 0) -> ris_diag.Case:
    """A case whose loss refuses what isn't set as it should be on a GPU."""

    def loss(model: nn.Module, batch: torch.Tensor, progress: object) -> torch.Tensor:
        if not torch.are_deterministic_algorithms_enabled():
            raise ValueError("deterministic is False")
        if os.environ.get("CUBLAS_WORKSPACE_CONFIG") != ":4096:8":
            raise ValueError("cuBLAS has another workspace")
        if torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32:
            raise ValueError("TF32 is on")
        if torch.cuda.current_device() != current:
            raise ValueError(f"the current device is {torch.cuda.current_device()}")
        torch.histc(batch, 4)  # it has no deterministic form on CUDA
        return model(batch.cuda()).square().mean()  # type: ignore[no-any-return]  # Module.__call__

    return ris_diag.Case(
        name="seen",
        model=lambda: nn.Linear(2, 1),
        batch=lambda split, seed, size: torch.ones(size, 2),
        loss=loss,
        declared=ris_diag.Declared(weights={}),
    )


def test_the_gpu_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert [own_device("cuda", worker) for worker in (None, 0, 1, 2)] == [
        *("cuda:0", "cuda:0", "cuda:1", "cuda:0")
    ]
    assert own_device("cuda:1", 0) == "cuda:1"
    with pytest.raises(DeviceError, match="torch sees 2 CUDA devices"):
        own_device("cuda:2", 0)


class Memory:
    """The counters of a GPU, for a machine without one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = self.peak = 0
        monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: self.reset())
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: self.peak)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")

    def reset(self) -> None:
        self.peak = self.held

    def take(self, count: int) -> None:
        self.held += count
        self.peak = max(self.peak, self.held)
        self.held -= count


def test_the_peak_is_that_of_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, card = Memory(monkeypatch), OnCard(torch.device("cuda:0"))
    memory.take(100)  # before the run
    with card.at_work():
        memory.take(7)
        with card.at_work():  # a check that the first builds on
            memory.take(3)
    assert card.card.peak_bytes == 7
    memory.take(100)  # between two checks

    def raising() -> None:
        with card.at_work():
            memory.take(8)
            raise ValueError("theirs")

    with pytest.raises(ValueError, match="theirs"):
        raising()
    assert card.card == replace(H100, peak_bytes=8)


@pytest.mark.parametrize("raises", [False, True], ids=["passes", "raises"])
def test_what_is_not_deterministic_is_said_in_the_result(
    monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    def loss(model: nn.Module, batch: torch.Tensor, progress: object) -> torch.Tensor:
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.ones(2))
        if raises:
            raise ValueError("theirs")
        return model(batch).square().mean()  # type: ignore[no-any-return]  # Module.__call__

    Memory(monkeypatch)
    runner = Runner(replace(seen_by_the_loss(), loss=loss))
    runner._card = OnCard(torch.device("cuda:0"))
    result = runner.run_check("G001")
    assert result.status == ("error" if raises else "pass")
    line = loss.__code__.co_firstlineno + 1
    assert result.lines == [
        f"not deterministic: put_ has no deterministic form, tests/ris_diag/test_cuda.py:{line}"
    ]
    assert [card.name for card in runner.report([result]).cards] == ["NVIDIA H100"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_on_the_cpu_nothing_is_set() -> None:
    case = seen_by_the_loss()
    result = Runner(case).run_check("G001")
    assert result.status == "error"
    assert result.cause == "ValueError: deterministic is False"


# What only a GPU can show


@pytest.mark.cuda
def test_what_a_check_finds_on_a_gpu(ris_device: str) -> None:
    number = torch.device(ris_device).index
    case = seen_by_the_loss(number)
    before = torch.are_deterministic_algorithms_enabled(), torch.cuda.current_device()
    report = ris_diag.run(case, select="G001", device=ris_device)
    assert report["G001"].status == "pass", report["G001"].cause
    assert (torch.are_deterministic_algorithms_enabled(), torch.cuda.current_device()) == before
    (line,) = report["G001"].lines
    assert line.startswith("not deterministic: ")
    assert "tests/ris_diag/test_cuda.py:" in line


@pytest.mark.cuda
def test_what_the_report_says_of_a_gpu(ris_device: str) -> None:
    torch.empty(2**26, device=ris_device)  # not of the run
    report = ris_diag.run(small(), select="G001,L009", device=ris_device)
    (card,) = report.cards
    assert (card.device, card.name) == (ris_device, torch.cuda.get_device_name(ris_device))
    assert card.capability == "{}.{}".format(*torch.cuda.get_device_capability(ris_device))
    assert 0 < card.peak_bytes < 2**26


@pytest.mark.cuda
def test_cuda_alone_is_the_first_gpu() -> None:
    runner = Runner(small(), device="cuda")
    assert runner.subject.device == torch.device("cuda:0")
    assert runner.report([]).device == "cuda"


@pytest.mark.cuda
def test_a_gpu_too_many_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"ask for one of cuda:0 to cuda:"):
        usable_device(f"cuda:{torch.cuda.device_count()}")
