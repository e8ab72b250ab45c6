"""Runs that pages are made of: healthy, failing, and of a user who writes markup."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

import ris_diag
from model.array import PlanarArray
from model.case import Reference
from model.scene import SceneSettings
from ris_diag.result import Result
from tests.faults.catalogue import one_step_an_epoch

MARKUP = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
MODULE = "<b onclick=a()>$_^{$"
CHECKS = ("L001", "L002", "L014", "O001", "O002", "O003")


@cache
def healthy() -> ris_diag.Report:
    """Small scenes, with all that is drawn."""
    scenes = SceneSettings(array=PlanarArray(n_h=4, n_v=4))
    reference = Reference(scenes=scenes, train_scenes=256, batch_size=64)
    return ris_diag.run(reference.case(), select=CHECKS)


@cache
def failing() -> ris_diag.Report:
    """A planted fault; the gate stops in front of the overfit."""
    return ris_diag.run(one_step_an_epoch(), select=["L001", "L009", "L014"])


@cache
def hostile() -> ris_diag.Report:
    """Markup in the name of the case and of a module, and in a message."""

    def batch(split: str, seed: int, size: int) -> torch.Tensor:
        return torch.ones(size, 3)

    def loss(model: nn.Module, x: torch.Tensor, progress: ris_diag.Progress) -> torch.Tensor:
        if not model.training:
            raise ValueError(MARKUP)
        total: torch.Tensor = model(x).square().mean()
        return total

    case = ris_diag.Case(
        name=MARKUP,
        model=lambda: nn.Linear(3, 1),
        batch=batch,
        loss=loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    report = ris_diag.run(case, select=["L001", "L014"])
    modules = {MODULE: failing()["L014"].measurements["modules"]["embed"]}
    bad = [
        replace(result, place=f"{MARKUP} a.py:1", lines=[MARKUP], measurements={"modules": modules})
        for result in report.results
    ]
    return replace(report, results=bad)


def measured(check: str, **measurements: Any) -> Result:
    """A result of the healthy run with other measurements."""
    found = healthy()[check]
    return replace(found, measurements={**found.measurements, **measurements})
