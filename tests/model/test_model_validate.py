import math
import re
from typing import Any

import numpy as np
import pytest
import torch

from model.validate import (
    require_count,
    require_covariance,
    require_number,
    require_same_covariances,
)


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, 1.0, np.float64(0.3)])
def test_numbers_inside(value: float) -> None:
    require_number("x", value, 0, 1)


@pytest.mark.parametrize(
    "value", [-1e-300, 1.0000001, math.nan, math.inf, -math.inf, True, "0.5", None, 0.5 + 0j]
)
def test_numbers_outside(value: Any) -> None:
    message = f"x={value!r}: admissible is 0 <= x <= 1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_number("x", value, 0, 1)


@pytest.mark.parametrize(
    ("ends", "value", "interval"),
    [
        ({"open_low": True}, 2.0, "2 < gap <= 5"),
        ({"open_high": True}, 5.0, "2 <= gap < 5"),
        ({"open_low": True, "open_high": True, "unit": "m"}, 5, "2 < gap < 5 m"),
        ({"unit": "dB"}, 6.0, "2 <= gap <= 5 dB"),
    ],
)
def test_open_ends_and_unit(ends: dict[str, Any], value: float, interval: str) -> None:
    message = f"gap={value!r}: admissible is {interval}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_number("gap", value, 2, 5, **ends)
    require_number("gap", 3.5, 2, 5, **ends)


def test_closed_ends_are_inside_when_the_other_is_open() -> None:
    require_number("x", 2.0, 2, 5, open_high=True)
    require_number("x", 5.0, 2, 5, open_low=True)


@pytest.mark.parametrize("value", [0, 11, -1, 5.0, True, "5", None, math.nan])
def test_counts_outside(value: Any) -> None:
    message = f"n={value!r}: admissible are the integers 1 <= n <= 10"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_count("n", value, 1, 10)


@pytest.mark.parametrize("value", [1, 5, 10])
def test_counts_inside(value: int) -> None:
    require_count("n", value, 1, 10)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (7, 3, 3)])
def test_covariances_inside(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    require_covariance("R", torch.zeros(shape, dtype=dtype))


def test_covariances_of_one_shape_and_dtype() -> None:
    R = torch.zeros(2, 3, 3, dtype=torch.complex64)
    require_same_covariances(A=R, B=R, C=R)


def test_all_shapes_are_named() -> None:
    A, B = torch.zeros(2, 3, 3), torch.zeros(4, 3, 3)
    message = (
        "shapes do not agree: A [2, 3, 3], B [4, 3, 3], C [2, 3, 3]; expected one [B, N, N] for all"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        require_same_covariances(
            A=A.to(torch.complex64), B=B.to(torch.complex64), C=A.to(torch.complex64)
        )


def test_all_dtypes_are_named() -> None:
    A = torch.zeros(2, 3, 3, dtype=torch.complex64)
    message = (
        "dtypes do not agree: A torch.complex64, B torch.complex64, C torch.complex128; "
        "cast all to one of them"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        require_same_covariances(A=A, B=A, C=A.to(torch.complex128))
