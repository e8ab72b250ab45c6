"""Samples, their roles, and what the checks of the family `data` say of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ris_diag
from ris_diag import Case, Declared
from ris_diag.context import Subject
from ris_diag.dependence import deviations, features, gaussian, label_features, linear
from ris_diag.samples import (
    PROBED,
    Roles,
    hashes,
    named_tensors,
    roles,
    samples,
    splits_apart,
)
from tests.faults.data_healthy import ODD
from tests.faults.healthy import small
from tests.faults.plant_data import labels_pass_through_whole_numbers
from tests.faults.zoo import ZOO
from tests.faults.zoo_parts import adam, classes, generator, mlp, regression, supervised


def subject(case: Case) -> Subject:
    return Subject(case, torch.device("cpu"), 0)


def regressor(data: Callable[[str, int, int], Any] = regression, **parts: Any) -> Case:
    return supervised(
        "regressor", lambda: mlp(8, 32, 1), data, F.mse_loss, optimizer=adam(1e-2), **parts
    )


@pytest.mark.parametrize("name", ODD)
def test_odd_but_healthy_data_is_left_alone(name: str) -> None:
    for seed in range(3):
        report = ris_diag.run(ODD[name](), select="data", seed=seed)
        assert [r.message() for r in report.results if r.status in ("fail", "error")] == []


# ---- samples


def test_tensors_are_named_by_the_expression_that_gives_them() -> None:
    class Pair(NamedTuple):
        x: Tensor
        rest: dict[str, Any]

    @dataclass
    class Holder:
        pair: Pair

    t = torch.zeros(2)
    batch = Holder(Pair(t, {"y": [t, t], "name": "text"}))
    assert list(named_tensors(batch)) == [
        "batch.pair.x", "batch.pair.rest['y'][0]", "batch.pair.rest['y'][1]"
    ]  # fmt: skip
    assert list(named_tensors(t)) == ["batch"]


@pytest.mark.parametrize(
    ("name", "inputs", "labels"),
    [
        ("mlp_regression", ("batch[0]",), ("batch[1]",)),
        ("noise_on_the_input", ("batch[0]",), ("batch[1]",)),
        ("transformer_tied", ("batch",), ()),
        ("model_returns_its_loss", ("batch['input_ids']",), ("batch['labels']",)),
        ("logged_bandit", ("batch.context",), ("batch.action", "batch.cost")),
        ("denoising_diffusion", ("batch",), ()),
        ("complex_weights", ("batch[0]",), ("batch[1]",)),
        ("parts_called_by_hand", ("batch[0]",), ("batch[1]",)),
        ("nested_batches", ("batch['input']['left']", "batch['input']['right'][0]"),
         ("batch['targets'][0]",)),
    ],
)  # fmt: skip
def test_inputs_and_labels_are_told_apart(
    name: str, inputs: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    found = roles(subject(ZOO[name]()))
    assert (found.inputs, found.labels) == (inputs, labels)


def test_a_changed_input_is_an_input_still() -> None:
    def loss(model: nn.Module, batch: Any, progress: Any) -> Tensor:
        value: Tensor = F.mse_loss(model(batch[0].flip(1).double().float() / 2), batch[1])
        return value

    case = Case(name="changed", model=lambda: mlp(8, 8, 1), batch=regression, loss=loss)
    assert roles(subject(case)).inputs == ("batch[0]",)


def test_a_declared_truth_is_the_label() -> None:
    assert roles(subject(small())).labels == ("batch.R_true",)
    derived = replace(regressor(), truth=lambda batch: batch[1].square())
    assert roles(subject(derived)).labels == ("truth(batch)",)
    itself = replace(regressor(), truth=lambda batch: batch[0].square())
    assert roles(subject(itself)).unlabelled == "the truth is computed from the input"


def test_what_is_unknown_is_said() -> None:
    def raising(model: nn.Module, batch: Any, progress: Any) -> Tensor:
        raise ValueError("no loss today")

    broken = Case(name="broken", model=lambda: mlp(8, 8, 1), batch=regression, loss=raising)
    assert roles(subject(broken)).unknown == "the model raises ValueError: no loss today"
    report = ris_diag.run(broken, select="D002,D003,D006,D009")
    assert [r.lines for r in report.results] == [
        ["not judged: the model raises ValueError: no loss today"]
    ] * 4


def test_nothing_is_left_in_the_model() -> None:
    model = mlp(8, 32, 1)
    roles(subject(replace(regressor(), model=lambda: model)))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_samples_that_are_not_along_the_first_axis() -> None:
    found = samples(subject(ZOO["time_comes_first"]()), "train")
    assert found.rows["batch[0]"].shape == (401, 12, 3)
    assert found.rows["batch[1]"].shape == (401, 1)


def test_what_relates_samples_to_each_other_has_no_row_a_sample() -> None:
    found = samples(subject(ZOO["nodes_of_one_graph"]()), "train")
    assert list(found.rows) == ["batch['x']", "batch['label']"]


def test_small_batches_are_pooled_unless_they_repeat() -> None:
    assert samples(subject(ZOO["one_sample_at_a_time"]()), "train").count == 32
    assert samples(subject(ZOO["lbfgs"]()), "train").count == 64
    assert samples(subject(ZOO["lent_regression"]()), "train").count == 64


def test_equal_samples_have_equal_hashes_in_any_layout() -> None:
    x = torch.randn(5, 4, 3, dtype=torch.complex64)
    assert hashes({"x": x}) == hashes({"x": x.mT.contiguous().mT})
    assert len(set(hashes({"x": x}))) == 5


def test_splits_that_one_source_gives_are_known() -> None:
    assert splits_apart(subject(regressor()))
    assert not splits_apart(subject(regressor(lambda s, seed, n: regression("any", seed, n))))
    assert not splits_apart(subject(ZOO["lent_regression"]()))


def test_roles_of_a_case_without_a_model() -> None:
    assert roles(subject(Case(name="data", batch=regression))) == Roles(
        unknown="neither Case.predict nor Case.loss says what enters the model"
    )
    report = ris_diag.run(Case(name="data", batch=regression), select="data")
    assert {r.id: r.status for r in report.results if r.status != "skip"} == dict.fromkeys(
        ("D001", "D008", "D010"), "pass"
    )


# ---- dependence


def test_moments_are_those_of_all_permutations() -> None:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=source, dtype=torch.float64)
    y = torch.randn(40, 2, generator=source, dtype=torch.float64) + 0.3 * x[:, :2]
    one, other = gaussian(x), linear(y)
    permuted = torch.tensor(
        [
            float((one.matrix * other.matrix[p][:, p]).sum())
            for p in (torch.randperm(40, generator=source) for _ in range(4000))
        ]
    )
    value = float((one.matrix * other.matrix).sum())
    estimate = float((value - permuted.mean()) / permuted.std())
    assert deviations(one, other) == pytest.approx(estimate, rel=0.1)


def test_independent_labels_stay_below_the_limit() -> None:
    source = torch.Generator().manual_seed(0)
    values = []
    for _ in range(200):
        x = features({"x": torch.randn(60, 1, generator=source)})
        y = label_features({"y": torch.randint(2, (60,), generator=source)})
        values.append(max(deviations(kernel(x), linear(y)) for kernel in (linear, gaussian)))
    assert sum(value > 3 for value in values) <= 16
    assert max(values) < 20


def test_words_are_counted() -> None:
    tokens = torch.randint(5, (200, 8), generator=generator("words", 0))
    y = (tokens == 2).sum(1).float()
    value = deviations(linear(features({"x": tokens})), linear(label_features({"y": y})))
    assert value > 20


# ---- checks


def messages(case: Case, check: str) -> str:
    return ris_diag.run(case, select=check)[check].message()


def test_the_share_that_would_be_missed_is_said() -> None:
    result = ris_diag.run(replace(regressor(), loader=None), select="D001")["D001"]
    assert result.lines == ["1203 samples seen: a fault in fewer than 0.2% may be missed"]


def test_nan_that_the_loader_alone_serves_is_found() -> None:
    def loader(split: str, seed: int) -> list[tuple[Tensor, Tensor]]:
        batches = [regression(split, k, 16) for k in range(4)]
        batches[2][1][5] = torch.inf
        return batches

    text = messages(regressor(loader=loader), "D001")
    assert "batch 2 of the loader, batch[1]: 1 of 16 samples (sample 5, entry 0)" in text
    assert "Place: tests/ris_diag/test_data.py:" in text


def test_a_loader_of_constant_labels_is_found() -> None:
    def loader(split: str, seed: int) -> list[tuple[Tensor, Tensor]]:
        return [(classes(split, k, 16)[0], torch.ones(16, dtype=torch.long)) for k in range(4)]

    case = supervised(
        "constant", lambda: mlp(8, 8, 4), classes, F.cross_entropy, optimizer=adam(1e-2),
        loader=loader,
    )  # fmt: skip
    assert "all 64 loader labels are the same" in messages(case, "D004")


def test_raw_inputs_that_the_loss_scales_are_at_the_loss() -> None:
    def loss(model: nn.Module, batch: Any, progress: Any) -> Tensor:
        value: Tensor = F.mse_loss(model(1e4 * batch[0]), batch[1])
        return value

    case = Case(name="scaled", model=lambda: mlp(8, 8, 1), batch=regression, loss=loss)
    line = loss.__code__.co_firstlineno
    assert f"Place: tests/ris_diag/test_data.py:{line}" in messages(case, "D003")


def test_labels_that_lost_their_fractions_in_every_split_are_found() -> None:
    assert (
        "train batch[1]: all are whole numbers, -4 to 4, yet a straight line through the inputs "
        "leaves a variance of 0.23, where differences of counts of that size have at least 0.85: "
        "their fractions seem to be lost"
    ) in messages(labels_pass_through_whole_numbers(), "D005")


def test_splits_in_different_units_are_named_by_feature() -> None:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, y = regression(split, seed, size)
        x[:, 3] *= 1000 if split == "validation" else 1
        return x, y

    assert "batch[0] by more than 30 times in feature 3" in messages(regressor(data), "D009")


def test_an_overlap_with_the_test_split_is_found() -> None:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        number = {"train": 0, "validation": 1, "test": 0}[split]
        x, y = regression(str(number), 0, 300)
        order = torch.randperm(300, generator=generator(split, seed))[:size]
        return x[order], y[order]

    assert "300 of 300 test samples stand in train, too (100%" in messages(
        replace(regressor(data), loader=None), "D008"
    )


def test_batches_of_the_declared_size_may_end_with_a_smaller_one() -> None:
    pairs = TensorDataset(*regression("train", 0, 40))
    case = regressor(
        loader=lambda split, seed: DataLoader(pairs, batch_size=16),
        declared=Declared(batch_size=16),
    )
    assert ris_diag.run(case, select="D010")["D010"].status == "pass"


def test_the_probe_is_as_long_as_no_other_axis() -> None:
    assert all(PROBED % k for k in range(2, PROBED))


def test_checks_of_data_are_cheap() -> None:
    ris_diag.run(ZOO["mlp_regression"](), select="data")  # imports
    report = ris_diag.run(ZOO["mlp_regression"](), select="data")
    assert sum(result.seconds for result in report.results) < 1.0
