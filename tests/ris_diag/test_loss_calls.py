"""G011, rule by rule: what it says of a misuse, and its silence on the healthy neighbour."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case
from tests.faults.zoo_parts import classes, mlp, regression
from tests.ris_diag.findings import found, of_classes, of_numbers, places
from tests.ris_diag.lines import line_of

Pair = tuple[Tensor, Tensor]


def labelled(label: Callable[[Pair], Tensor], data: Any = classes) -> Any:
    """Data with other labels."""
    return lambda split, seed, size: (
        (pair := data(split, seed, size))[0],
        label(pair),
    )


def yes_or_no(split: str, seed: int, size: int) -> Pair:
    x, y = regression(split, seed, size)
    return x, (y > 0).float()


def tags(split: str, seed: int, size: int) -> Pair:
    x, label = classes(split, seed, size)
    return x, torch.stack([label >= k for k in range(4)], 1).float()


def shares(split: str, seed: int, size: int) -> Pair:
    x, label = classes(split, seed, size)
    return x, 0.1 + 0.6 * F.one_hot(label, 4).float()


def sorted_numbers(split: str, seed: int, size: int) -> Pair:
    x, y = regression(split, seed, size)
    return x, y[:, 0]


class Ended(nn.Module):
    """A network that ends with an activation."""

    def __init__(self, end: nn.Module, outputs: int = 4) -> None:
        super().__init__()
        self.net, self.end = mlp(8, 16, outputs), end

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.end(self.net(x))
        return output


def ce(p: Tensor, y: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(p, y, **options)


WEIGHTS = torch.tensor([1.0, 1.0, 0.0, 1.0])
TWICE = (
    "cross_entropy gets probabilities (between 0 and 1, each row sums to 1): the output of "
    "softmax(){}; it applies log_softmax itself"
)
SIGMOID = (
    "binary_cross_entropy_with_logits gets values between 0 and 1 alone: the output of sigmoid(){}"
    "; it applies the sigmoid itself"
)
WRONG: dict[str, tuple[Case, str, str]] = {
    "softmax in front of cross_entropy": (
        of_classes(lambda p, y: ce(p.softmax(1), y)),
        "normalised-outputs",
        TWICE.format(""),
    ),
    "softmax as the last layer": (
        of_classes(ce, model=lambda: Ended(nn.Softmax(1))),
        "normalised-outputs",
        TWICE.format(" in end (Softmax)"),
    ),
    "sigmoid in front of cross_entropy": (
        of_classes(lambda p, y: ce(p.sigmoid(), y)),
        "normalised-outputs",
        "cross_entropy gets probabilities (between 0 and 1): the output of sigmoid(); it applies "
        "log_softmax itself",
    ),
    "sigmoid in front of the logits' loss": (
        of_numbers(lambda p, y: F.binary_cross_entropy_with_logits(p.sigmoid(), y), yes_or_no),
        "normalised-outputs",
        SIGMOID.format(""),
    ),
    "raw outputs into nll_loss": (
        of_classes(F.nll_loss),
        "unnormalised-outputs",
        "nll_loss gets raw outputs, not the logarithm of probabilities: exp() of a row sums to e^",
    ),
    "probabilities into nll_loss": (
        of_classes(lambda p, y: F.nll_loss(p.softmax(1), y)),
        "unnormalised-outputs",
        "nll_loss gets probabilities, not the logarithm of probabilities: exp() of a row sums to",
    ),
    "probabilities into kl_div": (
        of_classes(lambda p, y: F.kl_div(p.softmax(1), y, reduction="batchmean"), shares),
        "unnormalised-outputs",
        "kl_div gets probabilities, not the logarithm of probabilities: exp() of a row sums to e^",
    ),
    "one class": (
        of_classes(ce, labelled(lambda pair: pair[1] * 0), outputs=1),
        "loss-kind-odd",
        "cross_entropy over one class is 0 whatever the prediction [11, 1]",
    ),
    "labels of -1 and 1": (
        of_numbers(
            F.binary_cross_entropy_with_logits, labelled(lambda pair: 2 * pair[1] - 1, yes_or_no)
        ),
        "loss-kind-odd",
        "the labels of binary_cross_entropy_with_logits lie in [-1, 1], it is made for [0, 1]",
    ),
    "a class of weight zero": (
        of_classes(lambda p, y: ce(p, y, weight=WEIGHTS)),
        "loss-argument-odd",
        "the class weights of cross_entropy switch off",
    ),
    "a class that is real is ignored": (
        of_classes(lambda p, y: ce(p, y, ignore_index=1)),
        "loss-argument-odd",
        "cross_entropy ignores",
    ),
    "smoothing of 0.9": (
        of_classes(lambda p, y: ce(p, y, label_smoothing=0.9)),
        "loss-argument-odd",
        "label_smoothing=0.9 (limit 0.5) leaves little of the labels",
    ),
    "cross_entropy for tags": (
        of_classes(ce, tags),
        "loss-kind-odd",
        "the labels of cross_entropy are shares that don't sum to 1 (off by up to 3, limit 0.001)",
    ),
    "[B, 1] beside [B]": (
        of_numbers(F.mse_loss, sorted_numbers),
        "shapes-broadcast",
        "mse_loss: the prediction [11, 1] and the label [11] broadcast to [11, 11]: every "
        "prediction is compared with every label",
    ),
    "[B, 1] minus [B]": (
        of_numbers(lambda p, y: (p - y).abs().mean(), sorted_numbers),
        "shapes-broadcast",
        "sub: the prediction [11, 1] and the label [11] broadcast to [11, 11]: every prediction is "
        "compared with every label",
    ),
    "[B] minus [B, 1]": (
        of_numbers(lambda p, y: (y - p[:, 0]).abs().mean()),
        "shapes-broadcast",
        "sub: the prediction [11] and the label [11, 1] broadcast to [11, 11]: every prediction is "
        "compared with every label",
    ),
    "loss in half": (
        of_numbers(lambda p, y: F.mse_loss(p, y).bfloat16()),
        "loss-in-half",
        "12 of 12 losses are torch.bfloat16, which keeps two to three digits (limit float32)",
    ),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", WRONG)
def test_a_misuse_is_named(name: str) -> None:
    case, sign, text = WRONG[name]
    first = found(case, "G011")[0]
    assert first[0] == sign
    assert first[1].startswith(text)


HEALTHY: dict[str, Case] = {
    "raw outputs": of_classes(ce),
    "a class of weight 0.1": of_classes(lambda p, y: ce(p, y, weight=WEIGHTS + 0.1)),
    "smoothing of 0.1": of_classes(lambda p, y: ce(p, y, label_smoothing=0.1)),
    "shares that sum to one": of_classes(
        ce, labelled(lambda pair: 0.9 * F.one_hot(pair[1], 4) + 0.025)
    ),
    "an index that no label has": of_classes(lambda p, y: ce(p, y, ignore_index=-1)),
    "log_softmax in front of nll_loss": of_classes(lambda p, y: F.nll_loss(p.log_softmax(1), y)),
    "log_softmax in front of kl_div": of_classes(
        lambda p, y: F.kl_div(p.log_softmax(1), y, reduction="batchmean"), shares
    ),
    "logits": of_numbers(F.binary_cross_entropy_with_logits, yes_or_no),
    "tags": of_classes(F.binary_cross_entropy_with_logits, tags),
    "sigmoid in front of the loss of probabilities": of_numbers(
        lambda p, y: F.binary_cross_entropy(p.sigmoid(), y), yes_or_no
    ),
    "smoothed yes and no": of_numbers(
        F.binary_cross_entropy_with_logits, labelled(lambda pair: 0.1 + 0.8 * pair[1], yes_or_no)
    ),
    "one shape": of_numbers(F.mse_loss),
    "a label for all": of_numbers(lambda p, y: (p - torch.zeros(1)).square().mean()),
    "every pair on purpose": of_numbers(lambda p, y: (p - p.T.detach()).square().mean()),
    "numbers that are whole": of_numbers(F.mse_loss, labelled(lambda p: p[1].round(), regression)),
    "probabilities of a sum": of_numbers(
        lambda p, y: F.mse_loss(p.softmax(0).cumsum(0), y.softmax(0).cumsum(0))
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_its_healthy_neighbour_is_silent(name: str) -> None:
    assert found(HEALTHY[name], "G011") == []


def test_class_numbers_as_numbers() -> None:
    def case(kept: Callable[[Tensor], Tensor]) -> Case:
        def loss(p: Tensor, y: Tensor) -> Tensor:
            even = torch.arange(len(y)) % 4  # as many of each class
            return F.mse_loss(p, kept(even)[:, None])

        return of_numbers(loss, classes)

    ((sign, text),) = found(case(lambda label: label.float()), "G011")
    assert sign == "loss-kind-odd"
    assert text == (
        "mse_loss takes the distance to the numbers of 4 classes (whole numbers 0 to 3 in equal "
        "shares): class 2 is no nearer to 1 than to 0"
    )
    # Numbers that never were whole ones may be whole by chance; so may two classes, 0 and 1.
    assert found(case(lambda label: label.float() + 0.0 * torch.rand(len(label))), "G011") == []
    assert found(case(lambda label: (label % 2).float()), "G011") == []


def test_switched_off_labels_are_counted() -> None:
    ((_, text),) = found(of_classes(lambda p, y: ce(p, y, weight=WEIGHTS)), "G011")
    assert "(classes 2; limit 0%)" in text


def test_padding_of_sequences_may_be_most_of_the_labels() -> None:
    def padded(size: int, kept: int) -> Any:
        def data(split: str, seed: int, count: int) -> Pair:
            x, label = classes(split, seed, count)
            return x, torch.cat([label[:, None], torch.full((count, size), -100)], 1)[:, :size]

        return data

    def loss(p: Tensor, y: Tensor) -> Tensor:
        return ce(p[:, :, None].expand(-1, -1, y.shape[1]), y)

    assert found(of_classes(loss, padded(20, 1)), "G011") == []
    ((sign, text),) = found(of_classes(loss, padded(100, 1)), "G011")
    assert sign == "loss-argument-odd"
    assert text == "cross_entropy ignores 99% of the labels (ignore_index=-100)"


def test_the_place_is_the_line_of_the_softmax() -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        p = p.softmax(1)  # what is too much
        return ce(p, y)

    assert places(of_classes(loss), "G011") == [line_of("what is too much")]


def test_the_place_of_shapes_is_the_line_of_the_loss() -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        return (p - y).square().mean()  # the difference

    assert places(of_numbers(loss, sorted_numbers), "G011") == [line_of("the difference")]
