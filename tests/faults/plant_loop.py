"""Faults in the loop."""

import copy
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import nn

from ris_diag import Case, Epoch, Plan, Progress, Training
from tests.faults.registry import (
    DEEPCRIME,
    OVERFLOW,
    SILENT,
    SLIPS,
    TAXONOMY,
    TRAINCHECK,
    fault,
)
from tests.faults.zoo_grounds import Pair
from tests.faults.zoo_loops import (
    BCE,
    CROSS_ENTROPY,
    MSE,
    clipped_lstm,
    encoder_and_head,
    epochs_of_images,
    four_passes_a_step,
    logistic_regression,
    validate,
)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=3e-3)


def trained(model: nn.Module, optimizer: Any, batch: Pair) -> float:
    """One step, as it should be."""
    x, y = batch
    loss = CROSS_ENTROPY(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.item())


def epoch_of(losses: list[float], validation: float | None = None) -> Epoch:
    return Epoch(train=sum(losses) / len(losses), validation=validation)


# ---- weights that don't stay


@fault("L037", says="put back: 100%", cause="weights-put-back", healthy=epochs_of_images,
       source="B1")  # fmt: skip
def best_weights_are_loaded_in_every_epoch() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        best = copy.deepcopy(model.state_dict())
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            model.load_state_dict(best)  # planted: best_weights_are_loaded_in_every_epoch
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="weights-put-back", healthy=clipped_lstm, source=OVERFLOW)
def weights_are_clamped_to_nearly_nothing() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step()
        for parameter in training.model.parameters():
            parameter.data.clamp_(-1e-3, 1e-3)  # planted: weights_are_clamped_to_nearly_nothing
        return float(loss.item())

    return replace(clipped_lstm(), step=step)


# ---- steps


@fault(cause="steps-missing", healthy=epochs_of_images, source=OVERFLOW)
def step_stands_outside_of_the_loop() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = []
            for x, y in plan.train:
                optimizer.zero_grad()
                loss = CROSS_ENTROPY(model(x), y)
                loss.backward()
                losses.append(loss.item())
            optimizer.step()  # planted: step_stands_outside_of_the_loop
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause=("steps-missing", "does-not-stop-or-start"), healthy=epochs_of_images, source="B1")
def breaks_behind_the_first_batch() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = []
            for batch in plan.train:
                losses.append(trained(model, optimizer, batch))
                break  # planted: breaks_behind_the_first_batch
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="steps-missing", healthy=clipped_lstm, source=OVERFLOW)
def step_is_not_called() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step  # noqa: B018  # planted: step_is_not_called
        return float(loss.item())

    return replace(clipped_lstm(), step=step)


@fault(cause="step-without-backward", healthy=encoder_and_head, source=TRAINCHECK)
def steps_in_the_helper_and_again() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        for_encoder, for_head = training.optimizer
        for_encoder.zero_grad()
        for_head.zero_grad()
        loss = CROSS_ENTROPY(training.model(x), y)
        loss.backward()
        for_encoder.step()
        for_head.step()
        for_head.step()  # planted: steps_in_the_helper_and_again
        return float(loss.item())

    return replace(encoder_and_head(), step=step)


@fault(
    cause="gradients-not-cleared", place=("here", "encoder"), healthy=encoder_and_head, source=SLIPS
)
def clears_one_optimiser_of_two() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        for_encoder, for_head = training.optimizer
        for_head.zero_grad()  # planted: clears_one_optimiser_of_two
        loss = CROSS_ENTROPY(training.model(x), y)
        loss.backward()
        for_encoder.step()
        for_head.step()
        return float(loss.item())

    return replace(encoder_and_head(), step=step)


@fault(cause="gradients-cleared-too-soon", healthy=clipped_lstm, source=TRAINCHECK)
def clears_behind_backward() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        loss.backward()
        training.optimizer.zero_grad()  # planted: clears_behind_backward
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step()
        return float(loss.item())

    return replace(clipped_lstm(), step=step)


@fault(
    cause=("clipping-in-wrong-place", "clipping-not-as-declared"),
    healthy=clipped_lstm,
    source=SILENT,
)
def clips_in_front_of_backward() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        # planted: clips_in_front_of_backward
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        loss.backward()
        training.optimizer.step()
        return float(loss.item())

    return replace(clipped_lstm(), step=step)


@fault(cause="clipped-to-nothing", healthy=clipped_lstm, source=f"{DEEPCRIME}, OCG")
def clips_to_a_thousandth() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        # planted: clips_to_a_thousandth
        nn.utils.clip_grad_norm_(training.model.parameters(), 1e-3)
        training.optimizer.step()
        return float(loss.item())

    return replace(clipped_lstm(), step=step, declared=None)


@fault(cause="accumulation-not-as-declared", healthy=four_passes_a_step, source="B1")
def steps_behind_three_of_four_passes() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        history, passes = [], 0
        optimizer.zero_grad()
        for epoch in range(1, plan.epochs + 1):
            losses = []
            for x, y in plan.train:
                loss = MSE(model(x), y) / 4
                plan.on_step(epoch, loss)
                loss.backward()
                passes += 1
                if passes % 3 == 0:  # planted: steps_behind_three_of_four_passes
                    optimizer.step()
                    optimizer.zero_grad()
                losses.append(4 * loss.item())
            history.append(epoch_of(losses))
        return history

    return replace(four_passes_a_step(), fit=fit)


# ---- which loss


@fault("L039", says="of earlier batches in 8 of 12", cause="loss-carried-over",
       healthy=logistic_regression, source=OVERFLOW)  # fmt: skip
def total_loss_goes_backward() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        history = []
        for _ in range(plan.epochs):
            total: Any = 0
            count = 0
            for x, y in plan.train:
                optimizer.zero_grad()
                total += BCE(model(x).squeeze(1), y)
                total.backward(retain_graph=True)  # planted: total_loss_goes_backward
                optimizer.step()
                count += 1
            history.append(Epoch(train=total.item() / count))
        return history

    return replace(logistic_regression(), fit=fit)


@fault(
    cause=("one-batch-for-ever", "shows-another-loss"),
    healthy=logistic_regression,
    source=TRAINCHECK,
)
def a_stale_loss_goes_backward() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        history = []
        for epoch in range(1, plan.epochs + 1):
            losses = []
            for x, y in plan.train:
                optimizer.zero_grad()
                loss = BCE(model(x).squeeze(1), y)
                losses.append(loss)
                plan.on_step(epoch, loss)
                losses[0].backward(retain_graph=True)  # planted: a_stale_loss_goes_backward
                optimizer.step()
            history.append(epoch_of([loss.item() for loss in losses]))
        return history

    return replace(logistic_regression(), fit=fit)


@fault(cause="shows-another-loss", healthy=logistic_regression, source="B1")
def penalty_is_not_shown() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        history = []
        for epoch in range(1, plan.epochs + 1):
            losses = []
            for x, y in plan.train:
                optimizer.zero_grad()
                loss = BCE(model(x).squeeze(1), y)
                plan.on_step(epoch, loss)
                penalty = sum(p.abs().sum() for p in model.parameters())
                (loss + penalty).backward()  # planted: penalty_is_not_shown
                optimizer.step()
                losses.append(loss.item())
            history.append(epoch_of(losses))
        return history

    return replace(logistic_regression(), fit=fit)


@fault(cause="reported-loss-wrong", healthy=epochs_of_images, source=OVERFLOW)
def running_loss_over_all_epochs() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history, running = [], 0.0
        for _ in range(plan.epochs):
            model.train()
            count = 0
            for batch in plan.train:
                running += trained(model, optimizer, batch)
                count += 1
            train = running / count  # planted: running_loss_over_all_epochs
            history.append(Epoch(train=train, validation=validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


# ---- modes and batches


@fault(cause="eval-mode-while-training", healthy=epochs_of_images, source=SLIPS)
def eval_mode_is_never_left() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        model.train()  # planted: eval_mode_is_never_left
        history = []
        for _ in range(plan.epochs):
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="train-mode-while-validating", healthy=epochs_of_images, source=SLIPS)
def validates_without_eval() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            with torch.no_grad():
                # planted: validates_without_eval
                held = [float(CROSS_ENTROPY(model(x), y)) for x, y in plan.validation]
            history.append(epoch_of(losses, sum(held) / len(held) if held else None))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="trains-on-validation", healthy=epochs_of_images, source=TAXONOMY)
def validation_takes_steps() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            model.eval()
            # planted: validation_takes_steps
            held = [trained(model, optimizer, batch) for batch in plan.validation]
            history.append(epoch_of(losses, sum(held) / len(held) if held else None))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(cause="trains-on-validation", healthy=epochs_of_images, source=TAXONOMY)
def validation_is_among_the_training_batches() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adamw(model)
        history = []
        for _ in range(plan.epochs):
            model.train()
            # planted: validation_is_among_the_training_batches
            served = chain(plan.train, plan.validation)
            losses = [trained(model, optimizer, batch) for batch in served]
            history.append(epoch_of(losses, validate(model, plan.validation)))
        return history

    return replace(epochs_of_images(), fit=fit)
