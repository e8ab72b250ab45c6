"""Faults of numbers: what overflows, divides by zero, or is rounded away."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Progress
from tests.faults.registry import OVERFLOW, SILENT, TAXONOMY, fault
from tests.faults.zoo_grounds import Pair, plain_regression, three_tags, yes_or_no
from tests.faults.zoo_loops import mixed_precision
from tests.faults.zoo_parts import classes, generator, healthy, loader_of, mlp, regression


@fault(cause="operation-not-finite", healthy=yes_or_no, source=TAXONOMY)
def logarithm_of_zero() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        p = torch.sigmoid(50 * model(x).squeeze(1)).round()
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()  # planted: logarithm_of_zero

    return replace(yes_or_no(), loss=loss)


@healthy
def distances() -> Case:
    """Learns the distance of two projections; some pairs are one point."""

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
        source = generator(split, seed)
        a, b = torch.randn(2, size, 8, generator=source)
        b[0] = a[0]
        return a, b, (a - b)[:, :4].norm(dim=1)

    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        a, b, y = batch
        squares: Tensor = (model(a) - model(b)).square().sum(1)
        return F.mse_loss((squares + 1e-6).sqrt(), y)

    return Case(
        name="distances",
        model=lambda: mlp(8, 32, 4),
        batch=data,
        loss=loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=5e-3),
        loader=loader_of(data),
        predict=lambda model, batch: (model(batch[0]) - model(batch[1])).norm(dim=1),
        truth=lambda batch: batch[2],
    )


@fault(cause="gradient-not-finite", healthy=distances, source=SILENT)
def root_of_zero() -> Case:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        a, b, y = batch
        squares: Tensor = (model(a) - model(b)).square().sum(1)
        return F.mse_loss(squares.sqrt(), y)  # planted: root_of_zero

    return replace(distances(), loss=loss)


@fault(cause="gradient-not-finite", healthy=distances, source=SILENT)
def where_does_not_keep_the_gradient_finite() -> Case:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        a, b, y = batch
        squares: Tensor = (model(a) - model(b)).square().sum(1)
        # planted: where_does_not_keep_the_gradient_finite
        lengths = torch.where(squares > 0, squares.sqrt(), 0.0)
        return F.mse_loss(lengths, y)

    return replace(distances(), loss=loss)


@healthy
def directions() -> Case:
    """Learns a unit vector; a sample in sixteen has an empty input."""

    def data(split: str, seed: int, size: int) -> Pair:
        x = torch.randn(size, 8, generator=generator(split, seed))
        y = F.normalize(x[:, :3] - x[:, 3:6], dim=1)
        x[0], y[0] = 0.0, 0.0
        return x, y

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        unit = x / (x.norm(dim=1, keepdim=True) + 1e-3)
        return F.mse_loss(model(unit), y)

    return Case(
        name="directions",
        model=lambda: mlp(8, 32, 3),
        batch=data,
        loss=loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=5e-3),
        loader=loader_of(data),
    )


@fault(cause="operation-not-finite", healthy=directions, source=TAXONOMY)
def division_by_a_norm_of_zero() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        unit = x / x.norm(dim=1, keepdim=True)  # planted: division_by_a_norm_of_zero
        return F.mse_loss(model(unit), y)

    return replace(directions(), loss=loss)


@fault(cause="half-overflows", healthy=mixed_precision, source=SILENT)
def squares_overflow_in_half() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = (100 * (model(x) - y)).half()
        return error.square().sum().float() / 1e4 / len(x)  # planted: squares_overflow_in_half

    return replace(mixed_precision(), loss=loss)


def half_data(split: str, seed: int, size: int) -> Pair:
    x, y = classes(split, seed, size)
    return x.bfloat16(), y


def in_single(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x.to(next(model.parameters()).dtype)).float(), y)


@healthy
def small_rate_in_single() -> Case:
    return Case(
        name="small_rate_in_single",
        model=lambda: mlp(8, 32, 4),
        batch=half_data,
        loss=in_single,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=2e-4),
        loader=loader_of(half_data),
    )


@fault(cause="updates-lost-to-precision", healthy=small_rate_in_single, source=SILENT)
def weights_in_bfloat16() -> Case:
    def model() -> nn.Module:
        return mlp(8, 32, 4).bfloat16()  # planted: weights_in_bfloat16

    return replace(small_rate_in_single(), model=model)


@fault(cause="updates-lost-to-precision", healthy=plain_regression, source=SILENT)
def weights_in_half() -> Case:
    def model() -> nn.Module:
        return mlp(8, 32, 1).half()  # planted: weights_in_half

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x.half()).float(), y)

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e-4)

    return replace(
        plain_regression(),
        model=model,
        loss=loss,
        optimizer=optimizer,
        predict=lambda model, batch: model(batch[0].half()).float(),
        metric=None,
        declared=None,
    )


@fault(cause="loss-in-half-precision", healthy=mixed_precision, source=SILENT)
def loss_in_bfloat16() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
        return F.mse_loss(output, y.bfloat16())  # planted: loss_in_bfloat16

    return replace(mixed_precision(), loss=loss)


@fault(cause="loss-in-half-precision", healthy=three_tags, source=OVERFLOW)
def loss_in_float16() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        # planted: loss_in_float16
        return F.binary_cross_entropy_with_logits(model(x).half(), y.half())

    return replace(three_tags(), loss=loss)


@healthy
def relative_errors() -> Case:
    """Labels of very different size, compared by their relative error."""

    def data(split: str, seed: int, size: int) -> Pair:
        x, y = regression(split, seed, size)
        return x, 1e-5 * y.exp()

    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = 1e-5 * model(x).exp() - y
        return (error.square() / y.square()).clamp(max=100).mean()

    return Case(
        name="relative_errors",
        model=lambda: mlp(8, 32, 1),
        batch=data,
        loss=loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=3e-3),
        loader=loader_of(data),
        predict=lambda model, batch: 1e-5 * model(batch[0]).exp(),
        truth=lambda batch: batch[1],
    )


@fault(
    "G014",
    says="1 denominators are a constant in effect",
    cause="absolute-constant",
    healthy=relative_errors,
    source="B3",
)
def constant_larger_than_the_labels() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = 1e-5 * model(x).exp() - y
        # planted: constant_larger_than_the_labels
        return (error.square() / (y.square() + 1e-6)).mean()

    return replace(relative_errors(), loss=loss)
