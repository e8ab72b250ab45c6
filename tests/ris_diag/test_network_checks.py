"""L030 to L035 and G012: what the network can express, and what of its output counts."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case
from ris_diag.check import get_check
from tests.faults.zoo_parts import classes, mlp, regression
from tests.ris_diag.findings import found, of_classes, of_numbers, places
from tests.ris_diag.lines import line_of

Pair = tuple[Tensor, Tensor]


def absolute(split: str, seed: int, size: int) -> Pair:
    x, y = regression(split, seed, size)
    return x, y.abs()


def ended(end: Callable[[Tensor], Tensor], outputs: int = 1) -> Callable[[], nn.Module]:
    """A network whose output goes through a function."""

    class Ended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(8, 16, outputs)

        def forward(self, x: Tensor) -> Tensor:
            return end(self.net(x))

    return Ended


# ---- L030


def test_labels_that_the_last_activation_cannot_give() -> None:
    ((sign, text),) = found(of_numbers(F.mse_loss, model=ended(F.relu)), "L030")
    assert sign == "output-bounded"
    assert "of the labels (from -" in text
    assert text.endswith(
        ") lie outside of what relu() in Ended can give, between 0 and inf (limit 1%)"
    )


def test_raw_outputs_that_are_none() -> None:
    ((_, text),) = found(of_classes(F.cross_entropy, model=ended(F.relu, 4)), "L030")
    assert text == (
        "cross_entropy gets the output of relu() in Ended, between 0 and inf; raw outputs have no "
        "limits"
    )


@pytest.mark.parametrize(
    "case",
    [
        of_numbers(F.mse_loss),
        of_numbers(F.mse_loss, absolute, model=ended(F.relu)),
        of_numbers(F.mse_loss, model=ended(lambda p: 10 * p.tanh())),
        of_numbers(lambda p, y: F.mse_loss(p, y.tanh()), model=ended(torch.tanh)),
        of_numbers(lambda p, y: F.mse_loss(p.clamp(min=0), y.abs())),
        of_classes(F.cross_entropy, model=ended(lambda p: p.log_softmax(1), 4)),
    ],
    ids=["linear", "positive", "scaled", "tanh of both", "clamped", "log_softmax"],
)
def test_what_can_be_reached_is_fine(case: Case) -> None:
    assert found(case, "L030") == []


# ---- L031


def test_layers_with_nothing_between_them() -> None:
    case = of_numbers(
        F.mse_loss,
        model=lambda: nn.Sequential(
            nn.Linear(8, 16), nn.Dropout(0.1), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)
        ),
    )
    assert found(case, "L031") == [
        (
            "layers-collapse",
            "1 pairs of linear layers have nothing between them (0 -> 2; widths 8 -> 16 -> 16; "
            "limit 0)",
        )
    ]


class Twice(nn.Module):
    """One layer called with an activation and without."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.two(self.one(x))
        second: Tensor = self.two(F.relu(self.one(x)))
        return first + second


@pytest.mark.parametrize(
    "model",
    [
        lambda: mlp(8, 16, 1),
        lambda: nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)),
        lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1)),
        Twice,
        lambda: nn.Linear(8, 1),
    ],
    ids=["bent", "bottleneck", "normalised", "elsewhere bent", "one layer"],
)
def test_bends_and_bottlenecks_are_fine(model: Callable[[], nn.Module]) -> None:
    assert found(of_numbers(F.mse_loss, model=model), "L031") == []


# ---- L032


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net(torch.ones_like(x)),
        lambda net, x: net(x * 0),
        lambda net, x: net(x).softmax(1),
    ],
    ids=["overwritten", "multiplied by zero", "softmax over one"],
)
def test_an_input_that_is_not_used(forward: Any) -> None:
    class Deaf(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(8, 16, 1)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = forward(self.net, x)
            return output

    ((sign, text),) = found(of_numbers(F.mse_loss, model=Deaf), "L032")
    assert sign == "input-ignored"
    assert text.startswith("the predictions of 14 samples differ by ")
    limit = get_check("L032").thresholds[0].value
    assert text.endswith(f" of the largest output (limit {limit:g})")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_an_input_that_is_used(scale: float) -> None:
    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return scale * x, y

    assert found(of_numbers(F.mse_loss, data), "L032") == []


# ---- L033


def scaled(factor: float, layers: slice = slice(None)) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        net = mlp(8, 16, 1)
        for layer in [m for m in net if isinstance(m, nn.Linear)][layers]:
            layer.weight.data *= factor
        return net

    return model


def test_weights_that_start_far_too_large() -> None:
    ((sign, text),) = found(of_numbers(F.mse_loss, model=scaled(100, slice(0, 1))), "L033")
    assert sign == "initial-scale-off"
    assert text.startswith("1 of 3 layers start with weights that blow their signal up (0: ")
    assert text.endswith(" times; limit 10)")


def test_weights_that_start_far_too_small() -> None:
    ((_, text),) = found(of_numbers(F.mse_loss, model=scaled(1e-4)), "L033")
    assert text.startswith("3 of 3 layers start with weights that let nothing through (0: ")
    assert text.endswith(" times; limit 0.02 in the median)")


@pytest.mark.parametrize(
    "model",
    [scaled(1), scaled(4), scaled(1e-6, slice(2, 3))],
    ids=["usual", "four times", "the last near zero"],
)
def test_usual_scales_and_a_last_layer_near_zero(model: Callable[[], nn.Module]) -> None:
    assert found(of_numbers(F.mse_loss, model=model), "L033") == []


# ---- L034


def with_dropout(p: float) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 1))


def test_dropout_that_takes_nearly_everything() -> None:
    case = of_numbers(F.mse_loss, model=with_dropout(0.95))
    assert found(case, "L034") == [
        ("dropout-extreme", "1 dropouts take nearly everything (2: p = 0.95; limit 0.85)")
    ]


def test_dropout_by_function() -> None:
    case = of_numbers(F.mse_loss, model=ended(lambda p: F.dropout(p, 0.9)))
    assert found(case, "L034") == [
        ("dropout-extreme", "1 dropouts take nearly everything (Ended: p = 0.9; limit 0.85)")
    ]


@pytest.mark.parametrize(
    "model",
    [with_dropout(0.0), with_dropout(0.5), with_dropout(0.8),
     ended(lambda p: F.dropout(p, 0.95, training=False))],
    ids=["0", "0.5", "0.8", "off"],
)  # fmt: skip
def test_usual_dropout_is_fine(model: Callable[[], nn.Module]) -> None:
    assert found(of_numbers(F.mse_loss, model=model), "L034") == []


# ---- L035


def test_softmax_over_one_entry() -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(p.softmax(1), y)  # over one

    case = of_numbers(loss)
    assert found(case, "L035") == [
        (
            "softmax-over-one",
            "softmax(dim=1) of [11, 1] runs over an axis of length 1: it is constant",
        )
    ]
    assert places(case, "L035")[0].startswith(line_of("over one"))


def test_softmax_over_the_samples() -> None:
    case = of_classes(lambda p, y: F.nll_loss(p.log_softmax(0), y))
    assert found(case, "L035") == [
        ("softmax-over-batch", "log_softmax(dim=0) of [11, 4] runs over the 11 samples")
    ]


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, y: F.nll_loss(p.log_softmax(1), y),
        lambda p, y: F.nll_loss(p.log_softmax(-1), y),
        lambda p, y: F.nll_loss(F.log_softmax(p, dim=1), y),
        lambda p, y: F.nll_loss(p.T.log_softmax(0).T, y),
    ],
    ids=["1", "-1", "by function", "transposed"],
)
def test_softmax_over_classes_is_fine(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert found(of_classes(loss), "L035") == []


# ---- G012


def vectors(split: str, seed: int, size: int) -> Pair:
    x, label = classes(split, seed, size)
    return x, F.one_hot(label, 4).float()


def test_samples_that_do_not_count() -> None:
    ((sign, text),) = found(of_numbers(lambda p, y: (p - y).square()[0].sum()), "G012")
    assert sign == "prediction-unused"
    assert text == (
        "10 of 11 samples of the prediction of [11, 1] from Sequential get no gradient in any of 3 "
        "steps (positions 1, 2, 3 and 7 more; limit 25%)"
    )


def test_outputs_that_do_not_count() -> None:
    case = of_classes(lambda p, y: F.mse_loss(p[:, :2], y[:, :2]), vectors)
    ((_, text),) = found(case, "G012")
    assert text == (
        "2 of 4 outputs of the prediction of [11, 4] from Sequential get no gradient in any of 3 "
        "steps (outputs 2, 3; limit 0)"
    )


def test_an_imaginary_part_that_does_not_count() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(8, 1, dtype=torch.complex64)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.net(x.to(torch.complex64))
            return output

    case = of_numbers(lambda p, y: F.mse_loss(p.real, y), model=Complex)
    ((_, text),) = found(case, "G012")
    assert text == (
        "the imaginary part of the prediction of [11, 1] from Complex gets no gradient in any of 3 "
        "steps"
    )
    whole = of_numbers(lambda p, y: (p - y).abs().square().mean(), model=Complex)
    assert found(whole, "G012") == []


@pytest.mark.parametrize(
    "case",
    [
        of_numbers(F.mse_loss),
        of_numbers(lambda p, y: F.mse_loss(p[:, 0], y[:, 0])),
        of_numbers(lambda p, y: F.mse_loss(p, y[:, 0]), model=ended(lambda p: p[:, 0])),
        of_numbers(lambda p, y: (p - y).square()[y > 0].mean()),
        of_numbers(lambda p, y: (1 - p * y.sign()).clamp(min=0).mean()),
        of_classes(F.cross_entropy),
        of_numbers(lambda p, y: F.mse_loss(p.mean(), y.mean())),
    ],
    ids=["all", "squeezed", "one axis", "mask", "hinge", "classes", "mean"],
)
def test_samples_and_outputs_that_count(case: Case) -> None:
    assert found(case, "G012") == []
