"""What is known of where tensors stand, and what a pretended GPU shows."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.multiprocessing.reductions import StorageWeakRef

PARAMETER = "parameter"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of the user's code: name of the function, file:line."""

    name: str
    place: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a tensor of the CPU begins.

    Attributes:
        call: that made it; None if it was there before.
        tensor: as it was then.
        stage: in which it was made, see `Pretended`; `PARAMETER` for a weight.
    """

    call: Call | None
    tensor: Tensor
    stage: str


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """An operation on tensors of both devices.

    Attributes:
        operation: its name and place.
        origin: of the one on the CPU. shape: as it is now.
        index: whether it only picks entries: that works, and waits for a copy.
    """

    operation: Call
    origin: Origin
    shape: tuple[int, ...]
    index: bool


@dataclass
class Pretended:
    """What was seen.

    Attributes:
        meetings: the first of everything that stood on the CPU.
        waits: calls that wait for a value from the device, between the first call of a module in a
            step and its backward pass.
        refused: conversions that NumPy refuses on CUDA.
        draws: on the device, from a generator of the CPU.
        stage: what is being done, to be said by who does it.
    """

    meetings: list[Meeting] = field(default_factory=list)
    waits: list[Call] = field(default_factory=list)
    refused: list[Call] = field(default_factory=list)
    draws: list[Call] = field(default_factory=list)
    stage: str = ""


class Marks:
    """Storages with something known about each, forgotten with the storage."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[StorageWeakRef, Any]] = {}

    def put(self, tensor: Tensor, value: Any) -> None:
        """Know something about a tensor and all that share its memory."""
        storage = storage_of(tensor)
        self._held[storage._cdata] = (StorageWeakRef(storage), value)  # type: ignore[no-untyped-call]

    def of(self, tensor: Tensor) -> Any:
        """What is known; None if nothing is."""
        reference, value = self._held.get(storage_of(tensor)._cdata, (None, None))
        return value if reference is not None and not reference.expired() else None  # type: ignore[no-untyped-call]


def storage_of(tensor: Tensor) -> UntypedStorage:
    """The memory of a tensor, that of its values if it is sparse."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    with torch._C.DisableTorchFunction():
        if tensor.layout == torch.sparse_coo:
            tensor = tensor._values()
        elif tensor.layout != torch.strided:
            tensor = tensor.values()
        return tensor.untyped_storage()


def share_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are views of one memory."""
    same: bool = storage_of(one)._cdata == storage_of(other)._cdata
    return same
