"""Faults in which samples, steps or labels meet others than their own, and healthy likes."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F

from ris_diag import Case, Progress, Training
from tests.faults.registry import OVERFLOW, RECIPE, SILENT, SLIPS, fault
from tests.faults.zoo_grounds import (
    Pair,
    Tracker,
    Variational,
    four_classes,
    next_token,
    padded,
    padded_walks,
    plain_regression,
    stripes,
    variational,
)
from tests.faults.zoo_parts import (
    adam,
    classes,
    conv_net,
    healthy,
    images,
    mlp,
    regression,
)

# ---- modules inside of the network


def tracked(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """Mean error of the walks, which the padding doesn't enter."""
    with torch.no_grad():
        error = (model(batch["x"]) - batch["y"]).abs().squeeze(-1)
    return float(error[batch["mask"]].mean())


@healthy
def judged_walks() -> Case:
    return replace(padded_walks(), name="judged_walks", metric=tracked)


@fault(cause="samples-mix", healthy=judged_walks, source=SLIPS)
def recurrence_along_the_batch() -> Case:
    class Crossing(Tracker):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.GRU(2, 24)  # planted: recurrence_along_the_batch

    return replace(judged_walks(), model=Crossing)


class Features(nn.Module):
    """Two convolutions, put in one row a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.in_rows(F.relu(self.second(F.relu(self.first(x)))))

    def in_rows(self, maps: Tensor) -> Tensor:
        return maps.flatten(1)


class Pictured(nn.Module):
    def __init__(self, features: Callable[[], nn.Module] = Features) -> None:
        super().__init__()
        self.features, self.head = features(), mlp(16 * 9, 32, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


@healthy
def judged_pictures() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        with torch.no_grad():
            return float(F.cross_entropy(model(batch[0]), batch[1]))

    return replace(stripes(), name="judged_pictures", model=Pictured, metric=metric)


@fault(cause="samples-mix", healthy=judged_pictures, source=SLIPS)
def maps_of_several_pictures_in_a_row() -> Case:
    class Crossed(Features):
        def in_rows(self, maps: Tensor) -> Tensor:
            # planted: maps_of_several_pictures_in_a_row
            return maps.transpose(0, 1).reshape(len(maps), -1)

    return replace(judged_pictures(), model=lambda: Pictured(Crossed))


@fault(cause="noise-at-inference", healthy=judged_pictures, source=SILENT)
def maps_are_dropped_in_every_mode() -> Case:
    class Dropped(Features):
        def in_rows(self, maps: Tensor) -> Tensor:
            return F.dropout(maps, 0.1).flatten(1)  # planted: maps_are_dropped_in_every_mode

    return replace(judged_pictures(), model=lambda: Pictured(Dropped))


@fault(cause="parameter-not-registered", place=("here", "stages"), healthy=stripes, source=SILENT)
def stages_stand_in_a_list() -> Case:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            network = conv_net()
            self.stages = [network[:3], network[3:6]]  # planted: stages_stand_in_a_list
            self.head = network[6:]

        def forward(self, x: Tensor) -> Tensor:
            for stage in self.stages:
                x = stage(x)
            logits: Tensor = self.head(x)
            return logits

    return replace(stripes(), model=Listed)


class Attention(nn.Module):
    """One head over the steps of a sequence, of each step over those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.joint, self.exit = nn.Linear(24, 72), nn.Linear(24, 24)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        scores: Tensor = query @ key.mT / math.sqrt(24)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=key.device).triu(1)
        return scores.masked_fill(future, -math.inf)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.joint(x).chunk(3, -1)
        output: Tensor = self.exit(self.scores(query, key).softmax(-1) @ value)
        return output


class Speaker(nn.Module):
    """Names the next of 16 symbols, by two layers of attention."""

    def __init__(self, attention: Callable[[], nn.Module] = Attention) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(16, 24), nn.Embedding(12, 24)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(24), "mix": attention()}) for _ in range(2)
        )
        self.head = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embedding(x) + self.position(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers:
            parts: Any = layer
            hidden = hidden + parts["mix"](parts["norm"](hidden))
        logits: Tensor = self.head(hidden)
        return logits


@healthy
def next_token_by_attention() -> Case:
    case = next_token()
    return replace(case, name="next_token_by_attention", model=Speaker, declared=None)


@fault(cause="sees-the-future", healthy=next_token_by_attention, source=RECIPE)
def one_of_many_modules_looks_ahead() -> Case:
    class Ahead(Attention):
        def scores(self, query: Tensor, key: Tensor) -> Tensor:
            # planted: one_of_many_modules_looks_ahead
            scores: Tensor = query @ key.mT / math.sqrt(24)
            return scores

    return replace(next_token_by_attention(), model=lambda: Speaker(Ahead))


# ---- draws


@fault(cause="graph-is-cut", place=("here", "encoder"), healthy=variational, source=SILENT)
def code_is_drawn_around_its_mean() -> Case:
    class Drawn(Variational):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, log_variance = self.encode(x)
            # planted: code_is_drawn_around_its_mean
            code = torch.normal(mean, (log_variance / 2).exp())
            return self.decoder(code), mean, log_variance

    return replace(variational(), model=Drawn)


class Switched(nn.Module):
    """Draws which of eight features a classifier sees; the choice is judged by its outcome."""

    def __init__(self) -> None:
        super().__init__()
        self.chooser, self.reader = nn.Linear(8, 8), mlp(8, 24, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.reader(x * (self.chooser(x) > 0))
        return logits


@healthy
def choice_judged_by_its_outcome() -> Case:
    """A draw without a gradient whose likelihood is trained (REINFORCE)."""

    def loss(model: Any, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        inclined = model.chooser(x)
        chosen = torch.bernoulli(inclined.sigmoid().detach())
        costs = F.cross_entropy(model.reader(x * chosen), y, reduction="none")
        taken = F.binary_cross_entropy_with_logits(inclined, chosen, reduction="none").sum(1)
        worth = costs.detach() - costs.detach().mean()
        return costs.mean() - (worth * taken).mean()

    return replace(
        four_classes(),
        name="choice_judged_by_its_outcome",
        model=Switched,
        loss=loss,
        optimizer=adam(2e-2),
    )


class Actor(nn.Module):
    """Draws its answer; a critic inside says what it thinks of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.critic = mlp(8, 24, 1), mlp(9, 24, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        policy: Any = torch.distributions.Normal(self.mean(x), 0.3)
        action = policy.sample()
        return policy.log_prob(action), action, self.critic(torch.cat([x, action], 1))


@healthy
def actor_and_critic() -> Case:
    def loss(model: Any, batch: Pair, progress: Progress) -> Any:
        x, y = batch
        likely, action, expected = model(x)
        reward = -(action - y).abs()
        gain = (reward - expected).detach()
        return F.mse_loss(expected, reward) - (likely * gain).mean()

    def predict(model: Any, batch: Pair) -> Tensor:
        answer: Tensor = model.mean(batch[0])
        return answer

    return replace(
        plain_regression(),
        name="actor_and_critic",
        model=Actor,
        loss=loss,
        predict=predict,
        truth=None,
        metric=None,
    )


# ---- labels of other samples


def of_each_step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Prediction and label of every step: [B * 10, 1]."""
    return model(batch["x"]).flatten(0, 1), batch["y"].flatten(0, 1)


@healthy
def walks_step_by_step() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        return F.mse_loss(*of_each_step(model, batch))

    return replace(padded_walks(), name="walks_step_by_step", batch=padded, loss=loss)


@fault("G018", cause="labels-of-other-samples-in-loss", healthy=walks_step_by_step, source=OVERFLOW)
def steps_first_on_one_side() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        output, label = model(batch["x"]), batch["y"]
        # planted: steps_first_on_one_side
        return F.mse_loss(output.transpose(0, 1).reshape(-1, 1), label.reshape(-1, 1))

    return replace(walks_step_by_step(), loss=loss)


def shuffled(training: Training, batch: Pair, inputs: Tensor, labels: Tensor) -> float:
    x, y = batch
    training.model.train()
    training.optimizer.zero_grad()
    loss: Any = F.cross_entropy(training.model(x[inputs]), y[labels])
    loss.backward()
    training.optimizer.step()
    return float(loss.detach())


@healthy
def shuffled_in_the_step() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        order = torch.randperm(len(batch[1]), device=batch[1].device)
        return shuffled(training, batch, order, order)

    return replace(
        four_classes(),
        name="shuffled_in_the_step",
        loss=None,
        step=step,
        optimizer=adam(5e-3),
        declared=None,
        exempt={"L001": "its step is the only form of its loss"},
    )


@fault(
    cause="labels-of-other-samples-in-loss",
    healthy=shuffled_in_the_step,
    source=OVERFLOW,
    within=(shuffled,),
)
def inputs_are_shuffled_alone() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        rows = torch.arange(len(batch[1]), device=batch[1].device)
        order = torch.randperm(len(rows), device=rows.device)
        return shuffled(training, batch, order, rows)  # planted: inputs_are_shuffled_alone

    return replace(shuffled_in_the_step(), step=step)


def mixed(draw: Callable[[], float]) -> Any:
    """A loss on mixtures of two samples, each label for its share."""

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        share, order = draw(), torch.randperm(len(y), device=y.device)
        output = model(share * x + (1 - share) * x[order])
        first = F.cross_entropy(output, y)
        second = F.cross_entropy(output, y[order])
        return share * first + (1 - share) * second

    return loss


@healthy
def mixtures_of_pictures() -> Case:
    loss = mixed(lambda: float(Beta(0.4, 0.4).sample()))
    return replace(stripes(), name="mixtures_of_pictures", batch=images, loss=loss)


@healthy
def mixtures_that_are_mostly_the_second() -> Case:
    return replace(
        four_classes(),
        name="mixtures_that_are_mostly_the_second",
        batch=classes,
        loss=mixed(lambda: 0.1),
    )


@healthy
def distributions_are_compared() -> Case:
    """A loss of the sorted outputs and the sorted labels beside the usual one."""

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        output = model(x)
        apart = F.l1_loss(output.sort(0).values, y.sort(0).values)
        return F.mse_loss(output, y) + 0.3 * apart

    return replace(
        plain_regression(), name="distributions_are_compared", batch=regression, loss=loss
    )
