"""G018: whether predictions meet their own labels; places of modules that mix, leak or draw."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ris_diag
from ris_diag import Case
from tests.faults import plant_pairing as planted
from tests.faults.zoo_grounds import stripes, three_tags
from tests.ris_diag.findings import found, of_classes, of_numbers, places
from tests.ris_diag.lines import line_of

ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "reversed": lambda y: y.flip(0),
    "moved on": lambda y: y.roll(1, 0),
    "shuffled": lambda y: y[torch.randperm(len(y), device=y.device)],
    "taken apart": lambda y: torch.cat([y[::2], y[1::2]]),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("case", [of_classes, of_numbers])
@pytest.mark.parametrize("one_side", ["prediction", "label"])
def test_one_side_in_another_order(case: Any, order: Any, one_side: str) -> None:
    loss = F.cross_entropy if case is of_classes else F.mse_loss

    def criterion(p: Tensor, y: Tensor) -> Tensor:
        return loss(order(p), y) if one_side == "prediction" else loss(p, order(y))

    ((sign, text),) = found(case(criterion), "G018")
    assert sign == "pairs-parted"
    assert "a row in which the loss sees another batch[1] sees its prediction change" in text
    assert text.endswith("labels meet the predictions of other samples")


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_both_sides_in_one_order(order: Any) -> None:
    def criterion(p: Tensor, y: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            p = order(p)
        return F.cross_entropy(p, order(y))

    assert not found(of_classes(criterion), "G018")


def test_of_a_network_that_mixes_it_says_so() -> None:
    case = of_classes(F.cross_entropy, model=lambda: nn.Sequential(nn.Linear(8, 4), Mixing()))
    result = ris_diag.run(case, select="G018,L027")["G018"]
    assert result.status == "pass"
    assert result.lines == ["not judged: the model mixes samples, see L027"]


class Mixing(nn.Module):  # mixes
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


MIXING = line_of("mixes")


@pytest.mark.parametrize(
    ("module", "end"),
    [
        (Mixing, f"{MIXING}, prediction at"),
        (lambda: nn.Sequential(nn.Linear(4, 4), Mixing()), f"{MIXING}, prediction at"),
        (lambda: nn.BatchNorm1d(4, track_running_stats=False), " (1: BatchNorm1d), prediction at"),
    ],
    ids=["own", "nested", "of torch"],
)
def test_the_innermost_module_that_mixes(module: Callable[[], nn.Module], end: str) -> None:
    case = of_classes(F.cross_entropy, model=lambda: nn.Sequential(nn.Linear(8, 4), module()))
    (place,) = places(case, "L027")
    assert end in place


def test_what_agrees_everywhere_has_no_innermost_module() -> None:
    assert not places(three_tags(), "L027")
    assert not places(stripes(), "L026")


@pytest.mark.parametrize(
    ("case", "check", "kind"),
    [
        (planted.recurrence_along_the_batch, "L027", "(cells: GRU)"),
        (planted.maps_of_several_pictures_in_a_row, "L027", ""),
        (planted.maps_are_dropped_in_every_mode, "L026", ""),
        (planted.one_of_many_modules_looks_ahead, "L040", ""),
    ],
)
def test_places_of_planted_ones(case: Callable[[], Case], check: str, kind: str) -> None:
    (place,) = places(case(), check)
    assert "plant_pairing.py:" in place
    assert kind in place
