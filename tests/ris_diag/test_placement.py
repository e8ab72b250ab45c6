"""Where tensors would stand on a GPU: what the checks say, and that a model is given back."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ris_diag
from ris_diag import Case, Progress, Training
from ris_diag.gate import lets_through
from tests.faults.plant_device import (
    errors_picked_by_a_mask,
    features_in_another_order,
    loss_on_the_cpu,
    network_of_the_loss_is_not_moved,
    noise_from_a_generator_of_the_cpu,
    positions_without_a_device,
    spread_by_numpy,
    standardisation_is_a_plain_attribute,
    targets_in_an_object_of_their_own,
    weights_of_the_loss_are_a_constant,
    window_from_numpy,
)
from tests.faults.registry import marked_lines
from tests.faults.zoo_grounds import plain_regression
from tests.faults.zoo_parts import mlp

HERE = "tests/ris_diag/test_placement.py"


def problem(plant: Callable[[], Case], check: str = "G016") -> tuple[str, str]:
    """Cause and place, without the numbers of lines."""
    result = ris_diag.run(plant(), select=check)[check]
    assert result.status == "fail"
    (line,) = marked_lines(plant.__name__)
    return result.cause.replace(line, "HERE"), result.place.replace(line, "HERE")


@pytest.mark.parametrize(
    ("plant", "cause", "place"),
    [
        (
            standardisation_is_a_plain_attribute,
            "mean [8], a plain tensor that model.to(device) doesn't move, meets tensors on CUDA in "
            "sub()",
            "HERE (mean)",
        ),
        (
            weights_of_the_loss_are_a_constant,
            "a tensor [1, 1] from outside of the step meets tensors on CUDA in mul(): an error on "
            "a GPU",
            "HERE",
        ),
        (
            network_of_the_loss_is_not_moved,
            "a parameter outside of the model meets tensors on CUDA in linear(): an error on a GPU",
            "HERE",
        ),
        (
            targets_in_an_object_of_their_own,
            "a tensor [11, 1] of the batch, which isn't moved with it, meets tensors on CUDA in "
            "mse_loss(): an error on a GPU",
            "HERE",
        ),
        (
            positions_without_a_device,
            "a tensor [11] on the CPU made by arange() meets tensors on CUDA in embedding()",
            "HERE",
        ),
        (
            window_from_numpy,
            "a tensor [1, 8] on the CPU made by from_numpy() meets tensors on CUDA in mul()",
            "HERE",
        ),
        (
            loss_on_the_cpu,
            "a tensor [11, 1] on the CPU made by cpu() meets tensors on CUDA in mse_loss(): an "
            "error on a GPU",
            "HERE",
        ),
        (
            features_in_another_order,
            "an index [8] on the CPU made by arange() meets tensors on CUDA in __getitem__()",
            "HERE",
        ),
        (spread_by_numpy, "numpy() of a tensor on CUDA: an error on a GPU", "HERE"),
        (
            noise_from_a_generator_of_the_cpu,
            "randn() draws on CUDA from a generator of the CPU: an error on a GPU",
            "HERE",
        ),
    ],
)
def test_what_is_said(plant: Callable[[], Case], cause: str, place: str) -> None:
    said, where = problem(plant)
    assert cause in said
    assert where == place


def test_a_whole_message() -> None:
    result = ris_diag.run(errors_picked_by_a_mask(), select="G017")["G017"]
    (line,) = marked_lines("errors_picked_by_a_mask")
    assert result.message() == (
        "G017 step-runs-through: 1 place between forward and backward would wait for the GPU in "
        f"every step: indexing with a mask at {line} (limit 0)\n"
        f"  Place: {line}\n"
        "  Try: keep the value a tensor (torch.where, a mask as a factor) or fetch it behind the "
        "backward pass; Case.exempt is for what has to wait\n"
        "  Reproduce: ris_diag.run(case, select='G017', device='cpu', seed=0)"
    )


def test_everything_is_said_at_once() -> None:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, y = batch
        prediction: Tensor = model(x + torch.zeros(8))
        return F.mse_loss(prediction, y) + (prediction * torch.ones(1, 1)).mean() * 0.0

    result = ris_diag.run(replace(plain_regression(), loss=loss), select="G016")["G016"]
    assert [f["sign"] for f in result.findings] == ["made-without-device"] * 2
    assert result.measurements == {"places": 2}


def test_an_index_on_the_cpu_is_no_error() -> None:
    cause = ris_diag.run(features_in_another_order(), select="G016")["G016"].cause
    assert cause.endswith(": a copy in every step")


def stopping(*, fault: bool) -> Case:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        prediction: Tensor = model(batch[0] * torch.ones(8) if fault else batch[0])
        if prediction.is_cuda:
            raise RuntimeError("no kernel image is available")
        return F.mse_loss(prediction, batch[1])

    return replace(plain_regression(), loss=loss)


@pytest.mark.parametrize("check", ["G016", "G017"])
def test_what_is_not_seen_to_the_end_does_not_pass(check: str) -> None:
    result = ris_diag.run(stopping(fault=False), select=check)[check]
    assert result.status == "skip"
    assert result.cause.startswith(
        f"not covered: the pretended GPU stops at RuntimeError at {HERE}:"
    )
    assert result.cause.endswith(", in loss: no kernel image is available")
    assert lets_through(result)


def test_what_was_seen_until_then_is_reported() -> None:
    result = ris_diag.run(stopping(fault=True), select="G016")["G016"]
    assert result.status == "fail"
    assert result.cause.startswith("a tensor [8] on the CPU made by ones() meets")
    (line,) = result.lines
    assert line.startswith(f"not seen to the end: RuntimeError at {HERE}:")


def test_what_keeps_from_learning_is_named_first() -> None:
    def step(training: Training, batch: Any, progress: Progress) -> float:
        loss = F.mse_loss(training.model(batch[0]), batch[1])
        if loss > 1e3:
            loss = loss / 2
        torch.autograd.backward(loss)
        training.optimizer.step()
        return float(loss.detach())

    case = replace(plain_regression(), loss=None, step=step)
    named = ris_diag.run(case, select=["guard", "litmus"]).diagnosis.named
    assert [one.cause.slug for one in named] == ["gradients-not-cleared", "step-waits-for-device"]


def test_without_a_loss_nothing_is_judged() -> None:
    case = Case(name="bare", model=lambda: mlp(8, 8, 1), batch=plain_regression().batch)
    assert ris_diag.run(case, select="G016")["G016"].lines == [
        "not judged: neither Case.loss nor a loop"
    ]


def test_a_lent_model_keeps_its_memory() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model.view = model[0].weight.data
    held = [t.data_ptr() for t in (*model.parameters(), *model.buffers())]
    numbers = [t.clone() for t in (*model.parameters(), *model.buffers())]
    batch = plain_regression().batch
    assert batch is not None
    case = Case.from_xy(
        model, [batch("train", 0, 16)], F.mse_loss, torch.optim.Adam(model.parameters())
    )
    assert [r.status for r in ris_diag.run(case, select=["G016", "G017"]).results] == ["pass"] * 2
    assert [t.data_ptr() for t in (*model.parameters(), *model.buffers())] == held
    assert all(map(torch.equal, (*model.parameters(), *model.buffers()), numbers))
    assert all(p.grad is None for p in model.parameters())
