"""Faults in the loss that a perfect output brings to light."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Declared, Losses, Progress
from tests.faults.catalogue import loss_with
from tests.faults.healthy import small
from tests.faults.registry import fault
from tests.faults.zoo_parts import (
    adam,
    classes,
    fixed,
    generator,
    mlp,
    regression,
    sequences,
    supervised,
)

HUMBATOVA = "Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)"
TAMBON = "Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)"
HISTORY = "the history behind the project (docs/design.md)"


def of_numbers(criterion: Callable[[Any, Any], Any] = F.mse_loss, **parts: Any) -> Case:
    """A network from 8 numbers to one."""
    case = supervised(
        "numbers",
        lambda: mlp(8, 32, 1),
        regression,
        criterion,
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )
    return replace(case, **parts)


def of_classes(criterion: Callable[[Any, Any], Any] = F.cross_entropy, **parts: Any) -> Case:
    """A network that tells four classes apart."""
    case = supervised(
        "classes",
        lambda: mlp(8, 32, 4),
        classes,
        criterion,
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )
    return replace(case, **parts)


def channels(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Complex x [B, 4] and a Hermitian matrix [B, 4, 4] that it determines."""
    source = generator(split, seed)
    x = torch.randn(size, 4, dtype=torch.complex64, generator=source)
    mixed = x * torch.exp(1j * fixed(4))
    return x, mixed[:, :, None] * mixed[:, None, :].conj()


class Outer(nn.Module):
    """A Hermitian matrix of rank one from a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, dtype=torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        column: Tensor = self.layer(x)
        return column[:, :, None] * column[:, None, :].conj()


def energy(estimate: Tensor, truth: Tensor) -> Tensor:
    return (estimate - truth).abs().square().mean()


def of_matrices(criterion: Callable[[Any, Any], Any] = energy, **parts: Any) -> Case:
    case = supervised(
        "matrices",
        Outer,
        channels,
        criterion,
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )
    return replace(case, **parts)


HIGH: dict[str, Any] = {"cause": "target-changed-in-loss", "source": HISTORY}
OTHERS = {**HIGH, "cause": ("labels-of-other-samples-in-loss", "target-changed-in-loss")}


@fault("G008", says="0 for the truth conjugated", healthy=of_matrices, **HIGH)
def label_is_transposed() -> Case:
    return of_matrices(lambda R, R_true: energy(R, R_true.mT))  # planted: label_is_transposed


@fault("G008", says="0 for the truth conjugated", healthy=of_matrices, **HIGH)
def prediction_is_conjugated() -> Case:
    return of_matrices(
        lambda R, R_true: energy(R.conj(), R_true)
    )  # planted: prediction_is_conjugated


@fault("G008", says="for the truth reduced to its real part", healthy=of_matrices, **HIGH)
def imaginary_part_is_dropped() -> Case:
    return of_matrices(
        lambda R, R_true: energy(R, R_true.real)
    )  # planted: imaginary_part_is_dropped


@fault("G008", says="for the truth times 0.01", healthy=of_numbers, **HIGH)
def label_in_another_unit() -> Case:
    return of_numbers(lambda p, y: F.l1_loss(p, y / 100))  # planted: label_in_another_unit


@fault("G008", says="for the truth times 0.5 plus -1.5", healthy=of_numbers, **HIGH)
def label_is_standardised_and_prediction_is_not() -> Case:
    return of_numbers(
        lambda p, y: F.mse_loss(
            p, (y - 3) / 2
        )  # planted: label_is_standardised_and_prediction_is_not
    )


@fault("G008", says="of the sample before it in the batch", healthy=of_classes, **OTHERS)
def labels_of_the_sample_before() -> Case:
    return of_classes(
        lambda p, y: F.cross_entropy(p, y.roll(1))
    )  # planted: labels_of_the_sample_before


def without_truth() -> Case:
    return of_numbers(truth=None)


@fault("G008", says="in the reverse order of the batch", healthy=without_truth, **OTHERS)
def labels_in_reverse_order_and_no_truth() -> Case:
    return of_numbers(
        lambda p, y: F.mse_loss(p, y.flip(0)),  # planted: labels_in_reverse_order_and_no_truth
        truth=None,
    )


def every_time(criterion: Callable[[Any, Any], Any] = F.mse_loss) -> Case:
    """A network from each time to its number."""

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, _ = sequences(split, seed, size)
        return x, x @ fixed(3, 1)

    return supervised(
        "every time",
        lambda: mlp(3, 16, 1),
        data,
        criterion,
        optimizer=adam(1e-2),
        oracle=lambda batch: batch[1],
    )


@fault("G008", says="for the truth shifted by one along axis 1", healthy=every_time, **HIGH)
def labels_are_one_step_late() -> Case:
    return every_time(lambda p, y: F.mse_loss(p, y.roll(1, 1)))  # planted: labels_are_one_step_late


def two_terms(
    auxiliary: Callable[[Tensor, Tensor], Tensor] = energy,
    total: Callable[[Mapping[str, Tensor]], Tensor] = lambda terms: (
        terms["main"] + 0.05 * terms["auxiliary"]
    ),
    **parts: Any,
) -> Case:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Losses:
        R = model(batch[0])
        terms = {"main": energy(R, batch[1]), "auxiliary": auxiliary(R, batch[1])}
        return Losses(total=total(terms), terms=terms)

    return of_matrices(**{"loss": loss, **parts})


@fault("G008", says="term auxiliary is", healthy=two_terms, **HIGH)
def auxiliary_term_in_another_convention() -> Case:
    return two_terms(
        lambda R, R_true: energy(R, -R_true)  # planted: auxiliary_term_in_another_convention
    )


@fault("G008", says="no change of it that was tried has it", healthy=of_classes,
       **{**HIGH, "cause": ("normalised-outputs-into-loss", "target-changed-in-loss")})  # fmt: skip
def softmax_twice() -> Case:
    return replace(
        of_classes(lambda p, y: F.cross_entropy(p.softmax(1), y)),  # planted: softmax_twice
        oracle=lambda batch: 30 * F.one_hot(batch[1], 4).float(),
    )


@fault(
    "G008",
    "G007",
    says="the labels of other samples give the same",
    cause="broadcast-in-loss",
    healthy=of_numbers,
    source=TAMBON,
)
def truth_without_its_last_axis() -> Case:
    return of_numbers(
        lambda p, y: (p - y[:, 0]).square().mean(),  # planted: truth_without_its_last_axis
        truth=lambda batch: batch[1][:, 0],
    )


@fault("G008", says="the sign is wrong", cause="wrong-sign", healthy=of_numbers, source=HUMBATOVA)
def error_with_a_minus() -> Case:
    return of_numbers(lambda p, y: -F.mse_loss(p, y))  # planted: error_with_a_minus


@fault("G008", says="the sign is wrong", cause="wrong-sign", healthy=of_classes, source=HUMBATOVA)
def likelihood_in_place_of_its_negative() -> Case:
    return of_classes(
        lambda p, y: (
            p.log_softmax(1).gather(1, y[:, None]).mean()
        )  # planted: likelihood_in_place_of_its_negative
    )


@fault("G008", says="lower, with", healthy=of_matrices, **HIGH)
def product_without_a_conjugate() -> Case:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        return (
            -(p * y).sum((1, 2)).real.mean() + p.abs().square().sum((1, 2)).mean() / 2
        )  # planted: product_without_a_conjugate

    return of_matrices(loss)


# ---- terms


@fault(
    "G009",
    says="0.5, at any weights: a constant",
    cause="term-missing-in-total",
    healthy=two_terms,
    source=HISTORY,
)
def constant_in_the_total() -> Case:
    return two_terms(
        total=lambda terms: terms["main"] + 0.5  # planted: constant_in_the_total
    )


@fault(
    "G009",
    says="0.05 times auxiliary, which enters as a mere number",
    cause=("term-is-cut", "term-missing-in-total"),
    healthy=two_terms,
    source=HISTORY,
)
def term_enters_as_a_number() -> Case:
    return two_terms(
        total=lambda t: t["main"] + 0.05 * t["auxiliary"].item()  # planted: term_enters_as_a_number
    )


@fault(
    "G009",
    says="1 of 2 terms have one value whatever the weights",
    cause="term-is-cut",
    healthy=two_terms,
    source=HISTORY,
)
def term_of_the_labels_alone() -> Case:
    return two_terms(
        lambda R, R_true: R_true.abs().mean()  # planted: term_of_the_labels_alone
    )


FINITE: dict[str, Any] = {"cause": "gradient-not-finite", "source": TAMBON}


@fault("G010", says="with the exact truth the gradient of total", healthy=of_numbers, **FINITE)
def root_of_the_error() -> Case:
    return of_numbers(lambda p, y: F.mse_loss(p, y).sqrt())  # planted: root_of_the_error


@fault("G010", says="with the exact truth the gradient of total", healthy=of_numbers, **FINITE)
def root_of_the_error_without_truth() -> Case:
    return of_numbers(
        lambda p, y: (
            (p - y).square().sum(1).sqrt().mean()
        ),  # planted: root_of_the_error_without_truth
        truth=None,
    )


@fault("G010", says="with the exact truth total", healthy=of_classes, **FINITE)
def logarithm_of_what_is_left() -> Case:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        right, p = F.one_hot(y, 4), p.sigmoid()
        return -(
            right * p.log() + (1 - right) * (1 - p).log()
        ).mean()  # planted: logarithm_of_what_is_left

    return of_classes(loss)


@fault("G010", says="with zero output the gradient of", healthy=of_numbers, **FINITE)
def root_of_the_output() -> Case:
    return of_numbers(
        lambda p, y: (
            F.mse_loss(p, y) + 1e-3 * p.square().mean().sqrt()
        )  # planted: root_of_the_output
    )


@fault("G010", says="with the identity", healthy=of_matrices, **FINITE)
def eigenvectors_of_equal_eigenvalues() -> Case:
    def loss(R: Tensor, R_true: Tensor) -> Tensor:
        vectors = torch.linalg.eigh(R)[1]
        largest: Tensor = vectors[..., -1]  # planted: eigenvectors_of_equal_eigenvalues
        return energy(R, R_true) + (largest.abs() ** 4).mean()

    return of_matrices(loss)


@fault("G010", says="the gradient of term cov", healthy=small, **FINITE)
def root_in_a_term_of_the_reference() -> Case:
    return loss_with(
        lambda value: value._replace(
            total=value.cov.sqrt()
            + 0.05 * value.cov_pred,  # planted: root_in_a_term_of_the_reference
            cov=value.cov.sqrt(),
        )
    )


def smoothed() -> Case:
    """Healthy: the perfect output has a loss of its own, and the author says which."""
    return replace(
        of_classes(lambda p, y: F.cross_entropy(p, y, label_smoothing=0.1)),
        oracle=lambda batch: torch.where(F.one_hot(batch[1], 4) > 0, 0.925, 0.025).log(),
        declared=Declared(floor=0.3488),
    )
