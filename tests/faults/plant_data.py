"""Faults in the data."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ris_diag import Case
from tests.faults.registry import DEEPCRIME, OVERFLOW, RECIPE, SLIPS, TAXONOMY, fault
from tests.faults.zoo_grounds import (
    Pair,
    clicks,
    four_classes,
    measured,
    next_token,
    plain_regression,
    stripes,
    three_tags,
    two_sensors,
    yes_or_no,
)
from tests.faults.zoo_loops import lent_numbers, numbers, seeded
from tests.faults.zoo_parts import (
    Data,
    classes,
    generator,
    images,
    loader_of,
    mlp,
    regression,
    tokens,
)

TRAIN, TRUE = ("here", "train"), ("here", "truth", "y", "1")
INPUT = ("here", "input", "x", "0")


def served(ground: Callable[[], Case], data: Data) -> Case:
    return replace(ground(), batch=data, loader=loader_of(data))


# ---- inputs


@fault(cause="nan-in-data", place=INPUT, healthy=plain_regression, source=TAXONOMY)
def one_sample_in_a_hundred_is_nan() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        missing = torch.rand(size, generator=generator(split, seed + 1)) < 0.01
        missing[seed % size] = True
        x[missing, 3] = float("nan")  # planted: one_sample_in_a_hundred_is_nan
        return x, y

    return served(plain_regression, data)


@fault(cause="nan-in-data", place=TRUE, healthy=plain_regression, source=OVERFLOW)
def logarithm_of_a_label_below_zero() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, torch.log1p(y)  # planted: logarithm_of_a_label_below_zero

    return served(plain_regression, data)


@fault(cause="input-constant", place=INPUT, healthy=yes_or_no, source=RECIPE)
def every_input_is_the_first() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = clicks(split, seed, size)
        return x[:1].repeat(size, 1), y  # planted: every_input_is_the_first

    return served(yes_or_no, data)


@fault(cause="input-constant", place=INPUT, healthy=stripes, source=OVERFLOW)
def pixels_divided_as_whole_numbers() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = images(split, seed, size)
        pixels = ((x + 3) * 40).clamp(0, 254).byte()
        return (pixels // 255).float(), y  # planted: pixels_divided_as_whole_numbers

    return served(stripes, data)


@fault(cause="input-scale-off", place=INPUT, healthy=plain_regression, source=TAXONOMY)
def inputs_in_their_raw_units() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x * 1e4, y  # planted: inputs_in_their_raw_units

    return served(plain_regression, data)


@fault(cause="input-scale-off", place=INPUT, healthy=four_classes, source=TAXONOMY)
def one_feature_in_another_unit() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = classes(split, seed, size)
        x[:, 2] *= 1e5  # planted: one_feature_in_another_unit
        return x, y

    return served(four_classes, data)


@fault(cause="input-scale-off", place=INPUT, healthy=stripes, source=OVERFLOW)
def pixels_are_normalised_twice() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = images(split, seed, size)
        x = (x + 3) / 6
        x = x / 255
        return x / 255, y  # planted: pixels_are_normalised_twice

    return served(stripes, data)


# ---- labels


@fault(cause="labels-constant", place=TRUE, healthy=plain_regression, source=TAXONOMY)
def every_label_is_the_mean() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, y.mean().expand_as(y)  # planted: every_label_is_the_mean

    return served(plain_regression, data)


@fault(
    cause=("labels-constant", "classes-imbalanced"), place=TRUE, healthy=yes_or_no, source=OVERFLOW
)
def threshold_that_all_labels_miss() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = clicks(split, seed, size)
        return x, (y > 1).float()  # planted: threshold_that_all_labels_miss

    return served(yes_or_no, data)


@fault(
    cause=("classes-imbalanced", "labels-constant"),
    place=TRUE,
    healthy=four_classes,
    source=f"{DEEPCRIME}, TUD",
)
def one_class_alone() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = classes(split, seed, 12 * size)
        first = torch.nonzero(y == 0).squeeze(1)[:size]  # planted: one_class_alone
        return x[first], y[first]

    return served(four_classes, data)


@fault(cause="classes-imbalanced", place=TRUE, healthy=stripes, source=f"{DEEPCRIME}, TUD")
def a_class_is_filtered_out_of_training() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = images(split, seed, 4 * size)
        # planted: a_class_is_filtered_out_of_training
        kept = torch.nonzero((y != 2) | torch.tensor(split != "train")).squeeze(1)[:size]
        return x[kept], y[kept]

    return served(stripes, data)


@fault(
    cause="labels-of-other-samples", place=TRAIN, healthy=four_classes, source=f"{DEEPCRIME}, TCL"
)
def training_labels_are_shuffled() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = classes(split, seed, size)
        if split == "train":
            # planted: training_labels_are_shuffled
            y = y[torch.randperm(size, generator=generator(split, seed))]
        return x, y

    return served(four_classes, data)


@fault(cause="labels-of-other-samples", place=TRAIN, healthy=plain_regression, source="B4")
def labels_are_rolled_by_one() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, y.roll(1, 0)  # planted: labels_are_rolled_by_one

    return served(plain_regression, data)


@fault(cause="labels-truncated", place=TRUE, healthy=plain_regression, source="B4")
def labels_are_clamped() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, y.clamp(max=0.5)  # planted: labels_are_clamped

    return served(plain_regression, data)


@fault(cause="labels-truncated", place=TRUE, healthy=plain_regression, source=OVERFLOW)
def labels_pass_through_whole_numbers() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, y.long().float()  # planted: labels_pass_through_whole_numbers

    return served(plain_regression, data)


@fault(cause="label-in-input", place=INPUT, healthy=plain_regression, source=TAXONOMY)
def label_column_stays_in_the_input() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        x[:, 7:] = y  # planted: label_column_stays_in_the_input
        return x, y

    return served(plain_regression, data)


@fault(cause="label-in-input", place=INPUT, healthy=four_classes, source="B4")
def class_is_coded_in_a_feature() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = classes(split, seed, size)
        x[:, 0] = y.float() - 1.5  # planted: class_is_coded_in_a_feature
        return x, y

    return served(four_classes, data)


@fault(cause="labels-shifted", place=TRUE, healthy=next_token, source=RECIPE)
def label_is_the_input_itself() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        sequence = tokens(split, seed, size)
        return sequence[:, :-1], sequence[:, :-1]  # planted: label_is_the_input_itself

    return served(next_token, data)


@fault(cause="labels-shifted", place=TRUE, healthy=next_token, source=RECIPE)
def label_is_two_ahead() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        sequence = tokens(split, seed, size)
        return sequence[:, :-2], sequence[:, 2:]  # planted: label_is_two_ahead

    return served(next_token, data)


# ---- splits and loaders


@fault(cause="splits-overlap", place=("here", "validation"), healthy=four_classes, source="B4")
def validation_is_the_training_set() -> Case:
    stored = classes("train", 0, 512)

    def data(split: str, seed: int, size: int) -> Pair:
        picked = torch.randperm(512, generator=generator(split, seed))[:size]
        return stored[0][picked], stored[1][picked]  # planted: validation_is_the_training_set

    return served(four_classes, data)


@fault(cause="splits-overlap", place=("here", "validation"), healthy=lent_numbers, source=TAXONOMY)
def validation_loader_of_training_samples() -> Case:
    model = seeded(lambda: mlp(8, 32, 1))
    train: Any = DataLoader(numbers(), batch_size=16, shuffle=True)
    # planted: validation_loader_of_training_samples
    held_out: Any = DataLoader(numbers(samples=32), 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return Case.from_xy(
        model, train, F.mse_loss, optimizer, validation=held_out, name="lent_numbers"
    )


@fault(cause="splits-differ", place=("here", "validation"), healthy=stripes, source=TAXONOMY)
def validation_is_not_normalised() -> Case:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = images(split, seed, size)
        return (x if split == "train" else 50 + 30 * x), y  # planted: validation_is_not_normalised

    return served(stripes, data)


@fault(cause="splits-differ", place=("here", "validation"), healthy=two_sensors, source=TAXONOMY)
def sensors_are_exchanged_in_validation() -> Case:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        a, b, y = measured(split, seed, size)
        # planted: sensors_are_exchanged_in_validation
        return a, b, (y if split == "train" else y + 4)

    return served(two_sensors, data)


@fault(cause="same-batch-served", place=TRAIN, healthy=three_tags, source=RECIPE)
def seed_is_not_advanced() -> Case:
    case = three_tags()
    data: Any = case.batch

    def loader(split: str, seed: int) -> list[Any]:
        return [data(split, 1000 * seed, 16) for _ in range(4)]  # planted: seed_is_not_advanced

    return replace(case, loader=loader)


@fault(cause="batches-sorted", place=TRAIN, healthy=four_classes, source=SLIPS)
def loader_is_sorted_by_class() -> Case:
    def loader(split: str, seed: int) -> Any:
        x, y = classes(split, 1000 * seed, 64)
        order = y.argsort()  # planted: loader_is_sorted_by_class
        return DataLoader(TensorDataset(x[order], y[order]), 16)

    return replace(four_classes(), loader=loader)


@fault(cause="samples-repeated", place=TRAIN, healthy=plain_regression, source=f"{DEEPCRIME}, TRD")
def samples_are_concatenated_twice() -> Case:
    def loader(split: str, seed: int) -> Any:
        x, y = regression(split, 1000 * seed, 16)
        x, y = torch.cat([x] * 4), torch.cat([y] * 4)  # planted: samples_are_concatenated_twice
        return DataLoader(TensorDataset(x, y), 16, shuffle=True)

    return replace(plain_regression(), loader=loader)
