"""The roofline of the kernel: bytes that must be moved, over the bandwidth of a copy."""

from collections.abc import Callable

import torch
from torch import Tensor

# Input tensors read and written at least: both read; for the gradient both again, and one written.
LEAST_MOVES = {False: 2, True: 5}
# The number to reach on CUDA, at this size, forward and backward.
TARGET, TARGET_SIZE = 0.70, (1024, 144)


def least_bytes(batch: int, size: int, dtype: torch.dtype, *, backward: bool) -> int:
    """Bytes that any form has to move, of matrices [batch, size, size]."""
    return LEAST_MOVES[backward] * batch * size * size * dtype.itemsize


def copy_bandwidth(R: Tensor, seconds: Callable[[Callable[[], None]], float]) -> float:
    """Bytes a second that a copy of R moves, read and written.

    Args:
        seconds: measures a call.
    """
    target = torch.empty_like(R)
    source = R.detach()

    def copy() -> None:
        target.copy_(source)

    copy()
    return 2 * R.nbytes / seconds(copy)


def share(
    batch: int, size: int, dtype: torch.dtype, *, backward: bool, seconds: float, bandwidth: float
) -> float:
    """Share of the bandwidth that is reached: 1 at the roofline."""
    return least_bytes(batch, size, dtype, backward=backward) / seconds / bandwidth
