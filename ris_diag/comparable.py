"""What makes two runs on two devices comparable: no dropout, no TF32, data changed by a digit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


def nudged(values: Tensor) -> Tensor:
    """Every entry changed by about one unit in its last place, up or down."""
    real = values.real if values.is_complex() else values
    signs = torch.randint(2, values.shape, device=values.device).to(real.dtype) * 2 - 1
    return values * (1 + torch.finfo(values.dtype).eps * signs)


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout of torch's own modules with probability 0: its random numbers are the device's."""
    holders: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            holders.append((module, "p"))
        elif isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            holders.append((module, "dropout"))
    before = [getattr(module, name) for module, name in holders]
    try:
        for module, name in holders:
            setattr(module, name, 0.0)
        yield
    finally:
        for (module, name), probability in zip(holders, before, strict=True):
            setattr(module, name, probability)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Products of float32 matrices in float32, on tensor cores too; as it was afterwards."""
    switches = list(_switches())
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, off in switches:
            setattr(owner, name, off)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def _switches() -> Iterator[tuple[Any, str, Any]]:
    """(owner, attribute, value) of what lets float32 be computed with fewer digits."""
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):  # torch before 2.9
        yield backends.cuda.matmul, "allow_tf32", False
        yield backends.cudnn, "allow_tf32", False
        return
    # The older names above can't be mixed with these: torch refuses to read them then.
    for owner in (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
    ):
        yield owner, "fp32_precision", "ieee"
