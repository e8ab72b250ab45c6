"""A model and its wrappers: parameters and buffers by the names that they have without."""

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def wrappers(model: nn.Module) -> list[DistributedDataParallel]:
    """The DistributedDataParallel modules in a model."""
    return [m for m in model.modules() if isinstance(m, DistributedDataParallel)]


def plain_names(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by the names that they have without wrappers."""
    prefixes = _prefixes(model)
    return {_without(name, prefixes): p for name, p in model.named_parameters()}


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by the names that they have without wrappers."""
    prefixes = _prefixes(model)
    buffers = {_without(name, prefixes): buffer for name, buffer in model.named_buffers()}
    return {**plain_names(model), **buffers}


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Buffers by name, and the tensors that modules hold beside parameters and buffers."""
    prefixes = _prefixes(model)
    held = {_without(name, prefixes): buffer for name, buffer in model.named_buffers()}
    for path, module in model.named_modules():
        if isinstance(module, DistributedDataParallel):
            continue
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                held[_without(f"{path}.{name}".lstrip("."), prefixes)] = value
    return held


def _prefixes(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, DistributedDataParallel)]


def _without(name: str, prefixes: list[str]) -> str:
    for prefix in sorted(prefixes, key=len, reverse=True):
        start = f"{prefix}." if prefix else ""
        if name.startswith(f"{start}module."):
            name = start + name.removeprefix(f"{start}module.")
    return name
