"""L036 to L039: settings, clipping, weights between steps, schedules, losses that carry on."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    StepLR,
)

from ris_diag import Case, Declared, Epoch, Plan
from tests.ris_diag.findings import found, of_numbers, places
from tests.ris_diag.lines import line_of


def by(make: Callable[..., torch.optim.Optimizer], **settings: Any) -> Case:
    """A training by an optimiser of these settings."""
    return of_numbers(
        F.mse_loss, optimizer=lambda model: make(model.parameters(), **{"lr": 1e-2, **settings})
    )


ADAM, SGD, RMS = torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop
ONE = "1 settings are far from any useful one (optimiser 0 group 0: {})"


# ---- L036


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (
            by(ADAM, betas=(0.999, 0.9)),
            "betas=(0.999, 0.9), usual is (0.9, 0.999), the first below the second",
        ),
        (by(ADAM, eps=1.0), "eps=1.0, usual is 1e-8; a large one makes Adam a slow SGD"),
        (by(SGD, momentum=0.999), "momentum=0.999, usual is 0.9"),
        (
            by(SGD, momentum=0.9, dampening=1.0),
            "dampening=1.0, usual is 0; at 1 momentum gets no new gradient",
        ),
        (by(RMS, alpha=0.9999), "alpha=0.9999, usual is 0.99"),
    ],
    ids=["betas", "eps", "momentum", "dampening", "alpha"],
)
def test_odd_settings_are_named(case: Case, text: str) -> None:
    assert found(case, "L036") == [("setting-odd", ONE.format(text))]


@pytest.mark.parametrize(
    "case",
    [
        by(ADAM),
        by(torch.optim.AdamW, betas=(0.5, 0.999)),
        by(ADAM, betas=(0.0, 0.9)),
        by(ADAM, eps=1e-3),
        by(SGD, momentum=0.99, nesterov=True),
        by(SGD, dampening=1.0),
        by(RMS, alpha=0.9),
        by(torch.optim.Adagrad),
        by(SGD, weight_decay=1e-4),
        by(torch.optim.AdamW, weight_decay=10.0),
    ],
    ids=["adam", "gan", "wgan", "eps", "nesterov", "without momentum", "rms", "adagrad", "decay",
         "decoupled"],
)  # fmt: skip
def test_usual_settings_are_silent(case: Case) -> None:
    assert found(case, "L036") == []


def test_decay_that_leads() -> None:
    ((sign, text),) = found(by(SGD, weight_decay=100.0), "L036")
    assert sign == "setting-odd"
    assert text.startswith("at the first step weight decay is ")
    assert text.endswith(" times as large as the gradient (median over the weights, limit 3)")


def test_settings_that_are_not_the_declared_ones() -> None:
    declared = Declared(optimizer={"momentum": 0.9, "weight_decay": 1e-4, "power": 2})
    case = replace(by(SGD, weight_decay=1e-4), declared=declared)
    assert found(case, "L036") == [
        (
            "setting-not-declared",
            "2 settings in effect are not the declared ones (optimiser 0 group 0: momentum=0, "
            "declared 0.9, optimiser 0 group 0: power='absent', declared 2)",
        )
    ]
    assert places(case, "L036")[0].endswith(" (Declared.optimizer momentum, weight_decay, power)")


@pytest.mark.parametrize(
    "wanted", [{"betas": [0.9, 0.999]}, {"eps": 1e-8}, {"amsgrad": False}, {"weight_decay": 0}]
)
def test_settings_as_declared(wanted: dict[str, Any]) -> None:
    assert found(replace(by(ADAM), declared=Declared(optimizer=wanted)), "L036") == []


def clipping(limit: float | None, declared: float) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = SGD(model.parameters(), lr=1e-3)
        for epoch in range(1, plan.epochs + 1):
            for x, y in plan.train:
                loss = 100 * F.mse_loss(model(x), y)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                if limit is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), limit)
                optimizer.step()
        return [Epoch(train=1.0)] * plan.epochs

    return replace(of_numbers(F.mse_loss), fit=fit, declared=Declared(clip_norm=declared))


def test_a_declared_limit_that_is_not_kept() -> None:
    ((sign, text),) = found(clipping(None, declared=0.1), "L036")
    assert sign == "clip-not-declared"
    assert text.startswith(
        "in 12 of 12 steps the gradient is larger than the declared norm 0.1 (step 1: "
    )
    ((_, text),) = found(clipping(0.01, declared=0.1), "L036")
    assert text.startswith(
        "in 12 of 12 steps the gradient is clipped below the declared norm 0.1 (step 1: 0.01 of "
    )


@pytest.mark.parametrize(("limit", "declared"), [(0.1, 0.1), (None, 1e6), (1e6, 1e6)])
def test_a_declared_limit_that_is_kept(limit: float | None, declared: float) -> None:
    assert found(clipping(limit, declared), "L036") == []


# ---- L037


def looped(around: Callable[[nn.Module, dict[str, Any], int], Any]) -> Case:
    """A loop with something between its steps; `kept` is the state in front of the first."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = ADAM(model.parameters(), lr=1e-2)
        kept, number = copy.deepcopy(model.state_dict()), 0
        for epoch in range(1, plan.epochs + 1):
            for x, y in plan.train:
                loss = F.mse_loss(model(x), y)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                number += 1
                around(model, kept, number)
        return [Epoch(train=1.0)] * plan.epochs

    return replace(of_numbers(F.mse_loss), fit=fit)


def look_ahead(model: nn.Module, kept: dict[str, Any], number: int) -> None:
    """Every third time slow weights go half the way to the fast ones, which begin anew."""
    if number % 3:
        return
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.lerp_(kept[name], 0.5)
    kept.update(copy.deepcopy(model.state_dict()))


def test_weights_that_are_put_back() -> None:
    case = looped(lambda model, kept, number: number % 3 or model.load_state_dict(kept))
    assert found(case, "L037") == [
        (
            "weights-put-back",
            "in front of 3 of 12 steps the weights were put back: 100% of the way was gone in "
            "front of step 4 (limit 60%)",
        )
    ]


@pytest.mark.parametrize(
    "around",
    [
        lambda model, kept, number: None,
        look_ahead,
        lambda model, kept, number: number == 6 and model.load_state_dict(kept),
        lambda model, kept, number: [p.data.clamp_(-0.5, 0.5) for p in model.parameters()],
        lambda model, kept, number: [p.data.mul_(0.999) for p in model.parameters()],
    ],
    ids=["nothing", "half the way", "once", "clamped", "shrunk"],
)
def test_what_may_happen_to_weights(around: Any) -> None:
    assert found(looped(around), "L037") == []


# ---- L038


def scheduled(schedule: Callable[[torch.optim.Optimizer], Any], *, batchwise: bool) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = SGD(model.parameters(), lr=1e-2)
        scheduler = schedule(optimizer)
        for epoch in range(1, plan.epochs + 1):
            for x, y in plan.train:
                loss = F.mse_loss(model(x), y)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                if batchwise:
                    scheduler.step()
            if not batchwise:
                scheduler.step()
        return [Epoch(train=1.0)] * plan.epochs

    return replace(of_numbers(F.mse_loss), fit=fit)


def test_a_rate_that_is_over_too_early() -> None:
    case = scheduled(
        lambda o: ExponentialLR(o, 0.3),  # the schedule
        batchwise=True,
    )
    ((sign, text),) = found(case, "L038")
    assert sign == "rate-collapses"
    assert text.startswith(
        "the learning rate is over too early (optimiser 0 group 0: 7.3e-06 in step 7, 0.01 in step "
        "1 (limit "
    )
    assert places(case, "L038") == [line_of("the schedule")]


def test_a_rate_that_falls_and_climbs_again() -> None:
    case = scheduled(lambda o: CosineAnnealingLR(o, T_max=4), batchwise=True)
    ((_, text),) = found(case, "L038")
    assert text == (
        "the learning rate is over too early (optimiser 0 group 0: falls to 0 in step 5 and climbs "
        "again to 0.01 (limit 5% of 0.01))"
    )


@pytest.mark.parametrize(
    ("schedule", "batchwise"),
    [
        (lambda o: ExponentialLR(o, 0.9), True),
        (lambda o: ExponentialLR(o, 0.5), False),
        (lambda o: CosineAnnealingLR(o, T_max=12), True),
        (lambda o: CosineAnnealingLR(o, T_max=4), False),
        (lambda o: LinearLR(o, start_factor=0.01, total_iters=8), True),
        (lambda o: OneCycleLR(o, 0.1, total_steps=13), True),
        (lambda o: StepLR(o, 2, gamma=0.1), False),
        (lambda o: LambdaLR(o, lambda n: 1.0), True),
    ],
    ids=["slow", "by epoch", "to the end", "epochs", "warm-up", "one cycle", "steps", "constant"],
)
def test_schedules_that_last(schedule: Any, *, batchwise: bool) -> None:
    assert found(scheduled(schedule, batchwise=batchwise), "L038") == []


def test_a_declared_rate_is_another_checks() -> None:
    case = scheduled(lambda o: ExponentialLR(o, 0.3), batchwise=True)
    declared = Declared(learning_rate=lambda step: 0.01 * 0.3 ** (step - 1))
    assert found(replace(case, declared=declared), "L038") == []


# ---- L039


def summed(*, anew: bool) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = SGD([p for p in model.parameters() if p.ndim == 1], lr=1e-3)
        total: Any = 0.0
        for epoch in range(1, plan.epochs + 1):
            for x, y in plan.train:
                if anew:
                    total = 0.0
                total = total + F.mse_loss(model(x), y)
                plan.on_step(epoch, total)
                optimizer.zero_grad()
                total.backward(retain_graph=True)  # the sum
                optimizer.step()
        return [Epoch(train=1.0)] * plan.epochs

    return replace(of_numbers(F.mse_loss, model=lambda: nn.Linear(8, 1)), fit=fit)


def test_a_loss_that_holds_earlier_batches() -> None:
    case = summed(anew=False)
    assert found(case, "L039") == [
        (
            "loss-carried-over",
            "the graph of the loss holds operations of earlier batches in 11 of 12 backward "
            "passes, the first is pass 2",
        )
    ]
    assert places(case, "L039") == [line_of("the sum")]


def test_a_loss_of_its_own_batch() -> None:
    assert found(summed(anew=True), "L039") == []
