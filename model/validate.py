"""Guards that hold in every mode of Python: plain `raise`, never `assert`."""

import math

import torch
from torch import Tensor

COVARIANCE_DTYPES = (torch.complex64, torch.complex128)


def require_number(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    open_high: bool = False,
    unit: str = "",
) -> None:
    """Raise `ValueError` with name, value and admissible interval unless the value lies inside.

    Args:
        name: what the user calls the quantity.
        value: a finite number (NaN and Inf lie in no interval).
        low, high: ends of the interval; `open_low` and `open_high` exclude them.
        unit: shown behind the interval.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    inside = (
        is_number
        and math.isfinite(value)
        and (low < value if open_low else low <= value)
        and (value < high if open_high else value <= high)
    )
    if not inside:
        left = "<" if open_low else "<="
        right = "<" if open_high else "<="
        suffix = f" {unit}" if unit else ""
        raise ValueError(
            f"{name}={value!r}: admissible is {low:g} {left} {name} {right} {high:g}{suffix}"
        )


def require_count(name: str, value: int, low: int, high: int) -> None:
    """Raise `ValueError` unless `value` is an integer in `[low, high]`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}: admissible are the integers {low} <= {name} <= {high}")


def require_covariance(name: str, R: Tensor) -> None:
    """Raise unless `R` is a batch of square complex matrices.

    Args:
        R: complex64 or complex128 [B, N, N].

    Raises:
        TypeError: real or half-precision entries. A real [2, N, N] or [B, 2, 2] could be read as
            pairs of real and imaginary parts, so it is never reinterpreted silently.
        ValueError: not a batch of square matrices.
    """
    if R.dtype not in COVARIANCE_DTYPES:
        raise TypeError(
            f"{name} is {R.dtype} {list(R.shape)}: admissible are torch.complex64 and "
            "torch.complex128; convert real and imaginary parts with torch.complex(re, im)"
        )
    if R.ndim != 3 or R.shape[-1] != R.shape[-2]:
        raise ValueError(f"{name} has shape {list(R.shape)}: expected [B, N, N]")


def require_same_covariances(**tensors: Tensor) -> None:
    """Raise unless all named tensors are covariances of one shape and one dtype.

    Raises:
        TypeError: a tensor is not complex, or the dtypes differ.
        ValueError: a tensor is not [B, N, N], or the shapes differ.
    """
    for name, R in tensors.items():
        require_covariance(name, R)
    if len({R.shape for R in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(R.shape)}" for name, R in tensors.items())
        raise ValueError(f"shapes do not agree: {shapes}; expected one [B, N, N] for all")
    if len({R.dtype for R in tensors.values()}) > 1:
        dtypes = ", ".join(f"{name} {R.dtype}" for name, R in tensors.items())
        raise TypeError(f"dtypes do not agree: {dtypes}; cast all to one of them")
