"""Faults of where tensors stand are real: PyTorch refuses them where nothing is computed.

On the meta device, or on a GPU of fake tensors; what it doesn't refuse is looked at by hand.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from ris_diag import Case, Progress
from tests.faults.registry import fault

SEMANTICS = "PyTorch documentation, CUDA semantics"


def _moved(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    """A batch whose tensors are moved, as far as the toolkit reaches."""
    if isinstance(value, tuple | list):
        return type(value)(_moved(part, move) for part in value)
    if isinstance(value, dict):
        return {key: _moved(part, move) for key, part in value.items()}
    return move(value) if isinstance(value, Tensor) else value


def _parts(case: Case) -> tuple[nn.Module, Any, Callable[..., Any]]:
    assert case.model is not None
    assert case.batch is not None
    assert case.loss is not None
    return case.model(), case.batch("train", 0, 16), case.loss


def refused_on_meta(case: Case) -> bool:
    """Whether the loss or its derivative raises on the meta device."""
    model, batch, loss = _parts(case)
    batch = _moved(batch, lambda tensor: tensor.to("meta"))
    try:
        value = loss(model.to("meta"), batch, Progress(epoch=1, epochs=2))
        (value if isinstance(value, Tensor) else value.total).backward()
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return True
    return False


def refused_as_fake(case: Case) -> bool:
    """Whether PyTorch's tensors without numbers see two devices in the loss."""
    model, batch, loss = _parts(case)

    def there(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")

    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for held in (module._parameters, module._buffers):
                moved = {name: there(tensor) for name, tensor in held.items() if tensor is not None}
                held.update(moved)  # type: ignore[arg-type]  # no gradient is asked for
        try:
            loss(model, _moved(batch, there), Progress(epoch=1, epochs=2))
        except RuntimeError as error:
            return "on the same device" in str(error)
    return False


def refused(case: Case) -> bool:
    return refused_on_meta(case) or refused_as_fake(case)


def planted(
    cause: str,
    healthy: Callable[[], Case],
    *,
    source: str = SEMANTICS,
    proof: Callable[[Case], bool] = refused,
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """A fault that PyTorch refuses where nothing is computed, and accepts without it."""

    def register(plant: Callable[[], Case]) -> Callable[[], Case]:
        def proven() -> bool:
            return proof(plant()) and not proof(healthy())

        check = "G017" if cause == "step-waits-for-device" else "G016"
        return fault(check, cause=cause, healthy=healthy, source=source, proof=proven)(plant)

    return register


def generator_elsewhere(case: Case) -> bool:
    """Whether numbers are drawn on a device from a generator of another."""
    drawn: list[bool] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            if kwargs.get("generator") is not None and "device" in kwargs:
                drawn.append(kwargs["generator"].device != torch.device(kwargs["device"]))
            return func(*args, **kwargs)

    with Watch():
        refused_on_meta(case)
    return any(drawn)


def index_on_cpu(case: Case) -> bool:
    """Whether the model picks entries by an index that doesn't stand where they do."""
    assert case.model is not None
    picked: list[bool] = []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is Tensor.__getitem__ and isinstance(args[1], tuple):
                indices = [i for i in args[1] if isinstance(i, Tensor)]
                picked.extend(i.device != args[0].device for i in indices)
            return func(*args, **(kwargs or {}))

    with Watch():
        case.model().to("meta")(torch.zeros(4, 8, device="meta"))
    return any(picked)
