"""Faults in the evaluation."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case
from tests.faults.registry import OVERFLOW, RECIPE, SILENT, SLIPS, TAXONOMY, fault
from tests.faults.zoo_grounds import Pair, four_classes, plain_regression, stripes
from tests.faults.zoo_parts import classes, generator, healthy, loader_of, mlp


def judged(ground: Callable[[], Case], metric: Any) -> Case:
    return replace(ground(), metric=metric)


@healthy
def judged_stripes() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        was = model.training
        model.eval()
        with torch.no_grad():
            loss = F.cross_entropy(model(x), y)
        model.train(was)
        return float(loss)

    return replace(stripes(), name="judged_stripes", metric=metric)


@fault(cause="metric-of-other-weights", healthy=four_classes, source="B7")
def metric_of_the_first_weights() -> Case:
    copies: list[nn.Module] = []

    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        if not copies:
            copies.append(copy.deepcopy(model))
        with torch.no_grad():
            logits = copies[0](x)  # planted: metric_of_the_first_weights
        return float((logits.argmax(1) != y).float().mean())

    return judged(four_classes, metric)


@fault(cause="metric-of-other-weights", healthy=plain_regression, source="B7")
def metric_is_remembered() -> Case:
    known: dict[float, float] = {}

    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        key = float(x.sum())
        if key not in known:  # planted: metric_is_remembered
            with torch.no_grad():
                known[key] = float((model(x) - y).abs().mean())
        return known[key]

    return judged(plain_regression, metric)


@fault(cause="metric-random", healthy=plain_regression, source="B7")
def metric_of_a_random_part() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        chosen = torch.randperm(len(x))[: len(x) // 4 + 1]  # planted: metric_of_a_random_part
        with torch.no_grad():
            return float((model(x[chosen]) - y[chosen]).abs().mean())

    return judged(plain_regression, metric)


@fault(cause="metric-depends-on-order", healthy=plain_regression, source="B7")
def metric_drops_the_last_samples() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        with torch.no_grad():
            errors = (model(x) - y).abs()
        whole = errors[: len(errors) // 4 * 4 - 4 or None]  # planted: metric_drops_the_last_samples
        return float(whole.mean())

    return judged(plain_regression, metric)


@fault(cause="metric-depends-on-order", healthy=judged_stripes, source=OVERFLOW)
def metric_of_the_last_part() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        with torch.no_grad():
            for part, label in zip(torch.split(x, 5), torch.split(y, 5), strict=True):
                loss = F.cross_entropy(model(part), label)  # planted: metric_of_the_last_part
        return float(loss)

    return judged(judged_stripes, metric)


@fault(cause="metric-in-train-mode", healthy=judged_stripes, source=SLIPS)
def metric_forgets_eval() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        model.train()  # planted: metric_forgets_eval
        with torch.no_grad():
            return float(F.cross_entropy(model(x), y))

    return judged(judged_stripes, metric)


@fault(cause="metric-changes-model", healthy=four_classes, source=TAXONOMY)
def metric_takes_a_step() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with torch.enable_grad():
            loss: Any = nn.CrossEntropyLoss()(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # planted: metric_takes_a_step
        return float((model(x).argmax(1) != y).float().mean())

    return judged(four_classes, metric)


@fault(cause="metric-changes-model", healthy=judged_stripes, source=SILENT)
def metric_rounds_the_weights() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        with torch.no_grad():
            # planted: metric_rounds_the_weights
            loss = F.cross_entropy(model.bfloat16()(x.bfloat16()).float(), y)
        model.float()
        return float(loss)

    return judged(judged_stripes, metric)


@fault(cause="metric-wrong-for-known-error", healthy=plain_regression, source="B3")
def errors_cancel_in_the_metric() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        with torch.no_grad():
            return float((model(x) - y).mean().abs())  # planted: errors_cancel_in_the_metric

    return judged(plain_regression, metric)


@fault(
    cause=("metric-wrong-for-known-error", "metric-depends-on-order"),
    healthy=four_classes,
    source=OVERFLOW,
)
def argmax_over_the_batch() -> Case:
    def metric(model: nn.Module, batch: Pair) -> float:
        x, y = batch
        with torch.no_grad():
            chosen = model(x).argmax(0)  # planted: argmax_over_the_batch
        return float((chosen[y] != y).float().mean())

    return judged(four_classes, metric)


@healthy
def judged_against_the_mean() -> Case:
    return replace(
        plain_regression(),
        name="judged_against_the_mean",
        baselines={"zero": lambda batch: float(batch[1].abs().mean())},
    )


@fault(
    cause=("input-ignored", "learnt-nothing-new"), healthy=judged_against_the_mean, source=RECIPE
)
def a_network_without_its_input() -> Case:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(8, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.network(x - x)  # planted: a_network_without_its_input
            return output

    return replace(judged_against_the_mean(), model=Constant)


# ---- labels of other samples in all splits


def noisy(split: str, seed: int, size: int) -> Pair:
    """Four classes, of which two labels in five are another."""
    x, y = classes(split, seed, size)
    source = generator(f"noise {split}", seed)
    other = torch.randint(4, (size,), generator=source)
    return x, torch.where(torch.rand(size, generator=source) < 0.4, other, y)


def missed(model: nn.Module, batch: Pair) -> float:
    x, y = batch
    with torch.no_grad():
        return float((model(x).argmax(1) != y).float().mean())


@healthy
def labels_of_which_many_are_wrong() -> Case:
    return replace(
        four_classes(),
        name="labels_of_which_many_are_wrong",
        batch=noisy,
        loader=loader_of(noisy, batches=8),
        truth=lambda batch: batch[1],
        metric=missed,
    )


@fault(
    "O004",
    says="all that was learnt is by heart",
    cause="labels-of-other-samples",
    healthy=labels_of_which_many_are_wrong,
    source=OVERFLOW,
)
def inputs_alone_are_permuted() -> Case:
    def permuted(split: str, seed: int, size: int) -> Pair:
        x, y = noisy(split, seed, 512)
        order = torch.randperm(512, generator=generator(f"order {split}", seed))
        return x[order][:size], y[:size]  # planted: inputs_alone_are_permuted

    served = loader_of(permuted, batches=8)
    return replace(labels_of_which_many_are_wrong(), batch=permuted, loader=served)
