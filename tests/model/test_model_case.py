import re
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

import ris_diag
from model.array import PlanarArray
from model.blend import BlendSchedule, blend
from model.case import Reference, reference
from model.estimators import oas
from model.network import CovarianceNet
from model.nmse import nmse
from model.scene import Scenes, SceneSettings
from model.train import TrainSettings
from ris_diag.check import all_checks
from ris_diag.covariance import CovarianceParts


@pytest.fixture
def small() -> Reference:
    return Reference(
        scenes=SceneSettings(array=PlanarArray(n_h=4, n_v=4)), train_scenes=24, batch_size=8
    )


@pytest.fixture
def case(small: Reference) -> ris_diag.Case:
    return small.case()


@pytest.fixture
def covariance(case: ris_diag.Case) -> CovarianceParts:
    assert case.covariance is not None
    return CovarianceParts(case.covariance)


def test_the_reference_offers_every_part_that_fits_it() -> None:
    case = reference()
    assert case.name == "ris-reference-12x12"
    # What is declared about checks is no part: nothing is known to fail.
    parts = {item.name for item in fields(case)} - {"expected_failures", "thresholds", "exempt"}
    # It has a loop, which stands for its pieces, and covariances, which stand for a plain metric.
    parts -= {"optimizer", "step", "scheduler", "main", "restore", "metric", "baselines"}
    parts -= {"oracle", "stored", "distributed"}
    assert {"model", "batch", "loss", "fit", "paths", "loader", "covariance"} <= parts
    assert not [part for part in parts if not case.offers(part)]
    inner = {f"covariance.{item.name}" for item in fields(ris_diag.Covariance)}
    inner -= {"covariance.sources", "covariance.positions"}  # scenes hold their truth alone
    assert "covariance.baselines" in inner
    assert not [part for part in inner if not case.offers(part)]
    assert not case.offers("expected_failures")
    assert not case.offers("thresholds")


def test_no_check_is_left_out_of_the_reference() -> None:
    case = reference()
    checks = [check for check in all_checks() if check.id not in case.exempt]
    # It trains in one process.
    needs = {part for check in checks if "ranks" not in check.needs for part in check.needs}
    assert needs
    assert not [part for part in needs if not case.offers(part)]


def test_models_are_fresh_and_drawn_from_the_global_random_state(case: Any) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model = case.model()
        assert isinstance(model, CovarianceNet)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_batches(case: Any) -> None:
    batch = case.batch("train", 3, 5)
    assert isinstance(batch, Scenes)
    assert batch.X.shape == (5, 16, 16)
    assert torch.equal(batch.X, case.batch("train", 3, 5).X)
    assert not torch.equal(batch.X, case.batch("validation", 3, 5).X)


def test_loader(case: Any) -> None:
    assert case.loader is not None
    first, again = (list(case.loader("train", 3)) for _ in range(2))
    assert [len(batch.X) for batch in first] == [8, 8, 8]
    assert all(torch.equal(a.X, b.X) for a, b in zip(first, again, strict=True))


def test_the_loss_is_that_of_the_loop(case: Any) -> None:
    model, batch = case.model(), case.batch("train", 0, 6)
    seen: list[ris_diag.Losses] = []
    assert case.fit is not None
    plan = ris_diag.Plan(epochs=2, train=[batch], on_step=lambda _, losses: seen.append(losses))
    alone = case.loss(model, batch, ris_diag.Progress(epoch=1, epochs=2))
    case.fit(model, plan)
    assert isinstance(alone, ris_diag.Losses)
    assert alone.total.requires_grad
    assert float(alone.total.detach()) == pytest.approx(float(seen[0].total.detach()), rel=1e-6)
    assert set(alone.terms) == set(seen[0].terms) == {"cov", "cov_pred"}
    assert case.declared is not None
    assert set(case.declared.weights) == set(alone.terms)
    weighted = sum(case.declared.weights[name] * alone.terms[name].item() for name in alone.terms)
    assert float(alone.total.detach()) == pytest.approx(weighted, rel=1e-5)


def test_the_loss_follows_the_progress(case: Any) -> None:
    model, batch = case.model(), case.batch("train", 0, 6)
    for epoch, beta in ((1, 0.0), (3, 0.12), (6, 0.30), (30, 0.30)):
        losses = case.loss(model, batch, ris_diag.Progress(epoch=epoch, epochs=30))
        assert isinstance(losses, ris_diag.Losses)
        assert losses.prediction is not None
        assert losses.blended is not None
        assert torch.allclose(losses.blended, blend(losses.prediction, batch.R_samp, beta))


def test_the_loss_in_eval_mode_needs_no_gradient(case: Any) -> None:
    model, batch = case.model(), case.batch("train", 0, 6)
    progress = ris_diag.Progress(epoch=1, epochs=30)
    model.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"^R_pred and R_blend require"):
        case.loss(model.train(), batch, progress)
    losses = case.loss(model.eval(), batch, progress)
    assert isinstance(losses, ris_diag.Losses)
    assert float(losses.total) > 0


@pytest.mark.parametrize("path", ["plain", "curriculum"])
def test_every_path_trains(case: Any, path: str) -> None:
    torch.manual_seed(0)
    model, batch = case.model(), case.batch("train", 0, 12)
    steps: list[tuple[int, int]] = []

    def note(epoch: int, losses: ris_diag.Losses) -> None:
        assert losses.prediction is not None
        steps.append((epoch, len(losses.prediction)))

    plan = ris_diag.Plan(epochs=10, train=[batch], validation=[batch], on_step=note)
    history = case.paths[path](model, plan)
    first = 6 if path == "curriculum" else 12
    assert steps == [(1, first), *((epoch, 12) for epoch in range(2, 11))]
    assert len(history) == 10
    assert all(isinstance(epoch, ris_diag.Epoch) for epoch in history)
    assert history[0].validation is not None
    assert history[-1].validation is not None
    assert history[-1].validation < history[0].validation


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_a_plan_can_hold_beta(case: Any, beta: float) -> None:
    batch = case.batch("train", 0, 4)
    distances = []

    def note(epoch: int, losses: ris_diag.Losses) -> None:
        assert losses.prediction is not None
        assert losses.blended is not None
        expected = blend(losses.prediction, batch.R_samp, beta)
        distances.append((losses.blended - expected).abs().max().item())

    assert case.fit is not None
    case.fit(case.model(), ris_diag.Plan(epochs=4, train=[batch], on_step=note, beta=beta))
    assert distances == pytest.approx([0.0] * 4, abs=1e-6)


def test_inference_hands_out_the_blend_that_training_uses(
    case: Any, covariance: CovarianceParts
) -> None:
    model, batch = case.model(), case.batch("test", 0, 4)
    R_pred = covariance.predict(model, batch)
    estimate = covariance.infer(model, batch, 0.3)
    assert R_pred.requires_grad
    assert not estimate.requires_grad
    expected = blend(R_pred.detach(), covariance.sample(batch), 0.3)
    assert torch.allclose(estimate, expected, atol=1e-6)
    assert covariance.blend is blend
    assert case.distance is nmse
    assert torch.equal(covariance.sample(batch), batch.R_samp)
    assert torch.equal(covariance.truth(batch), batch.R_true)


def test_baselines_are_covariances_and_beat_the_sample(
    case: Any, covariance: CovarianceParts
) -> None:
    batch = case.batch("test", 0, 100)
    sample = float(nmse(batch.R_samp, batch.R_true).mean())
    assert set(covariance.baselines) == {"OAS", "Ledoit-Wolf", "OAS, unit diagonal"}
    for estimate in covariance.baselines.values():
        R = estimate(batch)
        assert R.shape == batch.R_true.shape
        assert (R.diagonal(dim1=1, dim2=2).real.sum(1) - 16).abs().max() < 1e-3
        assert float(nmse(R, batch.R_true).mean()) < 0.9 * sample
    assert torch.equal(covariance.baselines["OAS"](batch), oas(batch.X))


def test_the_criterion_takes_the_weights_by_term(case: Any, covariance: CovarianceParts) -> None:
    batch = case.batch("train", 0, 4)
    R_pred = covariance.predict(case.model(), batch)
    criterion = covariance.criterion({"cov": 3.0, "cov_pred": 0.5})
    losses = covariance.loss(criterion, R_pred, batch.R_samp, batch.R_true, 0.3)
    expected = 3.0 * losses.terms["cov"] + 0.5 * losses.terms["cov_pred"]
    assert float(losses.total.detach()) == pytest.approx(float(expected.detach()))
    message = "lam_cov=0.0: admissible is 0 < lam_cov < 100"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        covariance.criterion({"cov": 0.0, "cov_pred": 0.5})


def test_what_is_declared_is_what_is_set(small: Reference) -> None:
    schedule = BlendSchedule(beta_start=0.1, beta_final=0.4, warmup_share=0.5, jitter=0.02)
    case = replace(small, train=TrainSettings(schedule=schedule)).case()
    assert case.declared == ris_diag.Declared(
        weights={"cov": 1.0, "cov_pred": 0.05},
        batch_size=small.batch_size,
        beta_start=0.1,
        beta_final=0.4,
        warmup_share=0.5,
        beta_jitter=0.02,
        trace=16.0,
    )
    assert case.covariance is not None
    assert case.covariance.beta is not None
    for epochs in (4, 7, 30):
        for epoch in range(1, epochs + 1):
            expected = case.declared.beta(epoch, epochs)
            assert case.covariance.beta(epoch, epochs) == pytest.approx(expected)


def test_double_precision_end_to_end(small: Reference) -> None:
    case: Any = replace(small, scenes=replace(small.scenes, dtype=torch.complex128)).case()
    batch = case.batch("train", 0, 4)
    losses = case.loss(case.model(), batch, ris_diag.Progress(epoch=1, epochs=30))
    assert isinstance(losses, ris_diag.Losses)
    assert losses.total.dtype == torch.float64
