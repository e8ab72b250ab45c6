"""What there is of CUDA, and what a check finds set while it runs on a GPU."""

import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ris_diag.determinism import deterministic
from ris_diag.devices import EXPECTED, is_device, numbered
from ris_diag.errors import DeviceError
from ris_diag.result import Card

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is of CUDA.

    Attributes:
        torch: version of torch. build: what it was built for, "13.0"; "" for the CPU alone.
        driver: the newest CUDA that the driver knows, "13.0"; "" without a driver.
        visible: CUDA_VISIBLE_DEVICES; None where it isn't set.
        count: GPUs that torch sees. said: what torch and the driver complained of.
    """

    torch: str
    build: str
    driver: str
    visible: str | None
    count: int
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        driver = f"driver for CUDA {self.driver}" if self.driver else f"no driver (no {DRIVER})"
        visible = "not set" if self.visible is None else repr(self.visible)
        said = "".join(f"; torch says: {text}" for text in self.said)
        built = f"built for CUDA {self.build}" if self.build else "built without CUDA"
        return f"torch {self.torch}, {built}; {driver}; {VISIBLE} {visible}{said}"

    @property
    def next_step(self) -> str:
        """What to do where a GPU is missing."""
        if self.count:
            return f"ask for one of cuda:0 to cuda:{self.count - 1}"
        missing = [] if self.build else ["a build of torch with CUDA (pytorch.org/get-started)"]
        missing += [] if self.driver else ["the driver (a container: start it with its GPUs)"]
        if missing:
            return f"install {' and '.join(missing)}, or run on the cpu"
        if self.visible is not None:
            return f"unset {VISIBLE}, or name GPUs that nvidia-smi lists"
        return "look at what nvidia-smi says"


def found() -> Found:
    """What there is of CUDA; starts no process and no CUDA."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count()
    return Found(
        torch=torch.__version__,
        build=torch.version.cuda or "",
        driver=_driver(),
        visible=os.environ.get(VISIBLE),
        count=count,
        said=tuple(" ".join(str(warning.message).split()) for warning in caught),
    )


def _driver() -> str:
    """The newest CUDA that the driver knows; "" without one."""
    version = ctypes.c_int()
    try:
        if ctypes.CDLL(DRIVER).cuDriverGetVersion(ctypes.byref(version)):
            return ""
    except OSError:
        return ""
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def usable_device(name: str) -> torch.device:
    """The torch device of a name, with its number.

    Raises:
        DeviceError: not a device, or CUDA isn't there: says what was found.
    """
    if not is_device(name):
        raise DeviceError(f"device {name!r}: {EXPECTED}")
    device = torch.device(numbered(name))
    if device.type == "cpu":
        return device
    there = found()
    if device.index >= there.count:
        raise DeviceError(absent(name, there))
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # so that seeds reach it from the first check on
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise DeviceError(f"device {name!r} doesn't start: {said}; {there}") from error
    return device


def own_device(name: str, worker: int | None) -> str:
    """The device with the number of the GPU that a worker takes.

    Args:
        worker: number of the process among those that share the work; None where it is alone.

    Raises:
        DeviceError: as `usable_device`.
    """
    usable_device(name)
    return numbered(name, worker, torch.cuda.device_count())


def absent(name: str, there: Found) -> str:
    """What to say of a GPU that was asked for and isn't there."""
    seen = f"{there.count or 'no'} CUDA device{'s' * (there.count > 1)}"
    return f"device {name!r} asked for, but torch sees {seen}: {there}. Try: {there.next_step}"


class OnCard:
    """The checks that run on a GPU: its settings meanwhile, its peak memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peak_bytes = 0
        self._busy = False

    @contextmanager
    def at_work(self) -> Iterator[list[str]]:
        """The GPU is the current device, and computes in a way that repeats itself.

        Starts the peaks of `torch.cuda.memory_stats` anew, which nothing can put back.

        Returns:
            what can't be repeated all the same, a line each; filled until the scope ends.
        """
        outermost, self._busy = not self._busy, True  # a check may run one that it builds on
        if outermost:
            torch.cuda.reset_peak_memory_stats(self._device)
        try:
            with torch.cuda.device(self._device), deterministic() as unsettled:
                yield unsettled
        finally:
            self._busy = not outermost
            peak = torch.cuda.max_memory_allocated(self._device)
            self._peak_bytes = max(self._peak_bytes, peak)

    @property
    def card(self) -> Card:
        """What it is, and its peak so far."""
        major, minor = torch.cuda.get_device_capability(self._device)
        return Card(
            device=str(self._device),
            name=torch.cuda.get_device_name(self._device),
            capability=f"{major}.{minor}",
            peak_bytes=self._peak_bytes,
        )
