"""Faults in loops and scripts, continued: what is trained, and for how long."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from ris_diag import Case, Epoch, Plan, Progress
from tests.faults.plant_loop import adamw, epoch_of, trained
from tests.faults.registry import (
    DEEPCRIME,
    OVERFLOW,
    RECIPE,
    SILENT,
    SLIPS,
    TAXONOMY,
    TRAINCHECK,
    fault,
)
from tests.faults.zoo_grounds import Pair, forward, four_classes, plain_regression
from tests.faults.zoo_loops import (
    CROSS_ENTROPY,
    EncoderAndHead,
    encoder_and_head,
    epochs_of_images,
    script_of_classes,
    validate,
)
from tests.faults.zoo_parts import classes, healthy, loader_of, mlp, regression


def batches() -> Any:
    return DataLoader(TensorDataset(*classes("train", 0, 64)), 16, shuffle=True)


def script(main: Callable[[], None]) -> Case:
    return Case(name="script_of_classes", main=main)


@fault(cause="one-batch-for-ever", healthy=epochs_of_images, source=RECIPE)
def fetches_the_first_batch_anew() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = []
            for _ in plan.train:
                batch = next(iter(plan.train))  # planted: fetches_the_first_batch_anew
                losses.append(trained(model, optimizer, batch))
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="does-not-stop-or-start", healthy=epochs_of_images, source=f"{DEEPCRIME}, HNE")
def one_epoch_too_few() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(1, plan.epochs):  # planted: one_epoch_too_few
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="does-not-stop-or-start", healthy=epochs_of_images, source="B1")
def returns_inside_of_the_loop() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            history.append(epoch_of(losses, validate(model, plan.validation)))
            return history  # planted: returns_inside_of_the_loop
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(
    "L038",
    says="the learning rate is over too early",
    cause="schedule-runs-out",
    healthy=epochs_of_images,
    source=SILENT,
)
def scheduler_steps_by_batch() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        scheduler = StepLR(optimizer, step_size=2, gamma=0.1)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = []
            for batch in plan.train:
                losses.append(trained(model, optimizer, batch))
                scheduler.step()  # planted: scheduler_steps_by_batch
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="exceptions-swallowed", healthy=epochs_of_images, source="B1")
def bad_batches_are_skipped() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [0.0]
            for number, (x, y) in enumerate(plan.train):
                try:
                    if number % 2:
                        x = x.flatten(1)
                    losses.append(trained(model, optimizer, (x, y)))
                except RuntimeError:  # planted: bad_batches_are_skipped
                    continue
            history.append(epoch_of(losses[1:], validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="code-raises", healthy=four_classes, source=OVERFLOW)
def batch_size_is_written_into_the_network() -> Case:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry, self.exit = nn.Linear(8, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            # planted: batch_size_is_written_into_the_network
            hidden = F.relu(self.entry(x)).view(16, 32)
            logits: Tensor = self.exit(hidden)
            return logits

    return replace(four_classes(), model=Fixed)


@fault(cause="code-raises", healthy=four_classes, source=OVERFLOW)
def labels_begin_at_one() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y + 1)  # planted: labels_begin_at_one

    return replace(four_classes(), loss=loss)


# ---- which parameters


@fault(cause="parameters-not-in-optimiser", healthy=script_of_classes, source=OVERFLOW)
def head_is_replaced_behind_the_optimiser() -> Case:
    def main() -> None:
        torch.manual_seed(0)
        model = mlp(8, 32, 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        model[4] = nn.Linear(32, 4)  # planted: head_is_replaced_behind_the_optimiser
        for _ in range(20):
            for batch in batches():
                trained(model, optimizer, batch)

    return script(main)


@fault(cause="parameters-not-in-optimiser", healthy=script_of_classes, source=TRAINCHECK)
def two_models_are_mixed_up() -> Case:
    def main() -> None:
        torch.manual_seed(0)
        teacher, student = mlp(8, 32, 4), mlp(8, 32, 4)
        # planted: two_models_are_mixed_up
        optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
        for _ in range(20):
            for batch in batches():
                trained(student, optimizer, batch)

    return script(main)


@fault(
    cause=("parameters-not-in-optimiser", "parameters-held-twice"),
    place=("here", "encoder"),
    healthy=encoder_and_head,
    source="B1",
)
def encoder_is_in_no_optimiser() -> Case:
    def optimizers(model: Any) -> list[torch.optim.Optimizer]:
        return [
            # planted: encoder_is_in_no_optimiser
            torch.optim.Adam(model.head.parameters(), lr=2e-3),
            torch.optim.SGD(model.head.parameters(), lr=0.1),
        ]

    return replace(encoder_and_head(), optimizer=optimizers)


@fault(
    cause="parameters-held-twice",
    place=("here", "head"),
    healthy=encoder_and_head,
    source=TRAINCHECK,
)
def head_is_in_both_optimisers() -> Case:
    def optimizers(model: Any) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(model.parameters(), lr=2e-3),  # planted: head_is_in_both_optimisers
            torch.optim.SGD(model.head.parameters(), lr=0.1),
        ]

    return replace(encoder_and_head(), optimizer=optimizers)


@fault(
    cause="frozen-not-as-declared",
    place=("here", "encoder"),
    healthy=encoder_and_head,
    source=OVERFLOW,
)
def encoder_is_left_frozen() -> Case:
    class Frozen(EncoderAndHead):
        def __init__(self) -> None:
            super().__init__()
            self.encoder.requires_grad_(False)  # planted: encoder_is_left_frozen

    return replace(encoder_and_head(), model=Frozen)


@fault(cause="optimiser-rebuilt", healthy=script_of_classes, source=TRAINCHECK)
def optimiser_is_built_for_every_batch() -> Case:
    def main() -> None:
        torch.manual_seed(0)
        model = mlp(8, 32, 4)
        for _ in range(20):
            for batch in batches():
                # planted: optimiser_is_built_for_every_batch
                optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
                trained(model, optimizer, batch)

    return script(main)


@fault(cause="wrong-sign", healthy=script_of_classes, source=TRAINCHECK)
def gradients_are_negated_in_place() -> Case:
    def main() -> None:
        torch.manual_seed(0)
        model = mlp(8, 32, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(20):
            for x, y in batches():
                optimizer.zero_grad()
                CROSS_ENTROPY(model(x), y).backward()
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.neg_()  # planted: gradients_are_negated_in_place
                optimizer.step()

    return script(main)


@fault(cause="gradients-not-cleared", healthy=script_of_classes, source=SLIPS)
def script_never_clears() -> Case:
    def main() -> None:
        torch.manual_seed(0)
        model = mlp(8, 32, 4)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(20):
            for x, y in batches():
                CROSS_ENTROPY(model(x), y).backward()  # planted: script_never_clears
                optimizer.step()

    return script(main)


@fault(cause=("gradient-replaced", "does-not-learn"), healthy=plain_regression, source=RECIPE)
def gradient_noise_without_the_gradient() -> Case:
    def model() -> nn.Module:
        network = mlp(8, 32, 1)
        for parameter in network.parameters():
            # planted: gradient_noise_without_the_gradient
            parameter.register_hook(torch.randn_like)  # type: ignore[no-untyped-call]
        return network

    return replace(plain_regression(), model=model)


def by_hand(rate: float) -> Case:
    """Updates without an optimiser, in a loop that hands out no loss of its own."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        history = []
        for epoch in range(1, plan.epochs + 1):
            losses = []
            for x, y in plan.train:
                loss = F.mse_loss(model(x), y)
                plan.on_step(epoch, loss)
                model.zero_grad()
                torch.autograd.backward(loss)
                with torch.no_grad():
                    for parameter in model.parameters():
                        assert parameter.grad is not None
                        parameter.add_(parameter.grad, alpha=-rate)
                losses.append(loss.item())
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history

    return Case(
        name="updates_by_hand",
        model=lambda: mlp(8, 32, 1),
        batch=regression,
        fit=fit,
        loader=loader_of(regression),
        predict=forward,
        truth=lambda batch: batch[1],
        exempt={"L001": "the loop hands out no loss of its own"},
    )


@healthy
def updates_by_hand() -> Case:
    return by_hand(0.05)


@fault(
    "L044",
    says="the mean loss climbs from epoch to epoch",
    cause="wrong-sign",
    healthy=updates_by_hand,
    source=TAXONOMY,
    within=(by_hand,),
)
def updates_by_hand_with_a_plus() -> Case:
    return by_hand(-0.05)  # planted: updates_by_hand_with_a_plus
