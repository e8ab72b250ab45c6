"""Devices in pytest: which were asked for, their part of a test id, tests for CUDA without it."""

import re
from collections.abc import Iterable

import pytest

from pytest_ris.errors import usage_errors

CHECK, DEVICE = "ris_check", "ris_device"
CUDA = "cuda"
MARKER = f"{CUDA}: needs a GPU; skipped unless --gpu or --ris-device asks for one"
_MARKED = re.compile(rf"{CUDA}\b")
REASON = "for CUDA: run with --gpu"


def asked_devices(config: pytest.Config) -> list[str]:
    """The devices that were asked for, none by default; the command line wins over the ini file.

    Raises:
        pytest.UsageError: an unknown device, one twice, --gpu beside devices without a GPU.
    """
    for gpu, given, flag, option in (
        (config.getoption("ris_gpu"), config.getoption("ris_device"), "--gpu", "--ris-device"),
        (config.getini("ris_gpu"), config.getini("ris_device"), "ris_gpu", "ris_device ="),
    ):
        if given:
            return _agreed(given, gpu, flag, option)
        if gpu:
            return [CUDA]
    return []


def _agreed(given: Iterable[str], gpu: bool, flag: str, option: str) -> list[str]:
    from ris_diag.devices import device_names, is_cuda

    with usage_errors():
        names = device_names(given, option)
    if gpu and not any(map(is_cuda, names)):
        raise pytest.UsageError(
            f"{flag} beside {option} {','.join(names)}: expected one of them, or cuda in the list"
        )
    return names


def resolved(config: pytest.Config, names: Iterable[str]) -> dict[str, str]:
    """Each GPU asked for, with the number of the one that this process takes.

    Raises:
        pytest.UsageError: it isn't there.
    """
    from ris_diag.devices import is_cuda

    gpus = list(filter(is_cuda, names))
    if not gpus:
        return {}
    from ris_diag.cuda import own_device

    with usage_errors():
        return {name: own_device(name, worker_number(config)) for name in gpus}


def worker_number(config: pytest.Config) -> int | None:
    """The number of a worker of xdist, 3 of "gw3"; None elsewhere."""
    worker = getattr(config, "workerinput", {}).get("workerid")
    if worker is None:
        return None
    number = re.search(r"\d+$", worker)  # its name is free with --tx
    return int(number.group()) if number else 0


def labelled(metafunc: pytest.Metafunc, names: list[str]) -> dict[str, str]:
    """The devices that a test runs on, each with its part of the id: GPUs for one for CUDA."""
    from ris_diag.devices import is_cuda, label

    if is_for_cuda(metafunc.definition):
        names = list(filter(is_cuda, names)) or [CUDA]
    return {name: label(name) for name in names}


def parametrize_devices(metafunc: pytest.Metafunc, asked: list[str]) -> None:
    """One test a device, if the test takes `ris_device` and doesn't say itself which.

    Where nobody asked for a device, a test of the user's own stays as it is: a parameter of the
    whole session would move it away from the tests beside it.
    """
    taken = metafunc.fixturenames
    if DEVICE not in taken or _says_itself(metafunc.definition):
        return
    if asked or CHECK in taken or is_for_cuda(metafunc.definition):
        found = labelled(metafunc, asked or ["cpu"])
        metafunc.parametrize(
            DEVICE, list(found), ids=list(found.values()), indirect=True, scope="session"
        )


def _says_itself(test: pytest.Item) -> bool:
    """Whether a test has a mark `parametrize` for the device."""
    for mark in test.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs["argnames"]
        if DEVICE in (re.split(r"[,\s]+", names) if isinstance(names, str) else names):
            return True
    return False


def is_for_cuda(item: pytest.Item) -> bool:
    """Whether a test has our marker `cuda`; a project may have one of its own."""
    if item.get_closest_marker(CUDA) is None:
        return False
    return [line for line in item.config.getini("markers") if _MARKED.match(line)] == [MARKER]


def skip_for_cuda(items: Iterable[pytest.Item]) -> None:
    """Skip tests for CUDA, with the reason."""
    for item in items:
        if is_for_cuda(item):
            item.add_marker(pytest.mark.skip(reason=REASON))


def skipped_for_cuda(report: pytest.TestReport) -> bool:
    """Whether a test was skipped because nobody asked for CUDA."""
    return report.skipped and isinstance(report.longrepr, tuple) and REASON in report.longrepr[2]
