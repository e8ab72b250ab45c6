"""Faults in how often labels and samples occur, and in which of them belong together."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ris_diag import Case, Progress
from tests.faults.registry import DEEPCRIME, OVERFLOW, SLIPS, TAXONOMY, fault
from tests.faults.zoo_loops import seeded
from tests.faults.zoo_parts import (
    adam,
    fixed,
    generator,
    healthy,
    loader_of,
    mlp,
    regression,
    supervised,
    tokens,
)

Pair = tuple[Tensor, Tensor]


def rarely(split: str, seed: int, size: int) -> Pair:
    """x [B, 8], whether a noisy sum exceeds what one of seven exceeds [B, 1]."""
    x, _ = regression(split, seed, size)
    limit = 1.05 * fixed(8, 1).norm()
    return x, (x @ fixed(8, 1) > limit).float()


def wins_and_losses(split: str, seed: int, size: int) -> Pair:
    """x [B, 8], one of three classes, of which the middle one has most [B]."""
    x, _ = regression(split, seed, size)
    score, limit = (x @ fixed(8, 1))[:, 0], 1.2 * fixed(8, 1).norm()
    return x, 1 + (score > limit).long() - (score < -limit).long()


@healthy
def one_yes_in_seven() -> Case:
    """A yes weighs as many times more as it is rarer."""

    def criterion(logits: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, y, pos_weight=torch.tensor(6.0))

    return supervised(
        "one_yes_in_seven",
        lambda: mlp(8, 32, 1),
        rarely,
        criterion,
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )


@healthy
def rare_classes_weigh_more() -> Case:
    return supervised(
        "rare_classes_weigh_more",
        lambda: mlp(8, 32, 3),
        wins_and_losses,
        lambda logits, y: F.cross_entropy(
            logits, y, weight=torch.tensor([3.0, 0.4, 3.0], device=y.device)
        ),
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )


def recall_of_the_rare(case: Case) -> float:
    """Behind a training: the share of the rare samples that are found."""
    torch.manual_seed(0)
    parts: Any = case
    model = parts.model()
    optimizer = parts.optimizer(model)
    for k in range(60):
        loss = parts.loss(model, parts.batch("train", k, 64), Progress(epoch=1, epochs=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = parts.batch("test", 0, 2000)
    chosen = model(x).argmax(1) if y.ndim == 1 else (model(x) > 0).float()
    rare = y != 1 if y.ndim == 1 else y == 1
    return float((chosen == y)[rare].float().mean())


@fault(
    cause="class-weights-upside-down",
    healthy=one_yes_in_seven,
    source=f"{DEEPCRIME}, TUD",
    proof=lambda: (
        recall_of_the_rare(one_yes_in_seven())
        > recall_of_the_rare(weight_of_yes_is_yes_over_no()) + 0.1
    ),
)
def weight_of_yes_is_yes_over_no() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        weight = torch.tensor(1 / 6.0)
        # planted: weight_of_yes_is_yes_over_no
        return F.binary_cross_entropy_with_logits(model(x), y, pos_weight=weight)

    return replace(one_yes_in_seven(), loss=loss)


@fault(
    cause="class-weights-upside-down",
    healthy=rare_classes_weigh_more,
    source=SLIPS,
    proof=lambda: (
        recall_of_the_rare(rare_classes_weigh_more())
        > recall_of_the_rare(classes_weigh_as_often_as_they_are()) + 0.1
    ),
)
def classes_weigh_as_often_as_they_are() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.12, 0.76, 0.12], device=y.device))
        value: Tensor = criterion(model(x), y)  # planted: classes_weigh_as_often_as_they_are
        return value

    return replace(rare_classes_weigh_more(), loss=loss)


def multiplied_rows(*, before_the_split: bool) -> Case:
    """A table whose rare rows stand in it three times."""
    x, y = rarely("train", 0, 800)

    def with_more(x: Tensor, y: Tensor) -> Pair:
        more = (y[:, 0] == 1).nonzero()[:, 0].repeat(2)
        return torch.cat([x, x[more]]), torch.cat([y, y[more]])

    order = torch.randperm(800, generator=torch.Generator().manual_seed(0))
    held = order[:200]
    kept = order[200:]
    if before_the_split:
        x, y = with_more(x, y)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        held, kept = order[: len(x) // 4], order[len(x) // 4 :]
    train = (x[kept], y[kept]) if before_the_split else with_more(x[kept], y[kept])
    model = seeded(lambda: mlp(8, 32, 1))
    loaded: Any = DataLoader(TensorDataset(*train), 32, shuffle=True)
    held_out: Any = DataLoader(
        TensorDataset(x[held], y[held]), 64
    )  # planted: rows_are_multiplied_before_the_split
    return Case.from_xy(
        model,
        loaded,
        F.binary_cross_entropy_with_logits,
        torch.optim.Adam(model.parameters(), lr=1e-2),
        validation=held_out,
        name="rare_rows_three_times",
    )


@healthy
def rare_rows_three_times() -> Case:
    """Multiplied behind the split: in the training set alone."""
    return multiplied_rows(before_the_split=False)


def overlap() -> float:
    """Share of the validation samples that stand in the training set as well."""
    case: Any = rows_are_multiplied_before_the_split()
    train, held = (case.batch(split, 0, 2000)[0].tolist() for split in ("train", "validation"))
    known = set(map(tuple, train))
    return sum(tuple(row) in known for row in held) / len(held)


@fault(
    cause="splits-overlap",
    place=("here", "validation"),
    healthy=rare_rows_three_times,
    source=TAXONOMY,
    proof=lambda: overlap() > 0.1,
)
def rows_are_multiplied_before_the_split() -> Case:
    return multiplied_rows(before_the_split=True)


# ---- scripts


def script_of_sensors(scale: float) -> Case:
    def main() -> None:
        torch.manual_seed(0)
        x, y = regression("train", 0, 128)
        loader: Any = DataLoader(TensorDataset(x * scale, y), 16, shuffle=True)
        model = mlp(8, 32, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(10):
            for some, label in loader:
                output = model(some)  # planted: script_divides_its_inputs_again
                loss: Any = F.mse_loss(output, label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return Case(name="script_of_sensors", main=main)


@healthy
def script_of_numbers() -> Case:
    return replace(script_of_sensors(1.0), name="script_of_numbers")


@fault(
    cause="input-scale-off",
    healthy=script_of_numbers,
    source=TAXONOMY,
    within=(script_of_sensors,),
    proof=lambda: float(regression("train", 0, 128)[0].std() / 1000) < 0.002,
)
def script_divides_its_inputs_again() -> Case:
    return script_of_sensors(1 / 1000)


def script_of_symbols(ahead: int, *, both_ways: bool = False) -> Case:
    """A recurrent network that says the symbol so many steps ahead."""

    def main() -> None:
        torch.manual_seed(0)
        text = tokens("train", 0, 64)
        embedding = nn.Embedding(16, 24)
        network = Symbols(embedding, both_ways=both_ways)
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        for _ in range(10):
            for some in torch.split(text, 16):
                length = some.shape[1] - 1
                # planted: script_asks_for_its_input
                given, label = some[:, :length], some[:, ahead : ahead + length]
                loss: Any = F.cross_entropy(network(given).flatten(0, 1), label.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return Case(name="script_of_symbols", main=main)


class Symbols(nn.Module):
    def __init__(self, embedding: nn.Embedding, *, both_ways: bool) -> None:
        super().__init__()
        self.embedding = embedding
        self.states = nn.GRU(24, 32, batch_first=True, bidirectional=both_ways)
        self.head = nn.Linear(64 if both_ways else 32, 16)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.states(self.embedding(x))
        symbols: Tensor = self.head(states)
        return symbols


@healthy
def script_of_the_next_symbol() -> Case:
    return replace(script_of_symbols(1), name="script_of_the_next_symbol")


@healthy
def script_that_repeats_its_input() -> Case:
    """An autoencoder of symbols sees all of them."""
    case = script_of_symbols(0, both_ways=True)
    return replace(case, name="script_that_repeats_its_input")


@fault(
    cause="labels-shifted",
    healthy=script_of_the_next_symbol,
    source=SLIPS,
    within=(script_of_symbols,),
    proof=lambda: not torch.equal(tokens("train", 0, 64)[:, :-1], tokens("train", 0, 64)[:, 1:]),
)
def script_asks_for_its_input() -> Case:
    return script_of_symbols(0)


# ---- vocabularies


def sentences(split: str, seed: int, size: int) -> Pair:
    """Sentences [B, 10] of words of which the first are frequent, and whether a rare one leads."""
    source = generator(split, seed)
    words = (20 * torch.rand(size, 10, generator=source).square()).long()
    return words, (words > 6).long()


class EachWord(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.states = nn.GRU(16, 16, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.states(self.embedding(x))
        kinds: Tensor = self.head(states)
        return kinds


@healthy
def words_and_their_kinds() -> Case:
    return supervised(
        "words_and_their_kinds",
        EachWord,
        sentences,
        lambda kinds, y: F.cross_entropy(kinds.flatten(0, 1), y.flatten()),
        optimizer=adam(1e-2),
    )


@fault(
    cause="splits-differ",
    place=("here", "validation"),
    healthy=words_and_their_kinds,
    source=OVERFLOW,
)
def each_split_numbers_its_words() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        words, kinds = sentences(split, seed, size)
        order = torch.randperm(20, generator=generator(split, 0))
        return order[words], kinds  # planted: each_split_numbers_its_words

    return replace(words_and_their_kinds(), batch=data, loader=loader_of(data))


@fault(
    cause="labels-shifted",
    healthy=words_and_their_kinds,
    source=SLIPS,
    proof=lambda: (
        not torch.equal(sentences("train", 0, 64)[1], sentences("train", 0, 64)[1].roll(-1, 1))
    ),
)
def kinds_of_the_next_word() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        words, kinds = sentences(split, seed, size)
        return words, torch.cat([kinds[:, 1:], kinds[:, :1]], 1)  # planted: kinds_of_the_next_word

    return replace(words_and_their_kinds(), batch=data, loader=loader_of(data))


class FromThePast(EachWord):
    def __init__(self) -> None:
        super().__init__()
        self.states = nn.GRU(16, 32, batch_first=True)


@healthy
def kind_of_the_word_to_come() -> Case:
    """Words that follow from the one before, and the kind of the next: a forecast."""

    def data(split: str, seed: int, size: int) -> Pair:
        words = tokens(split, seed, size)
        return words[:, :-1], (words[:, 1:] > 7).long()

    return supervised(
        "kind_of_the_word_to_come",
        FromThePast,
        data,
        lambda kinds, y: F.cross_entropy(kinds.flatten(0, 1), y.flatten()),
        optimizer=adam(1e-2),
    )
