"""Faults of what is kept of a training, and healthy trainings in stages."""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Epoch, Plan, Progress, Training
from tests.faults.plant_loop import adamw, epoch_of, trained
from tests.faults.registry import OVERFLOW, fault
from tests.faults.zoo_loops import epochs_of_images, validate
from tests.faults.zoo_parts import epochs, healthy, loader_of, mlp, regression


@healthy
def best_weights_are_restored() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer, best, lowest = adamw(model), copy.deepcopy(model.state_dict()), float("inf")
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            history.append(epoch_of(losses, validate(model, plan.validation)))
            if (history[-1].validation or 0.0) < lowest:
                lowest = history[-1].validation or 0.0
                best = copy.deepcopy(model.state_dict())
        model.load_state_dict(best)
        return history

    return replace(epochs_of_images(), name="best_weights_are_restored", fit=fit)


def _a_reference_moves() -> bool:
    """Whether weights that were kept by reference are those behind the next step."""
    model = nn.Linear(2, 1)
    kept, copied = model.state_dict(), copy.deepcopy(model.state_dict())
    F.mse_loss(model(torch.ones(4, 2)), torch.ones(4, 1)).backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    now = model.state_dict()["weight"]
    return torch.equal(kept["weight"], now) and not torch.equal(copied["weight"], now)


@fault("L047", says="the tensors that it has", cause="best-weights-not-copied",
       healthy=best_weights_are_restored, source=OVERFLOW, proof=_a_reference_moves)  # fmt: skip
def best_weights_are_a_reference() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer, best, lowest = adamw(model), model.state_dict(), float("inf")
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            history.append(epoch_of(losses, validate(model, plan.validation)))
            if (history[-1].validation or 0.0) < lowest:
                lowest = history[-1].validation or 0.0
                best = model.state_dict()
        model.load_state_dict(best)  # planted: best_weights_are_a_reference
        return history

    return replace(epochs_of_images(), fit=fit)


@healthy
def adam_then_lbfgs() -> Case:
    """Two stages, the second with an optimiser of another kind."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        first = torch.optim.Adam(model.parameters(), lr=1e-2)
        second: Any = torch.optim.LBFGS(
            model.parameters(), max_iter=4, line_search_fn="strong_wolfe"
        )

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer = first if epoch == 1 else second

            def closure() -> Tensor:
                loss = F.mse_loss(model(x), y)
                plan.on_step(epoch, loss)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            return float(optimizer.step(closure).detach())

        return epochs(model, plan, step)

    return Case(
        name="adam_then_lbfgs",
        model=lambda: mlp(8, 16, 1),
        batch=regression,
        fit=fit,
        exempt={"L001": "its two stages are seen in the loop"},
    )


@healthy
def a_group_is_added_later() -> Case:
    """The network's trunk is frozen at first; its parameters join the optimiser in step three."""

    def step(training: Training, batch: Any, progress: Progress) -> float:
        model: Any = training.model
        optimizer: Any = training.optimizer
        if progress.epoch > 1 and len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": [*model[0].parameters()], "lr": 1e-3})
        x, y = batch
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.item())

    return Case(
        name="a_group_is_added_later",
        model=lambda: mlp(8, 32, 1),
        batch=regression,
        step=step,
        optimizer=lambda model: torch.optim.Adam(
            [p for name, p in model.named_parameters() if not name.startswith("0.")], lr=5e-3
        ),
        loader=loader_of(regression),
        exempt={"L001": "the step is the only form of its loss"},
    )
