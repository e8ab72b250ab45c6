"""The metric and the validation inside the loop: who is accused and who is not."""

import copy
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ris_diag
from ris_diag import Case, Epoch, Plan
from ris_diag.checks.evaluation import in_rows
from ris_diag.loop import as_losses
from tests.faults.evaluation_faults import counted, error, looped, measured, pictured, wrong
from tests.faults.mechanics import JUDGED
from tests.faults.registry import FAULTS, Fault, planted_lines
from tests.faults.zoo import ZOO
from tests.faults.zoo_parts import images, regression, validated

PLANTED = [fault for fault in FAULTS if fault.plant.__module__ == "tests.faults.evaluation_faults"]
RANDOM = {  # their losses draw noise, actions or mixtures, as a metric, too
    *("denoising_diffusion", "variational", "choice_judged_by_its_outcome", "actor_and_critic"),
    *("mixtures_of_pictures", "mixtures_that_are_mostly_the_second"),
}


def complaints(case: Case, select: str = "L05", seed: int = 0) -> list[str]:
    report = ris_diag.run(case, select=select, seed=seed)
    return [r.message() for r in report.results if r.status in ("fail", "error")]


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_a_fault_is_shown_in_its_line_and_named(fault: Fault) -> None:
    report = ris_diag.run(fault.plant(), select=fault.fires)
    assert report[fault.fires[0]].findings[0]["place"] in planted_lines(fault)
    assert report.diagnosis.named[0].cause.slug in fault.cause


@pytest.mark.parametrize("case", [measured, counted, pictured, looped, lambda: JUDGED])
def test_healthy_metrics_and_loops_are_silent(case: Any) -> None:
    assert [c for seed in range(5) for c in complaints(case(), seed=seed)] == []


@pytest.mark.parametrize("name", ZOO)
def test_the_loss_as_metric_is_silent(name: str) -> None:
    case = ZOO[name]()
    loss = case.loss
    if loss is None or name in RANDOM:
        pytest.skip("no loss that could be a metric")

    def metric(model: nn.Module, batch: Any) -> Tensor:
        with torch.enable_grad():
            progress = ris_diag.Progress(epoch=30, epochs=30)
            return as_losses(loss(model, batch, progress), name).total.detach()

    assert complaints(replace(case, metric=metric), "L050,L051,L052,L053,L054,L055") == []


def test_train_behind_and_eval_in_front_is_how_many_write_it() -> None:
    def metric(model: nn.Module, batch: Any) -> float:
        model.eval()
        with torch.no_grad():
            value = wrong(model, batch)
        model.train()
        return value

    assert complaints(pictured(metric)) == []


def test_a_layer_that_was_kept_in_eval_mode_is_left_so() -> None:
    class Kept(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
            self[1].eval()

    def metric(model: nn.Module, batch: Any) -> float:
        value = wrong(model.eval(), batch)
        model.train()
        return value

    (message,) = complaints(replace(pictured(metric), model=Kept))
    assert "the metric changes the model (1: mode; limit 0)" in message


def test_order_is_judged_only_where_samples_are_rows() -> None:
    x, y, square = torch.zeros(7, 3), torch.zeros(7), torch.zeros(7, 7)
    assert in_rows((x, y))
    assert in_rows({"x": x, "split": "train", "scale": torch.ones(())})
    assert not in_rows((x.T, y))
    assert not in_rows({"x": x, "adjacency": square})
    assert not in_rows((x, ["a"] * 7))


def test_higher_is_better_is_said_of_a_likelihood() -> None:
    case = counted(lambda model, batch: -F.cross_entropy(model(batch[0]), batch[1]))
    (message,) = complaints(case)
    assert "higher is better here: give 1 - accuracy, or the negative value" in message


def test_errors_cancel_only_where_there_are_some() -> None:
    def signed(model: nn.Module, batch: Any) -> float:
        return float((model(batch[0]) - batch[1]).mean().abs())

    (message,) = complaints(measured(signed), "L055")
    assert "errors cancel each other in the metric" in message
    assert "error 1 of mean 0" in message

    def alike(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, y = regression(split, seed, size)
        return x, torch.zeros_like(y)

    assert complaints(replace(measured(), batch=alike), "L055") == []


def test_a_smoothed_loss_as_metric_is_right() -> None:
    case = counted(
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)
    )
    assert complaints(case) == []


def test_a_metric_in_the_predictions_unit_is_not_judged() -> None:
    case = replace(
        measured(lambda model, batch: error(model, (batch[0], (batch[1] - 100) / 30))),
        predict=lambda model, batch: 30 * model(batch[0]) + 100,
    )
    assert ris_diag.run(case, select="L055")["L055"].lines == [
        "not judged: Case.predict isn't the model's output"
    ]


def fit_with(validate: Any) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        history = []
        for epoch in range(1, plan.epochs + 1):
            losses = []
            for batch in plan.train:
                loss = F.mse_loss(model.train()(batch[0]), batch[1])
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                losses.append(loss.item())
            history.append(Epoch(train=fmean(losses), validation=validate(model, plan, optimizer)))
        return history

    return looped(fit)


def test_a_share_that_stays_is_no_proof() -> None:
    case = fit_with(lambda model, plan, optimizer: 0.375)
    assert complaints(case, "L056") == []
    assert "may be a share" in ris_diag.run(case, select="L056")["L056"].lines[0]


def attacked(model: nn.Module, plan: Plan, optimizer: Any) -> float:
    """Validation on inputs that were moved uphill; the gradients are cleared by the next step."""
    values = []
    for x, y in plan.validation:
        moved = x.clone().requires_grad_()
        torch.autograd.backward(F.mse_loss(model.eval()(moved), y))
        assert moved.grad is not None
        values.append(float(F.mse_loss(model(moved + 0.1 * moved.grad.sign()), y).detach()))
    return fmean(values)


def adapted(model: nn.Module, plan: Plan, optimizer: Any) -> float:
    """Validation of a copy that may learn a little from it."""
    other = copy.deepcopy(model)
    steps = torch.optim.SGD(other.parameters(), lr=1e-3)
    for x, y in plan.validation:
        steps.zero_grad()
        torch.autograd.backward(F.mse_loss(other(x), y))
        steps.step()
    return validated(other, plan.validation, F.mse_loss) or 0.0


def sloppy(model: nn.Module, plan: Plan, optimizer: Any) -> float:
    """Neither eval mode nor no_grad: slow, but nothing is learnt."""
    return fmean(F.mse_loss(model(x), y).item() for x, y in plan.validation)


@pytest.mark.parametrize("validate", [attacked, adapted, sloppy])
def test_validation_that_teaches_the_model_nothing(validate: Any) -> None:
    assert complaints(fit_with(validate), "L056,L057") == []


def test_both_loaders_at_once_are_no_training_on_validation() -> None:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        history = []
        for epoch in range(1, plan.epochs + 1):
            held = iter(plan.validation)
            for x, y in plan.train:
                next(held, None)
                loss = F.mse_loss(model(x), y)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            history.append(Epoch(train=float(loss.detach())))
        return history

    assert complaints(looped(fit), "L057") == []


def test_pictures_are_what_the_metric_sees() -> None:
    assert images("validation", 0, 7)[0].shape == (7, 1, 8, 8)
