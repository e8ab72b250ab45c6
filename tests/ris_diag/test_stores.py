"""What stands behind a loader: overlaps, order and labels of data sets that were seen in part."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import ris_diag
from ris_diag import Case
from ris_diag.context import Subject
from ris_diag.samples import INSTEAD, lent_of, probed, roles
from ris_diag.stores import store_of
from tests.faults.zoo_parts import classes, fixed, generator, mlp, regression
from tests.ris_diag.test_data_doors import Pair, class_among_the_features, four


def script(train: Any, validation: Any = None, loss: Any = F.cross_entropy) -> Case:
    model = mlp(8, 32, 4 if loss is F.cross_entropy else 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return Case.from_xy(model, train, loss, optimizer, validation=validation)


def said(case: Case, check: str) -> str:
    result = ris_diag.run(case, select=check)[check]
    assert result.status in ("pass", "fail"), result.message()
    return result.cause or " ".join(result.lines)


def test_a_script_is_known_behind_its_case() -> None:
    assert lent_of(Subject(four().by_script(), torch.device("cpu"), 0)) is not None


def test_loaders_over_one_large_data_set_overlap_whatever_was_seen() -> None:
    data = TensorDataset(*classes("train", 0, 60_000))
    case = script(DataLoader(data, 16, shuffle=True), DataLoader(data, 64))
    assert said(case, "D008") == (
        "60000 of 60000 validation samples stand in train, too (100%, limit 1%): both loaders "
        "read them from one TensorDataset"
    )


@pytest.mark.parametrize(("first", "both"), [(400, 100), (500, 0)])
def test_subsets_of_one_data_set_overlap_by_their_indices(first: int, both: int) -> None:
    data = TensorDataset(*classes("train", 0, 600))
    train = DataLoader(Subset(data, range(500)), 16, shuffle=True)
    case = script(train, DataLoader(Subset(data, range(first, 600)), 64))
    found = f"{both} of {600 - first} validation samples stand in train" in said(case, "D008")
    assert found == bool(both)


def test_a_data_set_that_draws_its_samples_overlaps_with_nothing() -> None:
    class Drawn(Dataset[Pair]):
        def __len__(self) -> int:
            return 200

        def __getitem__(self, index: int) -> Pair:
            x = torch.randn(8)
            return x, x[:1]

    loader = DataLoader(Drawn(), 16)
    assert said(script(loader, loader, F.mse_loss), "D008") == ""
    store = store_of(loader)
    assert store is not None
    assert not store.keeps


def test_a_set_that_ignores_its_split_overlaps_under_other_seeds() -> None:
    x, y = classes("any", 0, 512)
    parts = {**four().parts(), "loader": None, "declared": None}

    def picked(split: str, seed: int, size: int) -> Pair:
        index = torch.randperm(512, generator=generator(split, seed))[:size]
        return x[index], y[index]

    def first(split: str, seed: int, size: int) -> Pair:
        return x[:size], y[:size]

    text = said(Case(**{**parts, "batch": picked}), "D008")
    assert "validation samples stand in train, too" in text
    text = said(Case(**{**parts, "batch": first}), "D008")
    assert text.startswith("not judged: one source of samples")


def test_one_loader_for_whatever_split_is_no_overlap_but_two_over_one_set_are() -> None:
    parts, data = four().parts(), TensorDataset(*classes("any", 0, 256))
    one = DataLoader(data, 16, shuffle=True)
    case = Case(**{**parts, "loader": lambda split, seed: one})
    assert "stand in train" not in said(case, "D008")

    def loader(split: str, seed: int) -> Any:
        return DataLoader(data, 16, shuffle=split == "train")

    result = ris_diag.run(Case(**{**parts, "loader": loader}), select="D008")["D008"]
    assert "validation samples stand in train, too" in result.cause
    assert "test_stores.py" in result.place


def test_labels_of_a_large_sorted_set_are_sorted_and_not_constant() -> None:
    x, y = classes("train", 0, 8192)
    order = y.argsort()
    loader = DataLoader(TensorDataset(x[order], y[order]), 16)
    text = said(script(loader), "D004")
    assert text == "not judged: the first samples of the loader are of one class"
    text = said(script(loader), "D010")
    assert text.startswith("each of 32 batches is of one class of batch[1] (100% on average")
    constant = DataLoader(TensorDataset(x, 0 * y), 16)
    assert said(script(constant), "D004").startswith("all 401 train labels are the same")


def test_batches_that_end_amid_a_class_are_sorted_as_well() -> None:
    x, y = classes("train", 0, 70)
    order = y.argsort()
    case = script(DataLoader(TensorDataset(x[order], y[order]), 16))
    assert said(case, "D010") == (
        "the 70 samples of 5 batches come class by class of batch[1], each of 4 in one piece "
        "(limit: chance below 1e-09)"
    )


def test_classes_in_groups_of_a_batch_are_not_sorted() -> None:
    """As a contrastive loss wants them: four of each of four classes in every batch."""
    label = torch.arange(4).repeat_interleave(4)
    batches = [
        (fixed(4, 8)[label] + torch.randn(16, 8, generator=generator("train", seed)), label)
        for seed in range(8)
    ]
    case = Case(**{**four().parts(), "loader": lambda split, seed: batches})
    assert said(case, "D010") == ""


def test_one_label_for_each_batch_is_shown() -> None:
    x, y = regression("train", 0, 96)
    y = y.reshape(6, 16, 1).mean(1, keepdim=True).expand(6, 16, 1).reshape(96, 1)
    text = said(script(DataLoader(TensorDataset(x, y), 16), loss=F.mse_loss), "D004")
    assert text.startswith("all labels of a batch are the same, in 6 of 6 batches (batch[1] is ")


def test_a_probe_has_a_length_of_its_own() -> None:
    subject = Subject(class_among_the_features().by_loss(), torch.device("cpu"), 0)
    assert probed(subject) == INSTEAD
    assert roles(subject).labels == ("batch[1]",)
