"""Trainings with a step of their own."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from ris_diag import Case, Declared, Progress
from ris_diag.plan import Training
from tests.faults.zoo_parts import (
    LastState,
    classes,
    conv_net,
    fixed,
    generator,
    healthy,
    images,
    loader_of,
    mlp,
    regression,
    sequences,
    supervised,
)

MSE, CROSS_ENTROPY = nn.MSELoss(), nn.CrossEntropyLoss()


@healthy
def step_of_ones_own() -> Case:
    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        training.optimizer.zero_grad()
        loss = CROSS_ENTROPY(training.model(x), y)
        loss.backward()
        training.optimizer.step()
        return float(loss.detach())

    return supervised(
        "step_of_ones_own",
        conv_net,
        images,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=2e-3),
        step=step,
    )


@healthy
def clipped_gradients() -> Case:
    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.model.parameters(), max_norm=0.5)
        training.optimizer.step()
        return float(loss.item())

    return supervised(
        "clipped_gradients",
        lambda: LastState(nn.LSTM),
        sequences,
        F.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9),
        step=step,
    )


@healthy
def scheduler_in_the_step() -> Case:
    def step(training: Training, batch: Any, progress: Progress) -> Tensor:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        training.scheduler.step()
        reported: Tensor = loss.detach()
        return reported

    def scheduler(optimizer: torch.optim.Optimizer) -> lr_scheduler.SequentialLR:
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=2)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)
        return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[2])

    return supervised(
        "scheduler_in_the_step",
        lambda: mlp(8, 32, 1),
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        scheduler=scheduler,
        step=step,
    )


@healthy
def autocast_step() -> Case:
    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        training.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            loss = CROSS_ENTROPY(training.model(x), y)
        loss.backward()
        training.optimizer.step()
        return float(loss.detach())

    return supervised(
        "autocast_step",
        lambda: mlp(8, 32, 4),
        classes,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2),
        step=step,
    )


@healthy
def noise_on_the_input() -> Case:
    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x + 0.05 * torch.randn_like(x)), y)
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        return float(loss.detach())

    return supervised(
        "noise_on_the_input",
        lambda: mlp(8, 32, 1),
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.RMSprop(model.parameters(), lr=2e-3),
        step=step,
    )


class Adversaries(nn.Module):
    """A generator from x to y, and its judge."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = mlp(8, 32, 4), mlp(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.generator(x)
        return output


def _pairs(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, 8, generator=generator(split, seed))
    return x, torch.tanh(x @ fixed(8, 4))


def _fooled(model: Any, x: Tensor, y: Tensor) -> Any:
    """The generator's loss: fool the judge, stay near the truth."""
    fake = model.generator(x)
    judged = model.discriminator(fake)
    adversarial = F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged))
    return 0.1 * adversarial + F.l1_loss(fake, y)


def _told_apart(model: Any, x: Tensor, y: Tensor) -> Any:
    """The judge's loss."""
    real, fake = model.discriminator(y), model.discriminator(model.generator(x).detach())
    return F.binary_cross_entropy_with_logits(
        real, torch.ones_like(real)
    ) + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))


def _adversarial(name: str, *, both: bool) -> Case:
    def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(model.get_submodule("generator").parameters(), lr=2e-2),
            torch.optim.Adam(model.get_submodule("discriminator").parameters(), lr=1e-2),
        ]

    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        for_generator, for_discriminator = training.optimizer
        judge = _told_apart(training.model, x, y)
        for_discriminator.zero_grad()
        judge.backward()
        for_discriminator.step()
        fooled = _fooled(training.model, x, y)
        for_generator.zero_grad()
        fooled.backward()
        for_generator.step()
        return float(fooled.detach() + judge.detach() if both else fooled.detach())

    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        value: Tensor = _fooled(model, *batch)
        return value + _told_apart(model, *batch) if both else value

    return Case(
        name=name,
        model=Adversaries,
        batch=_pairs,
        loss=loss,
        optimizer=optimizers,
        step=step,
        loader=loader_of(_pairs),
        predict=lambda model, batch: model(batch[0]),
    )


@healthy
def adversarial_reporting_the_generator() -> Case:
    return _adversarial("adversarial_reporting_the_generator", both=False)


@healthy
def adversarial_reporting_the_sum() -> Case:
    return _adversarial("adversarial_reporting_the_sum", both=True)


@healthy
def alternating_optimisers() -> Case:
    """Trunk and head take turns: by batches, each with a step of its own optimiser."""

    def step(training: Training, batch: Any, progress: Progress) -> float:
        x, y = batch
        for optimizer in training.optimizer:
            optimizer.zero_grad()
        loss = MSE(training.model(x), y)
        loss.backward()
        for optimizer in training.optimizer:
            optimizer.step()
        return float(loss.detach())

    return supervised(
        "alternating_optimisers",
        lambda: nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1)),
        regression,
        F.mse_loss,
        optimizer=lambda model: (
            torch.optim.Adam(model.get_submodule("0").parameters(), lr=1e-2),
            torch.optim.SGD(model.get_submodule("2").parameters(), lr=0.05),
        ),
        step=step,
    )


@healthy
def bandit_on_policy() -> Case:
    """REINFORCE: the step reports the mean cost, not the surrogate that it differentiates."""

    def expected_cost(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        context, best = batch
        policy = model(context).softmax(1)
        cost: Tensor = 1.1 - policy.gather(1, best[:, None]).mean()
        return cost

    def step(training: Training, batch: Any, progress: Progress) -> float:
        context, best = batch
        policy = torch.distributions.Categorical(logits=training.model(context))
        action = policy.sample((32,))  # type: ignore[no-untyped-call]
        cost = (action != best).float() + 0.1
        surrogate: Any = (policy.log_prob(action) * (cost - cost.mean())).mean()  # type: ignore[no-untyped-call]
        training.optimizer.zero_grad()
        surrogate.backward()
        training.optimizer.step()
        return float(cost.mean())

    return Case(
        name="bandit_on_policy",
        model=lambda: mlp(8, 32, 4),
        batch=classes,
        loss=expected_cost,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        step=step,
        predict=lambda model, batch: model(batch[0]).softmax(1),
        exempt={"L008": "reports the mean cost; the surrogate's value says nothing"},
    )


class Critic(nn.Module):
    """A value network and the slow copy that gives its targets."""

    def __init__(self) -> None:
        super().__init__()
        self.value = mlp(8, 32, 1)
        self.target = copy.deepcopy(self.value).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.value(x)
        return output


@healthy
def target_network() -> Case:
    """Temporal differences; the target follows the value by averaging."""

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        x, reward = regression(split, seed, size)
        return {"state": x, "reward": reward, "next_state": 0.5 * x.roll(1, 1)}

    def loss_of(model: Any, batch: dict[str, Tensor]) -> Any:
        with torch.no_grad():
            target = batch["reward"] + 0.5 * model.target(batch["next_state"])
        return F.mse_loss(model(batch["state"]), target)

    def step(training: Training, batch: dict[str, Tensor], progress: Progress) -> float:
        model: Any = training.model
        loss = loss_of(model, batch)
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        with torch.no_grad():
            pairs = zip(model.target.parameters(), model.value.parameters(), strict=True)
            for slow, fast in pairs:
                slow.lerp_(fast, 0.05)
        return float(loss.detach())

    return Case(
        name="target_network",
        model=Critic,
        batch=data,
        loss=lambda model, batch, progress: loss_of(model, batch),
        optimizer=lambda model: torch.optim.Adam(
            model.get_submodule("value").parameters(), lr=1e-2
        ),
        step=step,
        loader=loader_of(data),
        predict=lambda model, batch: model(batch["state"]),
        declared=Declared(learning_rate=1e-2, frozen=("target.*",)),
    )
