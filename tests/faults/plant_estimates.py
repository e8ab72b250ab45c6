"""Faults in trainings that estimate covariances and channels."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ris_diag import Case, Epoch, Losses, Plan
from tests.faults.covariance_faults import FIELD, Batch, plain
from tests.faults.plant_loop import epoch_of, trained
from tests.faults.registry import SILENT, SLIPS, TAXONOMY, fault
from tests.faults.zoo_estimates import (
    Estimation,
    Factor,
    Waves,
    accumulated_blend,
    channels_in_planes,
    denoised,
    off,
    relative,
    with_trace,
)
from tests.faults.zoo_loops import epochs_of_images, validate

HISTORY = "the history behind the project (docs/design.md)"


def estimation() -> Case:
    return Estimation().case("estimation")


@fault(
    "L030",
    says="equal their transpose",
    cause="output-cannot-reach-labels",
    healthy=estimation,
    within=(Estimation, Factor),
    source=HISTORY,
)
def factor_times_its_transpose() -> Case:
    def build(L: Tensor) -> Tensor:
        return L @ L.mT  # planted: factor_times_its_transpose

    return Estimation(build=build).case("estimation")


@fault(
    "G012",
    says="term own has a gradient for the real part",
    cause="loss-ignores-predictions",
    healthy=estimation,
    within=(Estimation,),
    source=HISTORY,
)
def terms_of_real_parts() -> Case:
    def term(estimate: Tensor, truth: Tensor) -> Tensor:
        error = (estimate - truth).real.square()  # planted: terms_of_real_parts
        return error.sum((1, 2)) / truth.abs().square().sum((1, 2))

    return Estimation(term=term).case("estimation")


@fault(
    "G008",
    says="term own",
    cause="target-changed-in-loss",
    healthy=estimation,
    within=(Estimation, with_trace),
    source=HISTORY,
)
def estimate_scaled_and_truth_not() -> Case:
    def own(estimate: Tensor, truth: Tensor) -> Tensor:
        return relative(with_trace(estimate, 1.0), truth)  # planted: estimate_scaled_and_truth_not

    return Estimation(own=own).case("estimation")


@fault(
    "L002",
    says="declared 0.075",
    cause="schedule-not-as-declared",
    healthy=accumulated_blend,
    within=(Estimation,),
    source="S1",
)
def beta_stuck_while_accumulating() -> Case:
    class Stuck(Estimation):
        def losses(self, model: nn.Module, batch: Waves, beta: float) -> Losses:
            return super().losses(model, batch, 0.0)  # planted: beta_stuck_while_accumulating

    return Stuck(accumulation=2).case("accumulated_blend")


@fault(
    "L055",
    says="batch['noisy']",
    cause="metric-wrong-for-known-error",
    healthy=channels_in_planes,
    source=TAXONOMY,
)
def judged_against_the_input() -> Case:
    def metric(model: nn.Module, batch: Waves) -> Tensor:
        return off(model(batch), batch["noisy"])  # planted: judged_against_the_input

    return replace(channels_in_planes(), metric=metric)


@fault(
    "L030",
    says="lie outside of what sigmoid()",
    cause="output-cannot-reach-labels",
    healthy=channels_in_planes,
    within=(denoised,),
    source=SILENT,
)
def channels_behind_a_sigmoid() -> Case:
    def last(x: Tensor) -> Tensor:
        return torch.sigmoid(x)  # planted: channels_behind_a_sigmoid

    return denoised("channels_in_planes", last)


@fault(
    "L058",
    says="0 validation batches",
    cause="validates-on-training",
    healthy=epochs_of_images,
    source=SLIPS,
)
def validates_the_training_batches() -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        history = []
        for _ in range(plan.epochs):
            model.train()
            losses = [trained(model, optimizer, batch) for batch in plan.train]
            held = validate(model, plan.train)  # planted: validates_the_training_batches
            history.append(epoch_of(losses, held))
        return history

    return replace(epochs_of_images(), fit=fit)


@fault(
    "D012",
    says="permuted by itself",
    cause="labels-of-other-samples",
    healthy=plain,
    source=SILENT,
)
def truths_in_an_order_of_their_own() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(size))
        R_true = served.R_true[order]  # planted: truths_in_an_order_of_their_own
        return served._replace(R_true=R_true)

    return replace(plain(batch, snapshots=None, sources=None, positions=None), declared=None)
