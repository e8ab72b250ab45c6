"""What the gate says of a case: a search begins behind a valid receipt alone."""

import importlib
from pathlib import Path
from typing import Any


def problems_of(receipt: Path, *, target: str, device: str) -> list[str]:
    """Why a receipt doesn't let this case in; empty where it does."""
    module = importlib.import_module("ris_diag.receipt")
    problems: list[str] = module.problems_of(receipt, target=target, device=device)
    return problems


def fingerprint(target: str) -> dict[str, Any]:
    """What the code of a case is known by."""
    module = importlib.import_module("ris_diag.fingerprint")
    known: dict[str, Any] = module.fingerprint(target)
    return known
