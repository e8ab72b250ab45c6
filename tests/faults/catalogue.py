"""The planted faults: what is changed, which checks must fire, what the report must say."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from model.case import Reference, as_losses, criterion_losses
from model.estimators import oas, trace_normalised
from model.loss import DualLoss, DualLossValue, LossWeights
from model.network import eigenbasis
from model.nmse import nmse
from model.scene import Scenes
from ris_diag import Case, Covariance, Losses, Plan, Progress
from tests.faults.healthy import SMALL, small
from tests.faults.loop import Loop, dual_loss, loop, with_total
from tests.faults.metrics import WRONG, frobenius_nmse, note_formula
from tests.faults.registry import FAULTS, HERE, TAXONOMY, TRAINCHECK, Fault, fault


def with_covariance(**parts: Any) -> Case:
    case = small()
    assert isinstance(case.covariance, Covariance)
    return replace(case, covariance=replace(case.covariance, **parts))


def with_loop(faulty: Loop) -> Case:
    return replace(small(), fit=faulty, paths={"plain": faulty})


def loss_with(change: Callable[[DualLossValue], DualLossValue]) -> Case:
    """The case whose training loss is changed, in its loop and in what it shows."""

    def changed(
        criterion: DualLoss, model: nn.Module, scenes: Scenes, beta: float
    ) -> DualLossValue:
        return change(dual_loss(criterion, model, scenes, beta))

    def loss(model: nn.Module, batch: Scenes, progress: Progress) -> Losses:
        beta = SMALL.train.schedule.beta(progress.epoch, progress.epochs)
        criterion = DualLoss(LossWeights()).train(model.training)
        return as_losses(changed(criterion, model, batch, beta))

    return replace(with_loop(loop(loss=changed)), loss=loss)


def looped() -> Case:
    return with_loop(loop())


def two_paths() -> Case:
    return replace(small(), paths={"plain": loop(), "curriculum": SMALL.fit_curriculum})


def late_path() -> Case:
    return replace(small(), paths={"plain": SMALL.fit, "late": loop()})


def faster_fit(model: nn.Module, plan: Plan) -> Any:
    return replace(SMALL, train=replace(SMALL.train, learning_rate=0.3)).fit(model, plan)


def faster() -> Case:
    return replace(small(), fit=faster_fit, paths={"plain": faster_fit})


def fewer_scenes() -> Case:
    return replace(SMALL, train_scenes=256).case()


def batches_with(change: Callable[[Scenes], Scenes]) -> Case:
    return replace(small(), batch=lambda split, seed, size: change(SMALL.batch(split, seed, size)))


def right_metric() -> Case:
    return Case(name="frobenius_nmse", distance=frobenius_nmse)


# ---- metrics: every law that a wrong metric breaks

for metric, broken in WRONG.items():
    FAULTS.append(
        Fault(
            name=f"metric_{metric.__name__}",
            fires=tuple(broken),
            says=next(iter(broken.values())),
            plant=partial(Case, name=metric.__name__, distance=metric),
            cause=("metric-breaks-a-law",),
            healthy=right_metric,
            source="S2" if metric in (note_formula, nmse) else "B3",
            within=(metric,),
        )
    )


# ---- weights


@fault(
    "G001",
    "L004",
    "L005",
    says="cov: 0",
    cause="loss-weight-not-in-effect",
    place=(HERE, "cov"),
    healthy=looped,
    within=(loss_with, Loop),
    source="B1",
)
def main_weight_never_arrives() -> Case:
    # planted: main_weight_never_arrives
    return loss_with(lambda value: with_total(value, main=0.0))


@fault(
    "L004",
    "L005",
    "G001",
    says="0.05 * cov_pred",
    cause="loss-weight-not-in-effect",
    place=(HERE, "cov_pred"),
    healthy=looped,
    within=(loss_with, Loop),
    source="B1",
)
def auxiliary_weight_never_arrives() -> Case:
    # planted: auxiliary_weight_never_arrives
    return loss_with(lambda value: with_total(value, auxiliary=0.0))


@fault(
    "G001",
    says="cov: 1000",
    cause="loss-weight-out-of-range",
    place=(HERE, "cov"),
    healthy=looped,
    within=(loss_with, Loop),
    source="S4",
)
def weight_out_of_range() -> Case:
    # planted: weight_out_of_range
    return loss_with(lambda value: with_total(value, main=1000.0))


@fault(
    "L005",
    says="path plain",
    cause="loss-weight-not-in-effect",
    place=(HERE, "plain", "cov"),
    healthy=two_paths,
    within=(Loop,),
    source="S10",
)
def weight_missing_without_curriculum() -> Case:
    def unweighted(
        criterion: DualLoss, model: nn.Module, scenes: Scenes, beta: float
    ) -> DualLossValue:
        # planted: weight_missing_without_curriculum
        return with_total(dual_loss(criterion, model, scenes, beta), main=0.1)

    return replace(
        small(), paths={"plain": loop(loss=unweighted), "curriculum": SMALL.fit_curriculum}
    )


@fault(
    "L005",
    says="differentiated",
    cause="shows-another-loss",
    healthy=looped,
    within=(Loop,),
    source="S9",
)
def shows_another_loss_than_it_trains_on() -> Case:
    def frozen_copy(value: DualLossValue) -> Losses:
        # planted: shows_another_loss_than_it_trains_on
        return as_losses(with_total(value, main=2.0))

    return with_loop(loop(show=frozen_copy))


@fault("G002", says="accepted", cause="guard-missing", healthy=small, source="S4")
def criterion_takes_any_weight() -> Case:
    def criterion(weights: dict[str, float]) -> DualLoss:
        module = DualLoss(LossWeights())
        # planted: criterion_takes_any_weight
        object.__setattr__(module.weights, "lam_cov", weights["cov"])
        return module

    return with_covariance(criterion=criterion)


@fault("G002", says="python -O", cause="guard-missing", healthy=small, source="S4")
def criterion_guards_by_assert() -> Case:
    def criterion(weights: dict[str, float]) -> DualLoss:
        # planted: criterion_guards_by_assert
        assert 0 < weights["cov"] < 100
        return DualLoss(LossWeights(lam_cov=weights["cov"], lam_cov_pred=weights["cov_pred"]))

    return with_covariance(criterion=criterion)


# ---- blend


@fault("G003", says="R_samp [1,4,4]", cause="guard-missing", healthy=small, source="S4")
def blend_broadcasts() -> Case:
    # planted: blend_broadcasts
    return with_covariance(blend=lambda R_pred, R_samp, beta: (1 - beta) * R_pred + beta * R_samp)


@fault(
    "L002",
    says="step 2: 0.000, declared 0.075",
    cause="schedule-not-as-declared",
    healthy=looped,
    within=(Loop,),
    source="S1",
)
def warmup_is_stuck() -> Case:
    # planted: warmup_is_stuck
    return with_loop(loop(schedule=lambda epoch, epochs: 0.0))


@fault(
    "L002",
    says="step 1: 0.060, declared 0.000",
    cause="schedule-not-as-declared",
    healthy=looped,
    within=(Loop,),
    source="S1",
)
def warmup_off_by_one() -> Case:
    def early(epoch: int, epochs: int) -> float:
        # planted: warmup_off_by_one
        return 0.3 * min(1.0, epoch / max(2, int(0.2 * epochs)))

    return with_loop(loop(schedule=early))


@fault(
    "L002",
    says="the schedule of inference differs",
    cause="schedule-not-as-declared",
    healthy=small,
    source="S1",
)
def inference_has_another_schedule() -> Case:
    # planted: inference_has_another_schedule
    return with_covariance(beta=lambda epoch, epochs: 0.3)


@fault(
    "L002",
    says="path late: beta in effect leaves its schedule in 5 of 10 epochs (epoch 6: 0.000",
    cause="schedule-not-as-declared",
    place=(HERE, "late"),
    healthy=late_path,
    within=(Loop,),
    source="S1",
)
def beta_falls_back_behind_the_warmup() -> Case:
    def falls_back(epoch: int, epochs: int) -> float:
        # planted: beta_falls_back_behind_the_warmup
        return 0.0 if epoch > 5 else SMALL.train.schedule.beta(epoch, epochs)

    return replace(small(), paths={"plain": SMALL.fit, "late": loop(schedule=falls_back)})


@fault(
    "L006",
    says="at beta = 1 the weight of cov_pred is 0.05, at least 0.2 is needed",
    cause="no-gradient-at-large-beta",
    healthy=small,
    source="S5",
)
def beta_one_without_safety() -> Case:
    class Unsafe(LossWeights):
        def auxiliary(self, beta: float) -> float:
            # planted: beta_one_without_safety
            return self.lam_cov_pred

    def criterion(weights: dict[str, float]) -> DualLoss:
        return DualLoss(Unsafe(lam_cov=weights["cov"], lam_cov_pred=weights["cov_pred"]))

    return with_covariance(criterion=criterion)


@fault(
    "L007",
    says="relative difference",
    cause="inference-differs-from-training",
    healthy=small,
    source="S11",
)
def inference_leaves_the_blend_out() -> Case:
    # planted: inference_leaves_the_blend_out
    return with_covariance(infer=lambda model, batch, beta: model(batch.X))


@fault(
    "L007",
    says="relative difference",
    cause="inference-differs-from-training",
    healthy=small,
    source="S11",
)
def inference_symmetrises_another_way() -> Case:
    def infer(model: nn.Module, batch: Scenes, beta: float) -> Tensor:
        R_blend = (1 - beta) * model(batch.X) + beta * batch.R_samp
        # planted: inference_symmetrises_another_way
        symmetric: Tensor = (R_blend + R_blend.mT) / 2
        return symmetric

    return with_covariance(infer=infer)


# ---- gradient


@fault(
    "G004",
    says="detached R_pred while training: accepted",
    cause="guard-missing",
    healthy=small,
    source="S4",
)
def criterion_takes_detached_prediction() -> Case:
    class Careless(DualLoss):
        def forward(
            self, R_pred: Tensor, R_samp: Tensor, R_true: Tensor, beta: float
        ) -> DualLossValue:
            # planted: criterion_takes_detached_prediction
            training, self.training = self.training, False
            try:
                return super().forward(R_pred, R_samp, R_true, beta)
            finally:
                self.training = training

    return with_covariance(criterion=lambda weights: Careless(LossWeights()))


@fault(
    "G004",
    says="eval mode: refused",
    cause=("guard-missing", "code-raises"),
    healthy=small,
    source="S4",
)
def criterion_refuses_validation_too() -> Case:
    def loss(
        criterion: nn.Module, R_pred: Tensor, R_samp: Tensor, R_true: Tensor, beta: float
    ) -> Losses:
        if not R_pred.requires_grad:
            # planted: criterion_refuses_validation_too
            raise RuntimeError("no gradient")
        return criterion_losses(criterion, R_pred, R_samp, R_true, beta)

    return with_covariance(loss=loss)


@fault(
    "L003",
    "G004",
    says="term cov: 12 of 12 parameters get no gradient",
    cause="term-is-cut",
    place=(HERE, "cov"),
    healthy=looped,
    within=(loss_with, Loop),
    source="S12",
)
def blend_is_detached() -> Case:
    def detached(value: DualLossValue) -> DualLossValue:
        # planted: blend_is_detached
        return with_total(value._replace(cov=value.cov.detach(), R_blend=value.R_blend.detach()))

    return loss_with(detached)


@fault(
    "L029",
    "L006",
    says="beta=1: 0.0e+00 of it, 12 of 12 parameters without",
    cause="no-gradient-at-large-beta",
    healthy=small,
    source="S5",
)
def nothing_is_left_at_large_beta() -> Case:
    def loss(
        criterion: nn.Module, R_pred: Tensor, R_samp: Tensor, R_true: Tensor, beta: float
    ) -> Losses:
        losses = criterion_losses(criterion, R_pred, R_samp, R_true, beta)
        # planted: nothing_is_left_at_large_beta
        return replace(losses, total=(1 - beta) * losses.total)

    return with_covariance(loss=loss)


@fault(
    "L003",
    says="term cov_pred: 12 of 12 parameters get no gradient",
    cause="term-is-cut",
    place=(HERE, "cov_pred"),
    healthy=looped,
    within=(loss_with, Loop),
    source="S12",
)
def auxiliary_term_is_detached() -> Case:
    # planted: auxiliary_term_is_detached
    return loss_with(lambda value: with_total(value._replace(cov_pred=value.cov_pred.detach())))


@fault(
    "L001",
    "L003",
    "G004",
    says="require(s) no gradient while training",
    cause="graph-is-cut",
    healthy=looped,
    source="S4",
)
def prediction_under_no_grad() -> Case:
    def cut(criterion: DualLoss, model: nn.Module, scenes: Scenes, beta: float) -> DualLossValue:
        # planted: prediction_under_no_grad
        with torch.no_grad():
            R_pred = model(scenes.X)
        value: DualLossValue = criterion(R_pred, scenes.R_samp, scenes.R_true, beta)
        return value

    def loss(model: nn.Module, batch: Scenes, progress: Progress) -> Losses:
        return as_losses(cut(DualLoss(LossWeights()).train(model.training), model, batch, 0.0))

    return replace(with_loop(loop(loss=cut)), loss=loss)


@fault(
    "L001",
    "O001",
    "O002",
    "O003",
    says="it fell by 0.0%",
    cause="learning-rate-zero",
    healthy=looped,
    within=(Loop,),
    source=TAXONOMY,
)
def learning_rate_of_zero() -> Case:
    # planted: learning_rate_of_zero
    return with_loop(loop(learning_rate=0.0))


@fault(
    "L001",
    "O001",
    "O002",
    says="it fell by 0.0%",
    cause="parameters-not-in-optimiser",
    healthy=looped,
    within=(Loop,),
    source=TRAINCHECK,
)
def optimizer_holds_another_model() -> Case:
    # planted: optimizer_holds_another_model
    return with_loop(loop(optimised=lambda model: SMALL.model()))


@fault(
    "L001",
    says="NMSE(R_pred) did not fall",
    cause=("metric-of-other-weights", "inference-differs-from-training"),
    healthy=small,
    source="B7",
)
def prediction_comes_from_a_stale_copy() -> Case:
    stale = SMALL.model()
    # planted: prediction_comes_from_a_stale_copy
    return with_covariance(predict=lambda model, batch: stale(batch.X))


# ---- loop


@fault(
    "L008",
    says="is not above 0",
    cause="reported-loss-wrong",
    healthy=looped,
    within=(Loop,),
    source="S13",
)
def reported_loss_is_zero() -> Case:
    # planted: reported_loss_is_zero
    return with_loop(loop(report=lambda losses: 0.0))


@fault(
    "L008",
    says="are not the mean of the losses seen",
    cause="reported-loss-wrong",
    healthy=looped,
    within=(Loop,),
    source="S13",
)
def reported_loss_is_the_last_batch() -> Case:
    # planted: reported_loss_is_the_last_batch
    return with_loop(loop(report=lambda losses: losses[-1]))


@fault(
    "L009",
    says="4 optimiser steps for 12 batches",
    cause="steps-missing",
    healthy=looped,
    within=(Loop,),
    source="B1",
)
def one_step_an_epoch() -> Case:
    # planted: one_step_an_epoch
    return with_loop(loop(step_every_batch=False))


@fault(
    "L010",
    says="were printed instead of logged",
    cause="log-lines-missing",
    healthy=looped,
    within=(Loop,),
    source="S9",
)
def prints_instead_of_logging() -> Case:
    # planted: prints_instead_of_logging
    return with_loop(loop(say=print))


@fault(
    "L010",
    says="[Beta Warmup] Annealing beta from 0.00 -> 0.30 over 2 epochs",
    cause="log-lines-missing",
    healthy=looped,
    within=(Loop,),
    source="S9",
)
def logs_nothing() -> Case:
    # planted: logs_nothing
    return with_loop(loop(say=lambda line: None))


# ---- metric and data


@fault(
    "G005",
    says="the same at scale 1e-08",
    cause=("absolute-constant", "metric-breaks-a-law"),
    healthy=small,
    source="S2",
)
def absolute_epsilon() -> Case:
    def distance(estimate: Tensor, truth: Tensor) -> Tensor:
        eye = torch.eye(truth.shape[-1])
        error, energy = (estimate - truth).abs() ** 2, truth.abs() ** 2
        # planted: absolute_epsilon
        diag = (error * eye).sum((1, 2)) / ((energy * eye).sum((1, 2)) + 1e-12)
        off = (error * (1 - eye)).sum((1, 2)) / ((energy * (1 - eye)).sum((1, 2)) + 1e-12)
        return 0.2 * diag + 0.8 * off

    return replace(small(), distance=distance)


@fault("G005", says="the formula", cause="metric-breaks-a-law", healthy=small, source="S2")
def norms_not_squared() -> Case:
    # planted: norms_not_squared
    return replace(small(), distance=lambda estimate, truth: nmse(estimate, truth).sqrt())


@fault("G005", says="the formula", cause="metric-breaks-a-law", healthy=small, source="S2")
def batch_folded_into_the_norm() -> Case:
    return replace(
        # planted: batch_folded_into_the_norm
        small(),
        distance=lambda estimate, truth: nmse(estimate, truth).mean().expand(len(truth)),
    )


@fault(
    "G005",
    says="finite for a diagonal truth",
    cause=("metric-breaks-a-law", "operation-not-finite"),
    healthy=small,
    source="S2",
)
def not_finite_for_a_diagonal_truth() -> Case:
    def distance(estimate: Tensor, truth: Tensor) -> Tensor:
        off = ~torch.eye(truth.shape[-1], dtype=torch.bool)
        error, energy = (estimate - truth).abs() ** 2, truth.abs() ** 2
        # planted: not_finite_for_a_diagonal_truth
        part = [(error * m).sum((1, 2)) / (energy * m).sum((1, 2)) for m in (~off, off)]
        return 0.2 * part[0] + 0.8 * part[1]

    return replace(small(), distance=distance)


def _in_one_scene(change: Callable[[Tensor], Tensor]) -> Callable[[Scenes], Scenes]:
    def apply(scenes: Scenes) -> Scenes:
        R_true = scenes.R_true.clone()
        R_true[-1] = change(R_true[-1])
        return scenes._replace(R_true=R_true)

    return apply


@fault(
    "G006",
    says="NaN or Inf in the truth in 1 of 64 samples (index 63)",
    cause="nan-in-data",
    place=(HERE, "truth"),
    healthy=small,
    within=(batches_with, _in_one_scene),
    source="B4",
)
def one_scene_is_nan() -> Case:
    # planted: one_scene_is_nan
    return batches_with(_in_one_scene(lambda R: R * float("nan")))


@fault(
    "G006",
    says="the truth is zero in 1 of 64 samples",
    cause="not-a-covariance",
    place=(HERE, "truth"),
    healthy=small,
    within=(batches_with, _in_one_scene),
    source="B4",
)
def one_truth_is_zero() -> Case:
    # planted: one_truth_is_zero
    return batches_with(_in_one_scene(torch.zeros_like))


@fault(
    "G006",
    says="the truth is not Hermitian",
    cause="not-a-covariance",
    place=(HERE, "truth"),
    healthy=small,
    within=(batches_with, _in_one_scene),
    source="B3",
)
def one_truth_is_half_filled() -> Case:
    # planted: one_truth_is_half_filled
    return batches_with(_in_one_scene(torch.triu))


@fault(
    "G006",
    says="the truth has negative eigenvalues",
    cause="not-a-covariance",
    place=(HERE, "truth"),
    healthy=small,
    within=(batches_with, _in_one_scene),
    source="B3",
)
def one_truth_is_indefinite() -> Case:
    # planted: one_truth_is_indefinite
    return batches_with(_in_one_scene(lambda R: R - 2 * torch.eye(len(R))))


# ---- capacity and worth


class ShrinkOnly(nn.Module):
    """Two parameters: a shrinkage intensity and a power. Learns, can't memorise."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor([3.0, 0.0]))

    def forward(self, X: Tensor) -> Tensor:
        intensity = torch.sigmoid(self.raw[0])
        N = X.shape[1]
        U, values = eigenbasis(X, min(X.shape[1:]))
        R_samp = (U * values[:, None]) @ U.mH
        shrunk = (1 - intensity) * R_samp + intensity * torch.eye(N, device=X.device)
        scaled: Tensor = shrunk * torch.exp(self.raw[1])
        return scaled


@fault(
    "O001",
    "O003",
    says="it learns, but can't represent them",
    cause="capacity-too-small",
    healthy=small,
    within=(ShrinkOnly,),
    source="B6",
)
def network_lacks_capacity() -> Case:
    return replace(faster(), model=ShrinkOnly)  # planted: network_lacks_capacity


@fault(
    "O001",
    says="the loss of the truth itself is",
    cause="target-changed-in-loss",
    healthy=small,
    source="B2",
)
def loss_of_the_truth_is_not_zero() -> Case:
    def loss(
        criterion: nn.Module, R_pred: Tensor, R_samp: Tensor, R_true: Tensor, beta: float
    ) -> Losses:
        # planted: loss_of_the_truth_is_not_zero
        return criterion_losses(criterion, R_pred, R_samp, R_true.conj(), beta)

    return with_covariance(loss=loss)


@fault(
    "O002",
    "O003",
    says="on fresh scenes went from",
    cause="labels-of-other-samples",
    place=(HERE, "train"),
    healthy=fewer_scenes,
    source="B4",
)
def labels_belong_to_other_scenes() -> Case:
    @dataclass(frozen=True, kw_only=True)
    class Shuffled(Reference):
        def batch(self, split: str, seed: int, size: int) -> Scenes:
            scenes = super().batch(split, seed, size)
            # planted: labels_belong_to_other_scenes
            wrong = scenes.R_true.roll(1, 0) if split == "train" else scenes.R_true
            return scenes._replace(R_true=wrong)

    return Shuffled(scenes=SMALL.scenes, train_scenes=256).case()


@fault(
    "O003",
    says="it has learnt nothing worth a search",
    cause="learnt-nothing-new",
    healthy=small,
    source="B6",
)
def network_is_the_classical_estimator() -> Case:
    """A network whose one weight moves, around the best classical estimate."""

    class Classical(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # planted: network_is_the_classical_estimator
            self.gain = nn.Parameter(torch.tensor(0.5))

        def forward(self, X: Tensor) -> Tensor:
            return trace_normalised(oas(X)) * self.gain

    return replace(small(), model=Classical)
