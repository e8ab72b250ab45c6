"""Checks for the training of neural networks, to be green before a hyper-parameter search.

The public names load on first use: importing this package imports neither torch nor numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ris_diag.case import (
        Case,
        Covariance,
        Declared,
        Override,
        Scene,
        TrainingCase,
    )
    from ris_diag.errors import CaseError, RisDiagError, UnknownCheckError
    from ris_diag.observer import observe
    from ris_diag.plan import Epoch, Losses, Plan, Progress, Training
    from ris_diag.result import Report, Result
    from ris_diag.runner import Runner, run
    from ris_diag.trace import Trace

__version__ = "0.1.0"

_HOME = {
    "ris_diag.case": (
        "Case", "Covariance", "Declared", "Override", "Scene", "TrainingCase",
    ),
    "ris_diag.errors": ("CaseError", "RisDiagError", "UnknownCheckError"),
    "ris_diag.observer": ("observe",),
    "ris_diag.plan": ("Epoch", "Losses", "Plan", "Progress", "Training"),
    "ris_diag.result": ("Report", "Result"),
    "ris_diag.runner": ("Runner", "run"),
    "ris_diag.trace": ("Trace",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Case",
    "CaseError",
    "Covariance",
    "Declared",
    "Epoch",
    "Losses",
    "Override",
    "Plan",
    "Progress",
    "Report",
    "Result",
    "RisDiagError",
    "Runner",
    "Scene",
    "Trace",
    "Training",
    "TrainingCase",
    "UnknownCheckError",
    "observe",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'ris_diag' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)
