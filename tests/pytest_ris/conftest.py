"""A user's project: one small module that names several trainings of a linear model."""

import pytest
import torch

import ris_diag
from ris_diag.cause import all_causes

TINY = """\
import random

import numpy as np
import ris_diag
import torch
from torch import nn


def batch(split, seed, size):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 3, generator=generator)
    return x, x.sum(1, keepdim=True)


def loss(model, batch, progress):
    x, y = batch
    return (model(x) - y).square().mean()


def fit(model, plan):
    random.random(), np.random.rand(), torch.rand(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    epochs = []
    for epoch in range(1, plan.epochs + 1):
        losses = []
        for b in plan.train:
            optimizer.zero_grad()
            total = loss(model, b, None)
            plan.on_step(epoch, ris_diag.Losses(total=total))
            total.backward()
            optimizer.step()
            losses.append(total.item())
        epochs.append(ris_diag.Epoch(train=sum(losses) / len(losses)))
    return epochs


def frozen_fit(model, plan):
    return []


def raising_fit(model, plan):
    torch.rand(1), np.random.rand(), random.random()
    raise ValueError("shapes [3] and [4] differ")


def make(name, **parts):
    return ris_diag.Case(
        name=name, model=lambda: nn.Linear(3, 1), batch=batch, loss=loss, **parts
    )


def bare():
    return make("bare")


def learns():
    return make("learns", fit=fit)


def frozen():
    return make("frozen", fit=frozen_fit)


def raising():
    return make("raising", fit=raising_fit)


def known():
    return make("known", fit=frozen_fit, expected_failures={"L001": "ticket 12"})


def stale():
    return make("stale", fit=fit, expected_failures={"L001": "ticket 12"})


def crashes():
    raise RuntimeError("no data folder")


def gives_a_number():
    return 3


not_callable = "text"
number = 3
"""


@pytest.fixture(scope="session", autouse=True)
def _optimiser_loaded() -> None:
    """Torch imports modules at the first step; pytester would unload and load them every time.

    Causes are registered when they are imported, which they can be once.
    """
    all_causes()
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.SGD([weight]).step()
    ris_diag.run(ris_diag.Case(name="warm", model=torch.nn.Identity, batch=min, loss=min))


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with tiny.py and the ready-made test; random order off."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly -p no:benchmark -p no:cacheprovider")
    monkeypatch.delenv("NO_COLOR", raising=False)
    pytester.makepyfile(tiny=TINY, test_suite="from pytest_ris.suite import test_check")
    return pytester


@pytest.fixture(
    params=[
        pytest.param([], id="plain"),
        pytest.param(["-n0"], id="n0"),
        pytest.param(["-n2"], id="n2", marks=pytest.mark.slow),
    ]
)
def mode(request: pytest.FixtureRequest) -> list[str]:
    """How pytest runs: by itself, and with xdist present, idle or at work."""
    options: list[str] = request.param
    return options
