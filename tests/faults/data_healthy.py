"""Data that looks odd and is healthy: no check of the family `data` may complain."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

from ris_diag import Case, Declared, Progress
from tests.faults.data_faults import classifier, language, lent, lent_apart, regressor
from tests.faults.zoo_parts import (
    adam,
    classes,
    conv_net,
    fixed,
    generator,
    images,
    mlp,
    regression,
    supervised,
)

Pair = tuple[Tensor, Tensor]
ODD: dict[str, Callable[[], Case]] = {"lent_apart": lent_apart, "language": language}


def odd(factory: Callable[[], Case]) -> Callable[[], Case]:
    ODD[factory.__name__] = factory
    return factory


# ---- values and scales


@odd
def missing_labels_are_masked() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, y.masked_fill(
            torch.rand(y.shape, generator=generator(split, seed)) < 0.2, torch.nan
        )

    def loss(prediction: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(prediction[~y.isnan()], y[~y.isnan()])

    return supervised(
        "masked",
        lambda: mlp(8, 32, 1),
        data,
        loss,
        optimizer=adam(1e-2),
        exempt={"G017": "how many labels are missing depends on the batch"},
    )


@odd
def attention_mask_of_infinities() -> Case:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score, self.value = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            weight = (self.score(x)[..., 0] + mask).softmax(1)
            output: Tensor = (weight[..., None] * self.value(x)).sum(1)
            return output

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        source = generator(split, seed)
        x = torch.randn(size, 6, 3, generator=source)
        length = torch.randint(2, 7, (size, 1), generator=source)
        mask = torch.zeros(size, 6).masked_fill(torch.arange(6) >= length, -torch.inf)
        return {"x": x, "mask": mask, "y": x[:, 0] @ fixed(3, 1)}

    return Case(
        name="pooled",
        model=Pooled,
        batch=data,
        loss=lambda model, b, progress: F.mse_loss(model(b["x"], b["mask"]), b["y"]),
        optimizer=adam(1e-2),
    )


@odd
def raw_bytes_normalised_inside() -> Case:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = conv_net()

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.network(x.float() / 127.5 - 1)
            return output

    def data(split: str, seed: int, size: int) -> Pair:
        x, label = images(split, seed, size)
        return (127 + 60 * x).clamp(0, 255).to(torch.uint8), label

    return supervised("bytes", Inside, data, F.cross_entropy, optimizer=adam(2e-3))


@odd
def physical_units_in_front_of_batch_norm() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x * torch.logspace(-4, 4, 8) + 300, y

    return supervised(
        "units", lambda: nn.Sequential(nn.BatchNorm1d(8), mlp(8, 32, 1)), data, F.mse_loss,
        optimizer=adam(1e-2),
    )  # fmt: skip


@odd
def one_hot_of_many() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        index = torch.randint(2000, (size,), generator=generator(split, seed))
        return F.one_hot(index, 2000).float(), torch.sin(index[:, None].float())

    return regressor(data, inputs=2000)


@odd
def words_weighted_by_rarity() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        counts = torch.poisson(torch.full((size, 400), 0.05), generator=generator(split, seed))
        x = F.normalize(counts * torch.linspace(1, 8, 400), dim=1)
        return x, x @ fixed(400, 1)

    return regressor(data, inputs=400)


@odd
def histograms_that_sum_to_one() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.rand(size, 256, generator=generator(split, seed)).square()
        x = x / x.sum(1, keepdim=True)
        return x, 100 * x @ fixed(256, 1)

    return regressor(data, inputs=256)


@odd
def principal_components() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randn(size, 16, generator=generator(split, seed))
        return x * torch.logspace(1, -2, 16), x[:, :3] @ fixed(3, 1)

    return regressor(data, inputs=16)


@odd
def percentages_and_counts() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        source = generator(split, seed)
        percent = 100 * torch.rand(size, 4, generator=source)
        counts = torch.poisson(torch.full((size, 4), 3.0), generator=source)
        return torch.cat([percent, counts], 1), percent[:, :1] / 50 + counts[:, :1] / 3

    return regressor(data)


@odd
def steps_of_a_diffusion() -> Case:
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time, self.network = nn.Linear(8, 8), mlp(16, 32, 8)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            angle = t[:, None] / 1000 ** (torch.arange(4, device=t.device) / 4)
            time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
            output: Tensor = self.network(torch.cat([x, time], 1))
            return output

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        source = generator(split, seed)
        t = torch.randint(1000, (size,), generator=source).float()
        return {"x": torch.randn(size, 8, generator=source), "t": t}

    return Case(
        name="timed",
        model=Timed,
        batch=data,
        loss=lambda model, b, progress: F.mse_loss(model(b["x"], b["t"]), b["x"]),
        optimizer=adam(1e-2),
    )


@odd
def noise_beside_a_constant_prompt() -> Case:
    class Conditioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(12, 32, 8)

        def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
            output: Tensor = self.network(torch.cat([x, prompt], 1))
            return output

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        return {
            "x": torch.randn(size, 8, generator=generator(split, seed)),
            "prompt": torch.ones(size, 4),
        }

    return Case(
        name="conditioned",
        model=Conditioned,
        batch=data,
        loss=lambda model, b, progress: F.mse_loss(model(b["x"], b["prompt"]), b["x"]),
        optimizer=adam(1e-2),
    )


# ---- labels


def _targets(change: Callable[[Tensor], Tensor]) -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, change(y)

    return regressor(data)


@odd
def rain_that_is_often_zero() -> Case:
    return _targets(F.relu)


@odd
def standardised_rain() -> Case:
    return _targets(lambda y: (F.relu(y) - 0.6) / 1.2)


@odd
def ratings_in_whole_stars() -> Case:
    return _targets(lambda y: (y + 3).round().clamp(1, 5))


@odd
def clipped_rewards() -> Case:
    return _targets(lambda y: y.round().clamp(-1, 1))


@odd
def probabilities_that_saturate() -> Case:
    return _targets(lambda y: (y / 2 + 0.5).clamp(0, 1))


@odd
def heavy_tails() -> Case:
    return _targets(lambda y: y.sinh().sinh())


@odd
def one_positive_in_a_hundred() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, (y[:, 0] > 4).long()

    return classifier(data)


@odd
def tags_of_which_most_are_absent() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randn(size, 8, generator=generator(split, seed))
        return x, (x @ fixed(8, 20) > 5).float()

    def model() -> nn.Module:
        return mlp(8, 32, 20)

    return supervised("tags", model, data, F.binary_cross_entropy_with_logits, optimizer=adam(1e-2))


@odd
def mostly_background() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randn(size, 1, 8, 8, generator=generator(split, seed))
        return x, (x[:, 0] > 2.3).long()

    return supervised(
        "segments", lambda: nn.Conv2d(1, 2, 3, padding=1), data, F.cross_entropy,
        optimizer=adam(1e-2),
    )  # fmt: skip


@odd
def hundred_classes_few_samples() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        label = torch.randint(100, (size,), generator=generator(split, seed))
        return fixed(100, 8)[label], label

    return supervised(
        "many", lambda: mlp(8, 32, 100), data, F.cross_entropy, optimizer=adam(1e-2)
    )  # fmt: skip


@odd
def oversampled_in_training() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, 8 * size)
        label = (y[:, 0] > 2).long()
        if split == "train":
            order = (label * 2 - 1).argsort(descending=True, stable=True)
            kept = torch.cat([order[: size // 2], order[-(size - size // 2) :]])
            kept = kept[torch.randperm(size, generator=generator(split, seed))]
            return x[kept], label[kept]
        return x[:size], label[:size]

    return classifier(data)


# ---- inputs and labels


@odd
def labels_at_random() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, _ = classes(split, seed, size)
        return x, torch.randint(4, (size,), generator=generator("random", seed))

    return classifier(data)


@odd
def parity() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randint(2, (size, 8), generator=generator(split, seed)).float()
        return x, x.sum(1).long() % 2

    return classifier(data)


@odd
def weak_signal() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        source = generator(split, seed)
        x = torch.randn(size, 8, generator=source)
        return x, 0.2 * x[:, :1] + torch.randn(size, 1, generator=source)

    return regressor(data)


@odd
def batches_of_one_task_each() -> Case:
    """Inputs and labels of a batch share its task's offset, and nothing else."""

    def data(split: str, seed: int, size: int) -> Pair:
        source = generator(split, seed)
        offset = torch.randn(1, 1, generator=source)
        x = offset + torch.randn(size, 8, generator=source)
        return x, offset + 0.3 * torch.randn(size, 1, generator=source)

    return regressor(data)


@odd
def next_value_of_a_smooth_series() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        start = 100 * torch.rand(size, 1, generator=generator(split, seed))
        wave = torch.sin((start + torch.arange(9)) / 30)
        return wave[:, :8], wave[:, 8:]

    return regressor(data)


@odd
def next_state_of_a_system() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        state = torch.randn(size, 6, generator=generator(split, seed))
        control = torch.randn(size, 2, generator=generator(f"{split} control", seed))
        return torch.cat([state, control], 1), state + 0.001 * control.repeat(1, 3)

    return regressor(data, outputs=6)


@odd
def a_line_through_one_feature() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randn(size, 1, generator=generator(split, seed))
        return x, 2 * x + 1

    return regressor(data, inputs=1)


@odd
def denoising_autoencoder() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        clean = torch.randn(size, 3, generator=generator(split, seed)) @ fixed(3, 16)
        kept = torch.rand(clean.shape, generator=generator("kept", seed)) > 0.3
        return clean * kept, clean

    return regressor(data, inputs=16, outputs=16)


@odd
def decoder_that_is_fed_its_labels() -> Case:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.recurrent = nn.Linear(3, 16), nn.GRU(1, 16, batch_first=True)
            self.head = nn.Linear(16, 1)

        def forward(self, x: Tensor, before: Tensor) -> Tensor:
            states, _ = self.recurrent(before, self.encode(x)[None])
            output: Tensor = self.head(states)
            return output

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        x = torch.randn(size, 3, generator=generator(split, seed))
        y = torch.sin(x @ fixed(3, 1) + torch.arange(6) / 3)[..., None]
        return {"x": x, "before": F.pad(y[:, :-1], (0, 0, 1, 0)), "y": y}

    return Case(
        name="decoder",
        model=Decoder,
        batch=data,
        loss=lambda model, b, progress: F.mse_loss(model(b["x"], b["before"]), b["y"]),
        optimizer=adam(1e-2),
    )


# ---- splits


@odd
def nodes_masked_by_split() -> Case:
    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        x, label = classes("all", 0, 90)
        number = ("train", "validation", "test").index(split)
        return {"x": x, "y": label, "mask": torch.arange(90) % 3 == number}

    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        kept = batch["mask"]
        return F.cross_entropy(model(batch["x"])[kept], batch["y"][kept])

    return Case(
        name="nodes",
        model=lambda: mlp(8, 32, 4),
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
        exempt={"G017": "how many nodes a split has depends on the mask"},
    )


@odd
def exclusive_or() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randint(2, (size, 2), generator=generator(split, seed)).float()
        return x, (x[:, 0] != x[:, 1]).long()

    return classifier(data, inputs=2)


@odd
def short_sentences() -> Case:
    """Thirty sentences in all: they meet in every split."""

    def data(split: str, seed: int, size: int) -> Tensor:
        return (
            torch.randint(30, (size, 1), generator=generator(split, seed)) + torch.arange(8)
        ) % 30

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(30, 16), nn.Linear(16, 30)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.embedding(x))
            return output

    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    return Case(name="words", model=Words, batch=data, loss=loss, optimizer=adam(1e-2))


@odd
def augmented_in_training() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = images(split, seed, size)
        if split == "train":
            noise = torch.randn(x.shape, generator=generator("noise", seed))
            x = 0.7 * (x + 0.3 * noise).roll(seed % 3, 3)
        return x, label

    return supervised("augmented", conv_net, data, F.cross_entropy, optimizer=adam(2e-3))


@odd
def no_test_split() -> Case:
    seeds = {"train": 0, "validation": 10**6}

    def data(split: str, seed: int, size: int) -> Pair:
        return regression("any", seeds[split] + seed, size)

    return regressor(data)


@odd
def split_is_ignored() -> Case:
    return regressor(lambda split, seed, size: regression("any", seed, size))


# ---- loaders


@odd
def first_rows_of_a_fixed_set() -> Case:
    everything = {split: regression(split, 0, 500) for split in ("train", "validation", "test")}

    def data(split: str, seed: int, size: int) -> Pair:
        x, y = everything[split]
        return x[:size], y[:size]

    return replace(regressor(data), loader=None)


@odd
def drawn_from_twenty_samples() -> Case:
    everything = {split: regression(split, 0, 20) for split in ("train", "validation", "test")}

    def data(split: str, seed: int, size: int) -> Pair:
        index = torch.randint(20, (size,), generator=generator(split, seed))
        return everything[split][0][index], everything[split][1][index]

    return replace(regressor(data), loader=None)


@odd
def the_whole_set_in_every_batch() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        return regression(split, 0, 60)

    return regressor(data)


@odd
def endless_loader() -> Case:
    def loader(split: str, seed: int) -> Iterator[Pair]:
        while True:
            seed += 1
            yield classes(split, seed, 16)

    return classifier(loader=loader, declared=Declared(batch_size=16))


@odd
def balanced_by_a_sampler() -> Case:
    x, y = regression("train", 0, 512)
    label = (y[:, 0] > 2).long()
    weights = torch.where(label == 1, (label == 0).sum(), (label == 1).sum()).double()
    sampler = WeightedRandomSampler(weights.tolist(), 512)
    return lent(DataLoader(TensorDataset(x, label), batch_size=32, sampler=sampler))


@odd
def validation_in_the_order_of_its_classes() -> Case:
    x, label = classes("validation", 0, 1024)
    order = label.argsort()
    return lent(
        DataLoader(TensorDataset(*classes("train", 0, 1024)), batch_size=16, shuffle=True),
        DataLoader(TensorDataset(x[order], label[order]), batch_size=64),
    )


# ---- sequences


@odd
def tagging() -> Case:
    """A label for every token, which is another vocabulary."""

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        row = torch.randint(30, (size, 12), generator=generator(split, seed))
        return {"tokens": row, "tags": row % 4}

    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        logits: Any = model(batch["tokens"])
        return F.cross_entropy(logits.transpose(1, 2), batch["tags"])

    return Case(
        name="tagging",
        model=lambda: nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 4)),
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
    )


@odd
def echo_after_three_steps() -> Case:
    """The task of repeating what was three steps ago."""

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        row = torch.randint(8, (size, 12), generator=generator(split, seed))
        return {"tokens": row, "labels": F.pad(row[:, :-3], (3, 0), value=-100)}

    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.recurrent = nn.Embedding(8, 8), nn.GRU(8, 16, batch_first=True)
            self.head = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.recurrent(self.embedding(x))[0])
            return output

    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        logits: Any = model(batch["tokens"])
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    return Case(name="echo", model=Echo, batch=data, loss=loss, optimizer=adam(1e-2))


@odd
def masked_tokens() -> Case:
    """As BERT is trained: labels at the masked places alone."""

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        source = generator(split, seed)
        row = torch.randint(1, 30, (size, 12), generator=source)
        masked = torch.rand(row.shape, generator=source) < 0.2
        return {"tokens": row * ~masked, "labels": row.masked_fill(~masked, -100)}

    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        logits: Any = model(batch["tokens"])
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    return Case(
        name="masked",
        model=lambda: nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 30)),
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
    )


@odd
def residuals_of_an_equation() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        return torch.rand(size, 1, generator=generator(split, seed)), torch.zeros(size, 1)

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x = batch[0].clone().requires_grad_()
        u = model(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        start: Tensor = (model(x.new_zeros(1, 1)) - 1).square().mean()
        return F.mse_loss(slope + u, batch[1]) + start

    return Case(
        name="equation", model=lambda: mlp(1, 32, 1), batch=data, loss=loss, optimizer=adam(1e-2)
    )


@odd
def differences_of_goals() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        source = generator(split, seed)
        x = torch.randn(size, 8, generator=source)
        home, away = (x @ fixed(8, 2)).exp().clamp(max=6).T
        goals = torch.poisson(home, generator=source) - torch.poisson(away, generator=source)
        return x, goals[:, None]

    return regressor(data)


@odd
def agreement_on_a_scale() -> Case:
    """From -2 to 2, well foretold: five answers, the ends as good as the others."""

    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randn(size, 8, generator=generator(split, seed))
        return x, (2 * (x @ fixed(8, 1)) / fixed(8, 1).norm()).round().clamp(-2, 2)

    return regressor(data)
