"""Faults in data: values, labels, splits and loaders, planted in small healthy trainings."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ris_diag import Case, Declared, Progress
from tests.faults import registry
from tests.faults.registry import DEEPCRIME, TAXONOMY
from tests.faults.zoo_loops import seeded
from tests.faults.zoo_parts import (
    LanguageModel,
    adam,
    classes,
    conv_net,
    generator,
    images,
    mlp,
    regression,
    supervised,
    tokens,
)

Pair = tuple[Tensor, Tensor]
Data = Callable[[str, int, int], Any]
fault = partial(registry.fault, source=TAXONOMY)


def regressor(data: Data = regression, inputs: int = 8, outputs: int = 1, **parts: Any) -> Case:
    def model() -> nn.Module:
        return mlp(inputs, 32, outputs)

    return supervised("regressor", model, data, F.mse_loss, optimizer=adam(1e-2), **parts)


def classifier(data: Data = classes, inputs: int = 8, **parts: Any) -> Case:
    def model() -> nn.Module:
        return mlp(inputs, 32, 4)

    return supervised("classifier", model, data, F.cross_entropy, optimizer=adam(1e-2), **parts)


def of_pictures(data: Data = images, **parts: Any) -> Case:
    return supervised("pictures", conv_net, data, F.cross_entropy, optimizer=adam(2e-3), **parts)


def lent(train: Any, validation: Any = None) -> Case:
    model = seeded(lambda: mlp(8, 32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return Case.from_xy(model, train, F.cross_entropy, optimizer, validation=validation)


def fixed_set(split: str, samples: int = 96) -> TensorDataset:
    return TensorDataset(*classes(split, 0, samples))


def lent_apart() -> Case:
    return lent(
        DataLoader(fixed_set("train"), batch_size=16, shuffle=True),
        DataLoader(fixed_set("validation"), batch_size=16),
    )


# ---- values


@fault("D001", says="(sample 3, entry 5)", cause="nan-in-data", healthy=regressor)
def sensor_that_drops_out() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        x[3::100, 5] = float("nan")  # planted: sensor_that_drops_out
        return x, y

    return regressor(data)


@fault("D001", says="infinity in validation batch[1]", cause="nan-in-data", healthy=regressor)
def logarithm_of_the_smallest_label() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        if split == "validation":
            y = (y - y.min()).log()  # planted: logarithm_of_the_smallest_label
        return x, y

    return regressor(data)


@fault("D002", says="is the same (batch[0])", cause="input-constant", healthy=of_pictures)
def pictures_never_filled() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = images(split, seed, size)
        return torch.zeros_like(x), label  # planted: pictures_never_filled

    return of_pictures(data)


@fault("D002", says="is the same (batch['x'])", cause="input-constant", healthy=regressor)
def one_index_for_all() -> Case:
    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        x, y = regression(split, seed, size)
        index = torch.zeros(size, dtype=torch.long)  # planted: one_index_for_all
        return {"x": x[index], "y": y}

    return of_dicts(data)


def of_dicts(data: Callable[[str, int, int], dict[str, Tensor]]) -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        return F.mse_loss(model(batch["x"]), batch["y"])

    return Case(
        name="dicts", model=lambda: mlp(8, 32, 1), batch=data, loss=loss, optimizer=adam(1e-2)
    )


@fault("D003", says="has a root mean square of", cause="input-scale-off", healthy=of_pictures)
def raw_bytes() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = images(split, seed, size)
        return (127 + 60 * x).clamp(0, 255).round(), label  # planted: raw_bytes

    return of_pictures(data)


@fault("D003", says="from sample to sample at most", cause="input-scale-off", healthy=of_pictures)
def divided_by_255_twice() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = images(split, seed, size)
        return (0.5 + x / 4).clamp(0, 1) / 255, label  # planted: divided_by_255_twice

    return of_pictures(data)


@fault("D003", says="number 2 varies most, number 6 least", cause="input-scale-off",
       healthy=regressor)  # fmt: skip
def features_by_decades() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        units = torch.tensor([1.0, 1, 20, 1, 1, 1, 1e-4, 1])
        return x * units, y  # planted: features_by_decades

    return regressor(data)


@fault("D003", says="has a root mean square of", cause="input-scale-off", healthy=regressor)
def never_normalised() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return 1e4 * x + 3e4, y  # planted: never_normalised

    return regressor(data)


# ---- labels


@fault("D004", says="all 401 train labels are the same", cause="labels-constant",
       healthy=classifier)  # fmt: skip
def default_label() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = classes(split, seed, size)
        return x, torch.zeros_like(label)  # planted: default_label

    return classifier(data)


@fault("D004", says="all labels of a batch are the same", cause="labels-constant",
       healthy=regressor)  # fmt: skip
def target_overwritten_in_training() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        if split == "train":
            y = y[:1].expand_as(y)  # planted: target_overwritten_in_training
        return x, y

    return regressor(data)


@fault("D004", says="is of class 3", cause="classes-imbalanced", healthy=classifier,
       source=f"{DEEPCRIME}, operator TRD")  # fmt: skip
def class_filtered_away() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = classes(split, seed, 4 * size)
        if split == "train":
            x, label = x[label < 3], label[label < 3]  # planted: class_filtered_away
        return x[:size], label[:size]

    return classifier(data)


@fault("D004", says="of the train labels are of class 0", cause="classes-imbalanced",
       healthy=classifier, source=f"{DEEPCRIME}, operator TUD")  # fmt: skip
def others_thinned_out() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = classes(split, seed, 8 * size)
        if split == "train":
            kept = (label == 0) | (torch.arange(len(label)) % 256 == 0)
            x, label = x[kept], label[kept]  # planted: others_thinned_out
        return x[:size], label[:size]

    return classifier(data)


@fault("D005", says="are exactly 1, the largest value", cause="labels-truncated",
       healthy=regressor)  # fmt: skip
def clamped_targets() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, y.clamp(max=1.0)  # planted: clamped_targets

    return regressor(data)


@fault("D005", says="all are whole numbers, unlike those of validation",
       cause="labels-truncated", healthy=regressor)  # fmt: skip
def integer_targets() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        if split == "train":
            y = y.long().float()  # planted: integer_targets
        return x, y

    return regressor(data)


# ---- labels and inputs


@fault("D006", says="but in as many validation samples they do", cause="labels-of-other-samples",
       healthy=classifier, source=f"{DEEPCRIME}, operator TCL")  # fmt: skip
def shuffled_apart_in_training() -> Case:
    stored = {split: classes(split, 0, 512) for split in ("train", "validation", "test")}
    mixed = torch.randperm(512, generator=generator("mixed", 0))
    x, label = stored["train"]
    stored["train"] = x, label[mixed]  # planted: shuffled_apart_in_training

    def data(split: str, seed: int, size: int) -> Pair:
        index = torch.randperm(512, generator=generator(split, seed))[:size]
        return stored[split][0][index], stored[split][1][index]

    return replace(classifier(data), batch=data)


@fault("D006", says="labels are mixed within their batch", cause="labels-of-other-samples",
       healthy=regressor)  # fmt: skip
def mixed_within_a_batch() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        order = torch.randperm(size, generator=generator("order", seed))
        return x, y[order]  # planted: mixed_within_a_batch

    return regressor(data)


@fault("D006", says="but they go with the label 1 row above", cause="labels-of-other-samples",
       healthy=classifier)  # fmt: skip
def labels_of_the_next_sample() -> Case:
    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        x, y = regression(split, seed, size)
        return {"x": x, "y": y.roll(-1, 0)}  # planted: labels_of_the_next_sample

    return of_dicts(data)


@fault("D007", says="feature 8 of 9 is the label, up to scale and shift", cause="label-in-input",
       healthy=regressor)  # fmt: skip
def target_among_the_features() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return torch.cat([x, 0.1 * y + 2], 1), y  # planted: target_among_the_features

    return regressor(data, inputs=9)


@fault("D007", says="feature 8, 9, 10 and 1 more of 12", cause="label-in-input",
       healthy=classifier)  # fmt: skip
def class_among_the_features() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = classes(split, seed, size)
        x = torch.cat([x, F.one_hot(label, 4)], 1)  # planted: class_among_the_features
        return x, label

    return classifier(data, inputs=12)


@fault("D007", says="the next has", cause="label-in-input", healthy=regressor)
def target_with_noise_among_the_features() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        x[:, 2:3] = y + 1e-2 * x[:, 2:3]  # planted: target_with_noise_among_the_features
        return x, y

    return regressor(data)


# ---- splits


@fault("D008", says="validation samples stand in train, too", cause="splits-overlap",
       healthy=regressor)  # fmt: skip
def validation_inside_of_training() -> Case:
    everything = regression("all", 0, 512)
    parts = {
        "train": slice(0, 400),
        "validation": slice(300, 450),
        "test": slice(450, 512),
    }  # planted: validation_inside_of_training

    def data(split: str, seed: int, size: int) -> Pair:
        x, y = (t[parts[split]] for t in everything)
        index = torch.randperm(len(x), generator=generator(split, seed))[:size]
        return x[index], y[index]

    return regressor(data)


@fault("D008", says="samples stand in train, too (100%", cause="splits-overlap",
       place="the validation loader", healthy=lent_apart)  # fmt: skip
def validates_on_the_training_set() -> Case:
    loader = DataLoader(fixed_set("train"), batch_size=16, shuffle=True)
    return lent(loader, loader)  # planted: validates_on_the_training_set


@fault("D009", says="in spread", cause="splits-differ", healthy=of_pictures)
def normalised_in_training_alone() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, label = images(split, seed, size)
        if split != "train":
            x = 20 * x + 40  # planted: normalised_in_training_alone
        return x, label

    return of_pictures(data)


@fault("D009", says="standard deviations in location", cause="splits-differ", healthy=regressor)
def centred_in_training_alone() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        if split == "train":
            x = x - 2  # planted: centred_in_training_alone
        return x, y

    return regressor(data)


# ---- loaders


def stored_loader(split: str, seed: int) -> list[Pair]:
    return list(DataLoader(fixed_set(split), batch_size=16, shuffle=True))


def from_a_store() -> Case:
    return classifier(loader=stored_loader, declared=Declared(batch_size=16))


@fault("D006", says="loader batch[1] don't depend", cause="labels-of-other-samples",
       healthy=from_a_store)  # fmt: skip
def loader_that_shuffles_twice() -> Case:
    def loader(split: str, seed: int) -> list[Pair]:
        x, label = classes(split, 0, 512)
        one, other = (torch.randperm(512, generator=generator(n, seed)) for n in ("x", "label"))
        pairs = TensorDataset(x[one], label[other])  # planted: loader_that_shuffles_twice
        return list(DataLoader(pairs, batch_size=16))

    return replace(from_a_store(), loader=loader)


@fault("D003", says="from sample to sample at most", cause="input-scale-off", healthy=of_pictures)
def divided_again_by_the_loss() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, label = batch
        return F.cross_entropy(model(x / 255), label)  # planted: divided_again_by_the_loss

    return of_pictures(
        lambda s, seed, n: (images(s, seed, n)[0] / 4, images(s, seed, n)[1]), loss=loss
    )


@fault("D010", says="6 batches hold the same 16 samples", cause="same-batch-served",
       healthy=from_a_store)  # fmt: skip
def iterator_that_starts_anew() -> Case:
    def loader(split: str, seed: int) -> list[Pair]:
        batches = DataLoader(fixed_set(split), batch_size=16)
        return [next(iter(batches)) for _ in range(6)]  # planted: iterator_that_starts_anew

    return classifier(loader=loader)


@fault("D010", says="batches hold the same 7 samples", cause="same-batch-served",
       healthy=regressor)  # fmt: skip
def seed_that_is_ignored() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        return regression(split, 0, size)  # planted: seed_that_is_ignored

    return replace(regressor(data), loader=None)


@fault("D010", says="batches is of one class", cause="batches-sorted", healthy=from_a_store)
def sorted_by_class() -> Case:
    def loader(split: str, seed: int) -> list[Pair]:
        x, label = fixed_set(split, 128).tensors
        order = label.argsort()
        pairs = TensorDataset(x[order], label[order])
        return list(DataLoader(pairs, batch_size=8))  # planted: sorted_by_class

    return classifier(loader=loader)


@fault("D010", says="batches is of one class", cause="batches-sorted",
       place="the train loader", healthy=lent_apart)  # fmt: skip
def large_set_sorted_by_class() -> Case:
    x, label = fixed_set("train", 4096).tensors
    order = label.argsort()
    pairs = TensorDataset(x[order], label[order])
    return lent(DataLoader(pairs, batch_size=16))  # planted: large_set_sorted_by_class


@fault("D010", says="have a twin in their batch", cause="samples-repeated",
       healthy=from_a_store, source=f"{DEEPCRIME}, operator TRD")  # fmt: skip
def concatenated_with_itself() -> Case:
    def loader(split: str, seed: int) -> list[Pair]:
        x, label = fixed_set(split).tensors
        twice = TensorDataset(
            x.repeat_interleave(4, 0), label.repeat_interleave(4, 0)
        )  # planted: concatenated_with_itself
        return list(DataLoader(twice, batch_size=16))

    return classifier(loader=loader)


@fault("D010", says="batches hold 8 samples, 16 are declared", cause="batch-size-not-as-declared",
       healthy=from_a_store, source=f"{DEEPCRIME}, operator HBS")  # fmt: skip
def half_the_batch() -> Case:
    def loader(split: str, seed: int) -> list[Pair]:
        return list(
            DataLoader(fixed_set(split), batch_size=8, shuffle=True)
        )  # planted: half_the_batch

    return replace(from_a_store(), loader=loader)


# ---- sequences


def language(slices: tuple[slice, slice] = (slice(None, -1), slice(1, None)), **parts: Any) -> Case:
    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        row = tokens(split, seed, size)
        given, wanted = slices
        return {"tokens": row[:, given], "labels": row[:, wanted]}

    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        logits = model(batch["tokens"])
        return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())

    case = Case(
        name="language",
        model=lambda: LanguageModel(tied=False),
        batch=data,
        loss=loss,
        optimizer=adam(3e-3),
        predict=lambda model, batch: model(batch["tokens"]),
        declared=Declared(shift=1),
    )
    return replace(case, **parts)


@fault("D011", says="label[t] is input[t+0] in 100% of the labels; declared is +1",
       cause="labels-shifted", healthy=language)  # fmt: skip
def copies_its_input() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        logits = model(batch["tokens"])
        return F.cross_entropy(
            logits.flatten(0, 1), batch["tokens"].flatten()
        )  # planted: copies_its_input

    return language(loss=loss)


@fault("D011", says="label[t] is input[t+2] in 100% of the labels; usual is +1",
       cause="labels-shifted", healthy=language)  # fmt: skip
def shifted_in_data_and_loss() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        logits, labels = model(batch["tokens"])[:, :-1], batch["labels"][:, 1:]
        return F.cross_entropy(
            logits.flatten(0, 1), labels.flatten()
        )  # planted: shifted_in_data_and_loss

    return language(loss=loss, declared=None)
