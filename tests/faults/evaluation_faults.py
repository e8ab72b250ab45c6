"""Faults in the metric and in the validation of the loop."""

import copy
from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Epoch, Plan
from tests.faults.oracle_faults import of_classes, of_numbers
from tests.faults.registry import fault
from tests.faults.zoo_parts import conv_net, images, mlp, supervised, validated

HISTORY = "the history behind the project (docs/design.md)"
Metric = Callable[[nn.Module, Any], Any]


def error(model: nn.Module, batch: Any) -> Tensor:
    """Mean absolute error."""
    value: Tensor = (model(batch[0]) - batch[1]).abs().mean()
    return value


def wrong(model: nn.Module, batch: Any) -> float:
    """Share of wrong answers."""
    return float((model(batch[0]).argmax(1) != batch[1]).float().mean())


def measured(metric: Metric = error) -> Case:
    return of_numbers(metric=metric)


def counted(metric: Metric = wrong) -> Case:
    return of_classes(metric=metric)


def pictured(metric: Metric = wrong) -> Case:
    """Batch norm and dropout in the network."""
    return supervised(
        "pictures",
        conv_net,
        images,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=2e-3),
        truth=lambda batch: batch[1],
        metric=metric,
    )


STALE: dict[str, Any] = {"cause": "metric-of-other-weights", "source": HISTORY}


@fault(
    "L050", says="while every weight of the model is changed in place", healthy=measured, **STALE
)
def metric_of_a_copy() -> Case:
    kept: list[nn.Module] = []

    def metric(model: nn.Module, batch: Any) -> Tensor:
        if not kept:
            kept.append(copy.deepcopy(model))
        return error(kept[0], batch)  # planted: metric_of_a_copy

    return measured(metric)


@fault("L050", says="while every weight of the model is changed in place", healthy=counted, **STALE)
def metric_in_a_cache() -> Case:
    kept: dict[int, float] = {}

    def metric(model: nn.Module, batch: Any) -> float:
        if id(model) not in kept:
            kept[id(model)] = wrong(model, batch)
        return kept[id(model)]  # planted: metric_in_a_cache

    return counted(metric)


NOISY: dict[str, Any] = {"cause": "metric-random", "source": HISTORY}


@fault("L051", says="of the same model and batch is", healthy=measured, **NOISY)
def metric_with_noise_on_its_input() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        x = batch[0] + 0.1 * torch.randn_like(batch[0])  # planted: metric_with_noise_on_its_input
        return error(model, (x, batch[1]))

    return measured(metric)


@fault("L051", says="of the same model and batch is", healthy=measured, **NOISY)
def metric_that_keeps_its_sum() -> Case:
    seen: list[float] = []

    def metric(model: nn.Module, batch: Any) -> float:
        seen.append(float(error(model, batch)))
        return sum(seen)  # planted: metric_that_keeps_its_sum

    return measured(metric)


ORDER: dict[str, Any] = {"cause": "metric-depends-on-order", "source": HISTORY}


@fault("L052", says="of the same 7 samples", healthy=measured, **ORDER)
def metric_without_the_last_sample() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        return error(
            model, [part[:-1] for part in batch]
        )  # planted: metric_without_the_last_sample

    return measured(metric)


@fault("L052", says="of the same 7 samples", healthy=measured, **ORDER)
def metric_with_weights_by_position() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        errors = (model(batch[0]) - batch[1]).abs()[:, 0]
        weights = torch.arange(1.0, len(errors) + 1)  # planted: metric_with_weights_by_position
        value: Tensor = errors @ weights / weights.sum()
        return value

    return measured(metric)


@fault(
    "L053",
    says="modules in train mode (1, 4, 7; limit 0)",
    cause="metric-in-train-mode",
    healthy=pictured,
    source=HISTORY,
)
def metric_in_train_mode() -> Case:
    def metric(model: nn.Module, batch: Any) -> float:
        return wrong(model.train(), batch)  # planted: metric_in_train_mode

    return pictured(metric)


CHANGES: dict[str, Any] = {"cause": "metric-changes-model", "source": HISTORY}


@fault("L054", says="weights", healthy=measured, **CHANGES)
def metric_that_rounds_the_weights() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16())  # planted: metric_that_rounds_the_weights
        return error(model, batch)

    return measured(metric)


@fault("L054", says="gradient", healthy=measured, **CHANGES)
def metric_that_leaves_gradients() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        with torch.enable_grad():
            value = error(model, batch)
            torch.autograd.backward(value)  # planted: metric_that_leaves_gradients
        return value.detach()

    return measured(metric)


@fault("L054", says="requires_grad", healthy=measured, **CHANGES)
def metric_that_freezes() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        model.requires_grad_(False)  # planted: metric_that_freezes
        return error(model, batch)

    return measured(metric)


KNOWN: dict[str, Any] = {"cause": "metric-wrong-for-known-error", "source": HISTORY}


@fault("L055", says="higher is better here: give 1 - accuracy", healthy=counted, **KNOWN)
def accuracy_as_a_metric() -> Case:
    return counted(lambda model, batch: 1 - wrong(model, batch))  # planted: accuracy_as_a_metric


@fault("L055", says="higher is better here", healthy=measured, **KNOWN)
def explained_variance_as_a_metric() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        share: Tensor = (model(x) - y).square().sum() / (y - y.mean()).square().sum()
        return 1 - share  # planted: explained_variance_as_a_metric

    return measured(metric)


@fault("L055", says="the truth is not the best for the metric", healthy=measured, **KNOWN)
def metric_in_another_unit() -> Case:
    return measured(
        lambda model, batch: error(
            model, (batch[0], batch[1] / 100)
        )  # planted: metric_in_another_unit
    )


@fault("L055", says="the metric is blind", healthy=measured, **KNOWN)
def metric_of_the_labels_alone() -> Case:
    def metric(model: nn.Module, batch: Any) -> Tensor:
        model(batch[0])
        value: Tensor = batch[1].abs().mean()  # planted: metric_of_the_labels_alone
        return value

    return measured(metric)


# ---- the validation of the loop


def trained(
    model: nn.Module,
    plan: Plan,
    judged: nn.Module,
    behind: Callable[[Any], Any] = lambda optimizer: None,
) -> list[Epoch]:
    """Trains one network and validates another, which should be the same."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for epoch in range(1, plan.epochs + 1):
        model.train()
        losses = []
        for x, y in plan.train:
            loss = F.mse_loss(model(x), y)
            plan.on_step(epoch, loss)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        behind(optimizer)
        value = validated(judged, plan.validation, F.mse_loss)
        history.append(Epoch(train=fmean(losses), validation=value))
    return history


def looped(
    fit: Callable[[nn.Module, Plan], list[Epoch]] = lambda model, plan: trained(model, plan, model),
) -> Case:
    return of_numbers(fit=fit)


@fault("L056", says="the loss of the weights before the training", healthy=looped, **STALE)
def validates_a_copy() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, copy.deepcopy(model))  # planted: validates_a_copy

    return looped(fit)


@fault("L056", says="the validation is", healthy=looped, **STALE)
def validates_another_network() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        return trained(model, plan, mlp(8, 32, 1))  # planted: validates_another_network

    return looped(fit)


LEARNS: dict[str, Any] = {"cause": "trains-on-validation", "source": HISTORY}


@fault("L057", says="optimiser steps are taken on validation batches", healthy=looped, **LEARNS)
def steps_on_validation() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        def behind(optimizer: Any) -> None:
            for x, y in plan.validation:
                optimizer.zero_grad()
                torch.autograd.backward(F.mse_loss(model(x), y))
                optimizer.step()  # planted: steps_on_validation

        return trained(model, plan, model, behind)

    return looped(fit)


@fault("L057", says="leave gradients to the next step", healthy=looped, **LEARNS)
def accumulates_on_validation() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        history = []
        for epoch in range(1, plan.epochs + 1):
            for batches in (plan.train, plan.validation):
                for x, y in batches:
                    loss = F.mse_loss(model(x), y)
                    if batches is plan.train:
                        plan.on_step(epoch, loss)
                    torch.autograd.backward(loss)  # planted: accumulates_on_validation
                    if batches is plan.train:
                        optimizer.step()
                        optimizer.zero_grad()
            history.append(Epoch(train=float(loss.detach())))
        return history

    return looped(fit)
