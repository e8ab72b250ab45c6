"""No check complains of a healthy training, whatever its kind."""

import random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ris_diag
from ris_diag import Case, Declared, Report
from tests.faults.zoo import ZOO
from tests.faults.zoo_parts import regression

LOOP_CHECKS = {"L001", "L008", "L009"}


def watched(case: Case, seed: int = 0) -> Report:
    return ris_diag.run(case, select=["guard", "data", "litmus"], seed=seed)


def complaints(report: Report) -> list[str]:
    return [r.message() for r in report.results if r.status in ("fail", "error")]


@pytest.mark.parametrize("name", ZOO)
def test_healthy_training_is_silent(name: str) -> None:
    case = ZOO[name]()
    report = watched(case)
    assert complaints(report) == []
    wanted = LOOP_CHECKS - case.exempt.keys() if case.offers("loop") else {"L009"}
    assert {check for check in LOOP_CHECKS if report[check].status != "skip"} == wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_healthy_training_is_silent_with_every_seed(name: str) -> None:
    reports = [watched(ZOO[name](), seed) for seed in range(1, 10)]  # 0 is the test before this
    assert [complaint for report in reports for complaint in complaints(report)] == []


@pytest.mark.parametrize("name", ZOO)
def test_names_and_batches_are_repeatable(name: str) -> None:
    case = ZOO[name]()
    assert case.name == name
    if case.batch is not None:
        first, second = (list(tensors(case.batch("train", 3, 4))) for _ in range(2))
        assert first
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, str):
        return []
    parts = batch.values() if isinstance(batch, dict) else batch
    return [tensor for part in parts for tensor in tensors(part)]


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a person finds changed if a check doesn't tidy up."""
    parameters = dict(model.named_parameters())
    moments = optimizer.state_dict()["state"].values()
    return {
        "numbers": {name: tensor.tolist() for name, tensor in model.state_dict().items()},
        "gradients": {
            n: None if p.grad is None else p.grad.tolist() for n, p in parameters.items()
        },
        "trainable": {name: p.requires_grad for name, p in parameters.items()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "moments": [{key: value.tolist() for key, value in state.items()} for state in moments],
        "rates": [group["lr"] for group in optimizer.param_groups],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
    }


class Lent(NamedTuple):
    case: Case
    model: nn.Module
    optimizer: torch.optim.Optimizer
    source: torch.Generator


@pytest.fixture
def lent() -> Lent:
    """In the middle of a training: moments, gradients, a frozen layer, one in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16),
        nn.BatchNorm1d(16), nn.Linear(16, 1),
    )  # fmt: skip
    source = torch.Generator().manual_seed(0)
    x, y = regression("train", 0, 64)
    pairs = TensorDataset(x, y)
    loader = DataLoader(pairs, batch_size=16, shuffle=True, generator=source)
    model.get_submodule("4").requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    criterion: Any = nn.MSELoss()
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    model.get_submodule("5").eval()
    declared = Declared(frozen=("4.*",))
    case = Case.from_xy(model, loader, F.mse_loss, optimizer, declared=declared)
    return Lent(case, model, optimizer, source)


def test_what_was_lent_comes_back_as_it_was(lent: Lent) -> None:
    before = snapshot(lent.model, lent.optimizer)
    report = watched(lent.case)
    after = snapshot(lent.model, lent.optimizer)
    assert {part for part in before if before[part] != after[part]} == set()
    assert complaints(report) == []


@pytest.mark.cuda
def test_what_was_lent_comes_back_from_a_gpu(lent: Lent, ris_device: str) -> None:
    before = snapshot(lent.model, lent.optimizer)
    report = ris_diag.run(lent.case, select=["guard", "data", "litmus"], device=ris_device)
    after = snapshot(lent.model, lent.optimizer)
    assert {p.device.type for p in lent.model.parameters()} == {"cpu"}
    assert {part for part in before if before[part] != after[part]} == set()
    assert complaints(report) == []


def test_the_loaders_own_random_state_comes_back(lent: Lent) -> None:
    before = lent.source.get_state()
    watched(lent.case)
    assert torch.equal(lent.source.get_state(), before)


def test_what_was_lent_can_be_checked_twice(lent: Lent) -> None:
    first, second = (watched(lent.case) for _ in range(2))
    assert [r.measurements for r in first.results] == [r.measurements for r in second.results]


def test_random_states_survive_every_door() -> None:
    def states() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()

    for name in ("script", "loop_with_validation", "bandit_on_policy", "denoising_diffusion"):
        case = ZOO[name]()
        before = states()
        watched(case)
        assert states() == before, name
