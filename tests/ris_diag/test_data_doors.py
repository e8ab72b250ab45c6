"""Faults of data come in by every door: a script's own loaders, a loss and an optimiser, a loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import ris_diag
from ris_diag import Case, Declared, Epoch, Plan
from tests.faults.zoo_parts import adam, classes, generator, images, mlp, regression, tokens

Pair = tuple[Tensor, Tensor]
FAMILIES = ("guard", "data", "litmus")


class Kept(Dataset[Pair]):
    """Pairs behind a data set of one's own."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Pair:
        return self.x[index], self.y[index]


class Again:
    """Takes the first batch anew, eight times."""

    def __init__(self, data: Kept) -> None:
        self.batches = DataLoader(data, 16)

    def __iter__(self) -> Iterator[Any]:
        return (next(iter(self.batches)) for _ in range(8))

    def __len__(self) -> int:
        return 8


@dataclass
class Job:
    """What a training is made of, whatever the door."""

    train: Pair
    validation: Pair
    model: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    serve: Callable[[Kept], Any] = lambda data: DataLoader(data, 16, shuffle=True)
    declared: Declared | None = None

    def by_script(self) -> Case:
        model = self.model()
        return Case.from_xy(
            model,
            self.serve(Kept(*self.train)),
            self.loss,
            torch.optim.Adam(model.parameters(), lr=2e-3),
            validation=DataLoader(Kept(*self.validation), 32),
            declared=self.declared,
        )

    def parts(self) -> dict[str, Any]:
        stored = {"train": self.train, "validation": self.validation}

        def batch(split: str, seed: int, size: int) -> Pair:
            x, y = stored[split]
            index = torch.randperm(len(x), generator=generator(split, seed))[:size]
            return x[index], y[index]

        return {
            "name": "door",
            "model": self.model,
            "batch": batch,
            "loss": lambda model, pair, progress: self.loss(model(pair[0]), pair[1]),
            "loader": lambda split, seed: self.serve(Kept(*stored[split])),
            "declared": self.declared,
        }

    def by_loss(self) -> Case:
        return Case(**self.parts(), optimizer=adam(2e-3))

    def by_loop(self) -> Case:
        def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
            optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
            history = []
            for epoch in range(1, plan.epochs + 1):
                losses = []
                for x, y in plan.train:
                    loss = self.loss(model(x), y)
                    plan.on_step(epoch, loss)
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                    optimizer.step()
                    losses.append(loss.item())
                history.append(Epoch(train=fmean(losses)))
            return history

        return Case(**self.parts(), fit=fit)


DOORS = {"script": Job.by_script, "loss": Job.by_loss, "loop": Job.by_loop}
FAULTS: dict[str, tuple[Callable[[], Job], str]] = {}
HEALTHY: dict[str, Callable[[], Job]] = {}


def named(slug: str) -> Callable[[Callable[[], Job]], Callable[[], Job]]:
    def register(job: Callable[[], Job]) -> Callable[[], Job]:
        FAULTS[job.__name__] = job, slug
        return job

    return register


def sound(job: Callable[[], Job]) -> Callable[[], Job]:
    HEALTHY[job.__name__] = job
    return job


@sound
def numbers() -> Job:
    train, validation = regression("train", 0, 400), regression("validation", 0, 200)
    return Job(train, validation, lambda: mlp(8, 32, 1), F.mse_loss)


@sound
def four() -> Job:
    train, validation = classes("train", 0, 400), classes("validation", 0, 200)
    declared = Declared(batch_size=16)
    return Job(train, validation, lambda: mlp(8, 32, 4), F.cross_entropy, declared=declared)


@sound
def pictures() -> Job:
    pairs = [images(split, 0, count) for split, count in (("train", 300), ("validation", 150))]
    train, validation = ((((x + 3) / 6).clamp(0, 1), y) for x, y in pairs)

    def model() -> nn.Module:
        return nn.Sequential(nn.Flatten(), mlp(64, 32, 3))

    return Job(train, validation, model, F.cross_entropy)


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(16, 24), nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.recurrent(self.embedding(x))[0])
        return logits


def each_token(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def next_token(logits: Tensor, labels: Tensor) -> Tensor:
    return each_token(logits[:, :-1], labels[:, 1:])


def text(cut: Callable[[Tensor], Pair], loss: Callable[[Any, Any], Tensor]) -> Job:
    return Job(cut(tokens("train", 0, 300)), cut(tokens("validation", 0, 150)), Causal, loss)


@sound
def shifted_by_the_loss() -> Job:
    return text(lambda row: (row, row.clone()), next_token)


@sound
def shifted_by_the_data() -> Job:
    return text(lambda row: (row[:, :-1], row[:, 1:]), each_token)


@named("labels-of-other-samples")
def labels_permuted_once_in_training() -> Job:
    job = four()
    x, y = job.train
    job.train = x, y[torch.randperm(len(y), generator=generator("permuted", 0))]
    return job


@named("nan-in-data")
def one_sample_of_two_hundred_is_nan() -> Job:
    job = numbers()
    job.train = job.train[0][:200].clone(), job.train[1][:200]
    job.train[0][137, 4] = torch.nan
    return job


@named("input-scale-off")
def divided_by_255_twice() -> Job:
    job = pictures()
    job.train, job.validation = ((x / 255, y) for x, y in (job.train, job.validation))
    return job


@named("input-scale-off")
def raw_units() -> Job:
    job = numbers()
    job.train, job.validation = ((1e4 * x + 2e4, y) for x, y in (job.train, job.validation))
    return job


@named("labels-truncated")
def clamped_at_a_quantile() -> Job:
    job = numbers()
    most = float(job.train[1].quantile(0.7))
    job.train, job.validation = ((x, y.clamp(max=most)) for x, y in (job.train, job.validation))
    return job


@named("label-in-input")
def class_among_the_features() -> Job:
    """Seventeen in all: as many as a probe has samples."""
    job = four()
    job.model = lambda: mlp(17, 32, 4)
    job.train, job.validation = (
        (torch.cat([x, x[:, :5].cos(), F.one_hot(y, 4)], 1), y)
        for x, y in (job.train, job.validation)
    )
    return job


@named("same-batch-served")
def first_batch_again_and_again() -> Job:
    job = four()
    job.serve = Again
    return job


@named("splits-differ")
def training_alone_is_standardised() -> Job:
    job = numbers()
    job.validation = job.validation[0] * 20 + 50, job.validation[1]
    return job


@named("labels-shifted")
def not_shifted_at_all() -> Job:
    return text(lambda row: (row, row.clone()), each_token)


@named("labels-shifted")
def shifted_twice() -> Job:
    return text(lambda row: (row[:, :-1], row[:, 1:]), next_token)


@named("batch-size-not-as-declared")
def batches_of_another_size() -> Job:
    job = four()
    job.declared = Declared(batch_size=32)
    return job


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_whatever_the_door(name: str, door: str) -> None:
    job, slug = FAULTS[name]
    diagnosis = ris_diag.run(DOORS[door](job()), select=FAMILIES).diagnosis
    assert [found.cause.slug for found in diagnosis.named] == [slug]
    place = diagnosis.named[0].place
    assert "test_data_doors.py:" in place
    if door == "script" and slug != "labels-shifted":
        assert place.startswith(("the train loader of", "the validation loader of"))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", HEALTHY)
def test_without_a_fault_nothing_is_said(name: str, door: str) -> None:
    report = ris_diag.run(DOORS[door](HEALTHY[name]()), select=FAMILIES)
    assert [r.message() for r in report.results if r.status in ("fail", "error")] == []
