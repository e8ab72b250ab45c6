"""Trainings as scripts have them: lent by `Case.from_xy`, or a `main` that trains."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ris_diag import Case, Declared
from tests.faults.zoo_parts import (
    Data,
    LastState,
    classes,
    conv_net,
    healthy,
    images,
    mlp,
    regression,
    sequences,
)

Loader = DataLoader[tuple[Tensor, ...]]


def shuffled(data: Data, *, samples: int = 64, size: int = 16) -> Loader:
    return DataLoader(TensorDataset(*data("train", 0, samples)), batch_size=size, shuffle=True)


def _seeded(model: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return model()


@healthy
def lent_regression() -> Case:
    model = _seeded(lambda: mlp(8, 32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return Case.from_xy(model, shuffled(regression), F.mse_loss, optimizer, name="lent_regression")


@healthy
def lent_conv_net() -> Case:
    model = _seeded(conv_net)
    return Case.from_xy(
        model,
        shuffled(images),
        nn.CrossEntropyLoss(),
        torch.optim.AdamW(model.parameters(), lr=2e-3),
        name="lent_conv_net",
    )


@healthy
def lent_recurrent() -> Case:
    model = _seeded(lambda: LastState(nn.GRU))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return Case.from_xy(model, shuffled(sequences), nn.MSELoss(), optimizer, name="lent_recurrent")


@healthy
def lent_batches_of_one() -> Case:
    model = _seeded(lambda: mlp(8, 32, 1))
    return Case.from_xy(
        model,
        shuffled(regression, samples=40, size=1),
        F.mse_loss,
        torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9),
        name="lent_batches_of_one",
    )


@healthy
def lent_list_of_two_samples() -> Case:
    model = _seeded(lambda: nn.Linear(8, 1))
    x, y = regression("train", 0, 2)
    batches = [(x[:1], y[:1]), (x[1:], y[1:])]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return Case.from_xy(model, batches, F.mse_loss, optimizer, name="lent_list_of_two_samples")


@healthy
def lent_in_fixed_order() -> Case:
    """No shuffling: the loader begins with the same samples every time."""
    model = _seeded(lambda: mlp(8, 32, 1))
    pairs = TensorDataset(*regression("train", 0, 64))
    loader: Loader = DataLoader(pairs, batch_size=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return Case.from_xy(model, loader, F.mse_loss, optimizer, name="lent_in_fixed_order")


@healthy
def lent_in_the_middle() -> Case:
    """A training that goes on: the optimiser has its moments, the loader a state of its own."""
    model = _seeded(lambda: mlp(8, 32, 1))
    loader: Loader = DataLoader(
        TensorDataset(*regression("train", 0, 64)),
        batch_size=16,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    _train(model, loader, optimizer, nn.MSELoss(), 3)
    return Case.from_xy(model, loader, F.mse_loss, optimizer, name="lent_in_the_middle")


@healthy
def lent_with_frozen_layers() -> Case:
    model = _seeded(lambda: mlp(8, 64, 4))
    model.get_submodule("0").requires_grad_(False)
    return Case.from_xy(
        model,
        shuffled(classes),
        F.cross_entropy,
        torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3),
        name="lent_with_frozen_layers",
        declared=Declared(frozen=("0.*",)),
    )


def _train(
    model: nn.Module,
    loader: Loader,
    optimizer: torch.optim.Optimizer,
    criterion: Callable[[Any, Any], Any],
    epochs: int,
) -> None:
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()


@healthy
def script() -> Case:
    def main() -> None:
        torch.manual_seed(0)
        model = mlp(8, 32, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        _train(model, shuffled(regression), optimizer, nn.MSELoss(), 20)

    return Case(name="script", main=main)


@healthy
def script_with_validation() -> Case:
    def main() -> float:
        torch.manual_seed(0)
        model = conv_net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        held_out = DataLoader(TensorDataset(*images("validation", 0, 32)), batch_size=16)
        best = float("inf")
        for _ in range(15):
            _train(model, shuffled(images), optimizer, nn.CrossEntropyLoss(), 1)
            model.eval()
            with torch.no_grad():
                values = [F.cross_entropy(model(x), y).item() for x, y in held_out]
            best = min(best, sum(values) / len(values))
        return best

    return Case(name="script_with_validation", main=main)


class Trainer:
    """A trainer object of its own, with a scheduler and clipping."""

    def __init__(self, rate: float) -> None:
        self.model = LastState(nn.LSTM)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda number: min(1.0, (number + 1) / 5)
        )
        self.criterion = nn.MSELoss()

    def train(self, loader: Loader, epochs: int) -> None:
        for _ in range(epochs):
            for x, y in loader:
                loss = self.criterion(self.model(x), y)
                loss.backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.scheduler.step()
                self.optimizer.zero_grad()


@healthy
def script_with_a_trainer() -> Case:
    return Case(
        name="script_with_a_trainer",
        main=lambda: Trainer(1e-2).train(shuffled(sequences), epochs=20),
    )


@healthy
def script_with_accumulation() -> Case:
    def main() -> None:
        model = nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        criterion: Any = nn.CrossEntropyLoss()
        for _ in range(20):
            for number, (x, y) in enumerate(shuffled(classes), start=1):
                (criterion(model(x), y) / 2).backward()
                if number % 2 == 0:
                    optimizer.step()
                    optimizer.zero_grad()

    return Case(name="script_with_accumulation", main=main, declared=Declared(accumulation=2))


@healthy
def script_with_two_networks() -> Case:
    def main() -> None:
        encoder, decoder = mlp(8, 32, 3), mlp(3, 32, 8)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
        criterion: Any = nn.MSELoss()
        for _ in range(20):
            for x, _ in shuffled(regression):
                loss = criterion(decoder(encoder(x)), x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return Case(name="script_with_two_networks", main=main)


@healthy
def script_of_two_adversaries() -> Case:
    def main() -> None:
        generator, judge = mlp(4, 16, 8), mlp(8, 16, 1)
        for_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
        for_judge = torch.optim.Adam(judge.parameters(), lr=1e-3, betas=(0.5, 0.999))
        criterion: Any = nn.BCEWithLogitsLoss()
        for _ in range(20):
            for real, _ in shuffled(classes):
                fake = generator(torch.randn(len(real), 4))
                yes, no = torch.ones(len(real), 1), torch.zeros(len(real), 1)
                judge.zero_grad()
                (criterion(judge(real), yes) + criterion(judge(fake.detach()), no)).backward()
                for_judge.step()
                generator.zero_grad()
                criterion(judge(fake), yes).backward()
                for_generator.step()

    return Case(name="script_of_two_adversaries", main=main)


@healthy
def script_that_fine_tunes() -> Case:
    """A first look at the validation loss, then training of the last layer alone."""

    def main() -> None:
        torch.manual_seed(1)
        model = conv_net()
        for parameter in model.parameters():
            parameter.requires_grad = False
        head = model.get_submodule("8").requires_grad_(True)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.05)
        held_out = images("validation", 0, 32)
        for _ in range(10):
            model.eval()
            with torch.no_grad():
                F.cross_entropy(model(held_out[0]), held_out[1])
            _train(model, shuffled(images), optimizer, nn.CrossEntropyLoss(), 1)

    frozen = ("0.*", "1.*", "3.*", "4.*")
    return Case(name="script_that_fine_tunes", main=main, declared=Declared(frozen=frozen))
