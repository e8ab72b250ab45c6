"""What one check says of a small training."""

from collections.abc import Callable
from typing import Any

import ris_diag
from ris_diag import Case
from tests.faults.zoo_parts import adam, classes, mlp, regression, supervised

Criterion = Callable[[Any, Any], Any]


def of_classes(criterion: Criterion, data: Any = classes, outputs: int = 4, **parts: Any) -> Case:
    """From 8 numbers to four classes."""
    given: dict[str, Any] = {
        "model": lambda: mlp(8, 16, outputs),
        "optimizer": adam(1e-2),
        **parts,
    }
    return supervised("classes", given.pop("model"), data, criterion, **given)


def of_numbers(criterion: Criterion, data: Any = regression, **parts: Any) -> Case:
    """From 8 numbers to one."""
    given: dict[str, Any] = {"model": lambda: mlp(8, 16, 1), "optimizer": adam(1e-2), **parts}
    return supervised("numbers", given.pop("model"), data, criterion, **given)


def found(case: Case, check: str) -> list[tuple[str, str]]:
    """(sign, text) of each finding; what raised is the test's error."""
    result = ris_diag.run(case, select=check)[check]
    assert result.status in ("pass", "fail"), result.message()
    return [(finding["sign"], finding["cause"]) for finding in result.findings]


def places(case: Case, check: str) -> list[str]:
    """The place of each finding."""
    return [finding["place"] for finding in ris_diag.run(case, select=check)[check].findings]
