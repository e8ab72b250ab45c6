"""Faults in the optimiser and in the configuration."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from ris_diag import Case, Declared, Losses, Progress, Training
from tests.faults.registry import DEEPCRIME, OVERFLOW, SILENT, TAXONOMY, TRAINCHECK, fault
from tests.faults.zoo_grounds import (
    Pair,
    four_classes,
    next_token,
    plain_regression,
    stripes,
    three_tags,
    two_tasks,
    yes_or_no,
)
from tests.faults.zoo_loops import (
    MSE,
    clipped_lstm,
)
from tests.faults.zoo_parts import LanguageModel, healthy, loader_of, mlp, regression

Optimizer = torch.optim.Optimizer
Adam, AdamW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD


def optimised(ground: Callable[[], Case], optimizer: Callable[[nn.Module], Any]) -> Case:
    return replace(ground(), optimizer=optimizer)


def undeclared(ground: Callable[[], Case], optimizer: Callable[[nn.Module], Any]) -> Case:
    return replace(ground(), optimizer=optimizer, declared=None)


# ---- rates


@fault(cause="learning-rate-too-small", healthy=four_classes, source=f"{DEEPCRIME}, HLR")
def rate_of_a_millionth_with_adam() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return Adam(model.parameters(), lr=1e-6)  # planted: rate_of_a_millionth_with_adam

    return optimised(four_classes, optimizer)


@fault(
    "L041",
    says="with learning rates 100000 times as large",
    cause="learning-rate-too-small",
    healthy=plain_regression,
    source=f"{DEEPCRIME}, HLR",
)
def rate_of_a_millionth_with_sgd() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        # planted: rate_of_a_millionth_with_sgd
        return SGD(model.parameters(), lr=1e-6, momentum=0.9)

    return undeclared(plain_regression, optimizer)


@fault(cause="learning-rate-too-large", healthy=stripes, source=f"{DEEPCRIME}, HLR")
def rate_of_three_with_adam() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return Adam(model.parameters(), lr=3.0)  # planted: rate_of_three_with_adam

    return optimised(stripes, optimizer)


@fault(cause="learning-rate-too-large", healthy=plain_regression, source=f"{DEEPCRIME}, HLR")
def rate_of_two_with_momentum() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return SGD(model.parameters(), lr=2.0, momentum=0.9)  # planted: rate_of_two_with_momentum

    return undeclared(plain_regression, optimizer)


@fault(cause="learning-rate-zero", healthy=yes_or_no, source=TAXONOMY)
def warm_up_in_whole_numbers() -> Case:
    def scheduler(optimizer: Optimizer) -> Any:
        # planted: warm_up_in_whole_numbers
        return LambdaLR(optimizer, lambda epoch: (epoch + 1) // 1000)

    return replace(yes_or_no(), scheduler=scheduler)


# ---- settings


@fault(
    "L036",
    says="betas=(0.999, 0.9), usual is",
    cause="optimiser-setting-odd",
    healthy=four_classes,
    source=OVERFLOW,
)
def betas_are_swapped() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return Adam(model.parameters(), lr=5e-3, betas=(0.999, 0.9))  # planted: betas_are_swapped

    return optimised(four_classes, optimizer)


@fault(cause="optimiser-setting-odd", healthy=stripes, source=OVERFLOW)
def eps_of_one() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return Adam(model.parameters(), lr=2e-3, eps=1.0)  # planted: eps_of_one

    return optimised(stripes, optimizer)


@fault(cause="optimiser-setting-odd", healthy=three_tags, source=f"{DEEPCRIME}, OCH")
def momentum_of_999_thousandths() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        # planted: momentum_of_999_thousandths
        return SGD(model.parameters(), lr=0.3, momentum=0.999)

    return optimised(three_tags, optimizer)


@fault(cause="weight-decay-too-strong", healthy=plain_regression, source=f"{DEEPCRIME}, RAW")
def decay_of_ten() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        # planted: decay_of_ten
        return SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=10.0)

    return undeclared(plain_regression, optimizer)


@fault(
    cause=("optimiser-does-nothing", "weights-put-back"), healthy=four_classes, source=TRAINCHECK
)
def slow_weights_never_follow() -> Case:
    class Lookahead(torch.optim.Adam):
        """Interpolates from the weights in front of the step to those behind it."""

        share = 0.0

        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # returns nothing
            held = [p.detach().clone() for g in self.param_groups for p in g["params"]]
            super().step(closure)
            fast = [p for g in self.param_groups for p in g["params"]]
            with torch.no_grad():
                for slow, parameter in zip(held, fast, strict=True):
                    # planted: slow_weights_never_follow
                    parameter.copy_(slow.lerp(parameter, self.share))

    return optimised(four_classes, lambda model: Lookahead(model.parameters(), lr=5e-3))


@fault(cause="parameters-not-in-optimiser", healthy=three_tags, source=OVERFLOW)
def optimiser_of_copies() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        # planted: optimiser_of_copies
        parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
        return SGD(parameters, lr=0.3, momentum=0.9)

    return optimised(three_tags, optimizer)


@fault(cause="parameters-held-twice", healthy=plain_regression, source=TRAINCHECK)
def a_second_optimiser_of_the_same() -> Case:
    def optimizer(model: nn.Module) -> list[Optimizer]:
        return [
            SGD(model.parameters(), lr=0.02, momentum=0.9),
            # planted: a_second_optimiser_of_the_same
            SGD(model.parameters(), lr=0.02, momentum=0.9),
        ]

    return optimised(plain_regression, optimizer)


# ---- what is declared


@fault(cause="learning-rate-not-as-declared", healthy=plain_regression, source=TAXONOMY)
def decay_passed_as_the_rate() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        weight_decay = 1e-3
        # planted: decay_passed_as_the_rate
        return SGD(model.parameters(), weight_decay, momentum=0.9)

    return optimised(plain_regression, optimizer)


@fault(cause="learning-rate-not-as-declared", healthy=clipped_lstm, source="B1")
def rate_is_overwritten_in_the_step() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        for group in training.optimizer.param_groups:
            group["lr"] = 0.01  # planted: rate_is_overwritten_in_the_step
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step()
        return float(loss.item())

    return replace(clipped_lstm(), step=step)


@fault(
    cause="optimiser-setting-not-as-declared",
    place=("here", "momentum"),
    healthy=plain_regression,
    source=TAXONOMY,
)
def momentum_is_not_passed() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return SGD(model.parameters(), lr=0.02)  # planted: momentum_is_not_passed

    return optimised(plain_regression, optimizer)


@healthy
def decaying_classes() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)

    declared = Declared(optimizer={"weight_decay": 0.1, "betas": (0.9, 0.999)}, frozen=["0.*"])
    case = replace(four_classes(), name="decaying_classes", declared=declared)

    def model() -> nn.Module:
        network = mlp(8, 32, 4)
        network[0].requires_grad_(False)
        return network

    return replace(case, model=model, optimizer=optimizer)


@fault(
    cause="optimiser-setting-not-as-declared",
    place=("here", "weight_decay"),
    healthy=decaying_classes,
    source=TAXONOMY,
)
def decay_is_left_at_its_default() -> Case:
    def optimizer(model: nn.Module) -> Optimizer:
        return AdamW(model.parameters(), lr=5e-3)  # planted: decay_is_left_at_its_default

    return optimised(decaying_classes, optimizer)


@fault(
    cause="frozen-not-as-declared",
    place=("here", "0.weight", "0.bias"),
    healthy=decaying_classes,
    source=TAXONOMY,
)
def backbone_is_not_frozen() -> Case:
    # planted: backbone_is_not_frozen
    return replace(decaying_classes(), model=lambda: mlp(8, 32, 4))


@fault(
    cause=("clipping-not-as-declared", "clipped-to-nothing"),
    healthy=clipped_lstm,
    source=f"{DEEPCRIME}, OCG",
)
def clips_to_another_norm() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()
        # planted: clips_to_another_norm
        nn.utils.clip_grad_value_(training.model.parameters(), 1.0)
        training.optimizer.step()
        return float(loss.item())

    return replace(clipped_lstm(), step=step)


@fault(cause="clipping-not-as-declared", healthy=clipped_lstm, source=f"{DEEPCRIME}, OCG")
def clipping_is_left_out() -> Case:
    def step(training: Training, batch: Pair, progress: Progress) -> float:
        x, y = batch
        loss = MSE(training.model(x), y)
        training.optimizer.zero_grad()
        loss.backward()  # planted: clipping_is_left_out
        training.optimizer.step()
        return float(loss.item())

    return replace(clipped_lstm(), step=step)


@fault(cause="batch-size-not-as-declared", healthy=plain_regression, source=f"{DEEPCRIME}, HBS")
def loader_serves_four_samples() -> Case:
    # planted: loader_serves_four_samples
    return replace(plain_regression(), loader=loader_of(regression, size=4))


@fault(
    cause="ties-not-as-declared",
    place=("here", "head.weight", "embedding.weight"),
    healthy=next_token,
    source=SILENT,
)
def tie_copies_the_numbers() -> Case:
    class Copied(LanguageModel):
        def __init__(self) -> None:
            super().__init__(tied=False)
            # planted: tie_copies_the_numbers
            self.head.weight.data = self.embedding.weight.data.clone()

    return replace(next_token(), model=Copied)


@fault(cause="loss-weight-not-in-effect", place=("here", "kind"), healthy=two_tasks, source="B1")
def second_task_counts_in_full() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Losses:
        output = model(batch["x"])
        number = F.mse_loss(output["number"], batch["number"])
        kind = F.cross_entropy(output["kind"], batch["kind"])
        terms = {"number": number, "kind": kind}
        return Losses(total=number + kind, terms=terms)  # planted: second_task_counts_in_full

    return replace(two_tasks(), loss=loss)


@fault(
    cause=("loss-weight-out-of-range", "wrong-sign"),
    place=("here", "kind"),
    healthy=two_tasks,
    source="B1",
)
def second_task_has_a_negative_weight() -> Case:
    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Losses:
        output = model(batch["x"])
        number = F.mse_loss(output["number"], batch["number"])
        kind = F.cross_entropy(output["kind"], batch["kind"])
        terms = {"number": number, "kind": kind}
        # planted: second_task_has_a_negative_weight
        return Losses(total=number - 0.5 * kind, terms=terms)

    return replace(two_tasks(), loss=loss)
