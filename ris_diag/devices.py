"""Names of devices. Imports nothing heavy: the pytest plugin reads its options by it."""

import re
from collections import Counter
from collections.abc import Iterable

from ris_diag.check import split_names
from ris_diag.errors import DeviceError

EXPECTED = "expected cpu, cuda or cuda:N"
_NAME = re.compile(r"cpu|cuda(:(0|[1-9][0-9]*))?")


def is_device(name: str) -> bool:
    """Whether it names a device: "cpu", "cuda", "cuda:1"."""
    return _NAME.fullmatch(name) is not None


def is_cuda(name: str) -> bool:
    """Whether a device is a GPU."""
    return name.startswith("cuda")


def numbered(name: str, worker: int | None = None, count: int = 0) -> str:
    """The device with its number: "cuda" alone is the first GPU, or a worker's own.

    Args:
        name: of a device.
        worker: number of the process among those that share the work; None where it is alone.
        count: of the GPUs that there are.
    """
    if name != "cuda":
        return name
    return f"cuda:{0 if worker is None else worker % max(count, 1)}"


def label(name: str) -> str:
    """The name as a test id has it: "cpu", "cuda0".

    It says what was asked for, so that it is the same in every worker: "cuda" alone is "cuda0",
    whichever GPU a worker takes.
    """
    return numbered(name).replace(":", "")


def device_names(given: str | Iterable[str], source: str) -> list[str]:
    """The devices of a list, "cpu,cuda:1" or several such.

    Args:
        source: what a refusal names, "--ris-device".

    Raises:
        DeviceError: none, an unknown one, or one twice; it tells all that is wrong.
    """
    names = list(split_names(given))
    unknown = [name for name in names if not is_device(name)]
    labels = Counter(label(name) for name in names if name not in unknown)
    twice = [name for name, count in labels.items() if count > 1]
    wrong = [f"{name} isn't known" for name in unknown] + [
        f"{name} is there twice" for name in twice
    ]
    if wrong or not names:
        said = f"{', '.join(wrong) or 'no device'}; {EXPECTED}, separated by commas"
        raise DeviceError(f"{source} {','.join(names)}".rstrip() + f": {said}")
    return names
