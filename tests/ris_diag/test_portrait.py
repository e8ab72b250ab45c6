"""One scene for the figures of a report: small, plain, and true to the scene."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import ris_diag
from model.array import PlanarArray
from model.case import Reference
from model.scene import SceneSettings, located, simulate
from ris_diag.context import Subject
from ris_diag.portrait import FLOOR_DB, MAP, as_bytes, blocks, eigenvalues_db, portrait
from ris_diag.report.figures import magnitudes
from ris_diag.result import plain

SETTINGS = SceneSettings(array=PlanarArray(n_h=8, n_v=8), snr_db=(15.0, 20.0), snapshots=64)
REFERENCE = Reference(scenes=SETTINGS)


def seen(case: ris_diag.Case, seed: int = 3) -> dict[str, object]:
    subject = Subject(case, torch.device("cpu"), seed)
    return portrait(subject, subject.model().eval(), subject.batch("validation", 4), 0.3)


def test_positions_are_those_of_the_scenes() -> None:
    scenes, positions = located(SETTINGS, 5, split="test", seed=1)
    for ours, theirs in zip(scenes, simulate(SETTINGS, 5, split="test", seed=1), strict=True):
        assert torch.equal(ours, theirs)
    for R, where in zip(scenes.R_true, positions, strict=True):
        a = SETTINGS.array.steering(*where[:, where[2] > 0])
        R_true = R.to(a.dtype)
        # What is left without the noise lies in the span of the steering vectors.
        left = R_true - torch.linalg.eigvalsh(R_true)[0] * torch.eye(64)
        q = torch.linalg.qr(a.mT).Q
        assert float((left - q @ (q.mH @ left)).norm() / left.norm()) < 1e-3


def test_music_peaks_where_the_sources_are() -> None:
    found = seen(REFERENCE.case())["music"]
    assert isinstance(found, dict)
    azimuth, truth = np.array(found["azimuth_deg"]), np.array(found["spectrum_db"]["R_true"])
    assert truth.max() == 0
    for source in found["sources_deg"]:
        near = truth[np.abs(azimuth - source) < 2].max()
        assert near > np.median(truth) + 6


def test_it_is_small_plain_data() -> None:
    shown = seen(REFERENCE.case())
    assert len(json.dumps(plain(shown))) < 40_000
    estimates = shown["estimates"]
    assert isinstance(estimates, dict)
    assert list(estimates) == ["R_true", "R_pred", "R_blend", "R_samp"]


def test_without_a_scene_a_sample_of_validation_stands_for_it() -> None:
    case = REFERENCE.case()
    assert case.covariance is not None
    shown = seen(replace(case, covariance=replace(case.covariance, scene=None)))
    assert "music" not in shown
    assert shown["estimates"]


def test_eigenvalues_are_over_their_mean_and_end_at_the_floor() -> None:
    R = torch.diag(torch.tensor([4.0, 0.0, 0.0, 0.0], dtype=torch.complex128))
    assert eigenvalues_db(R) == [pytest.approx(6.02, abs=0.01), *[FLOOR_DB] * 3]


def test_maps_are_averages_of_blocks() -> None:
    R = torch.zeros(2 * MAP, 2 * MAP, dtype=torch.complex128)
    R[0, 0], R[0, 1] = torch.tensor(3j), 1.0
    small = blocks(R)
    assert small.shape == (MAP, MAP)
    assert float(small[0, 0]) == 1.0
    values = base64.b64decode(as_bytes(small, 2.0))
    assert (values[0], values[1], len(values)) == (128, 0, MAP * MAP)


def test_a_scene_without_sources_or_of_another_array_is_refused() -> None:
    scene = REFERENCE.scene(0)
    with pytest.raises(ris_diag.CaseError, match=r"positions have the shape \[3, 0\]"):
        replace(scene, positions=torch.zeros(3, 0))
    other = replace(scene, steering=PlanarArray(n_h=2, n_v=2).steering)
    case = REFERENCE.case()
    assert case.covariance is not None
    covariance = replace(case.covariance, scene=lambda seed: other)
    with pytest.raises(ris_diag.CaseError, match=r"steering gave \[2541, 4\] .* \[2541, 64\]"):
        seen(replace(case, covariance=covariance))


def test_estimates_that_are_not_finite_are_left_out() -> None:
    case = REFERENCE.case()
    assert case.covariance is not None
    broken = replace(case.covariance, predict=lambda model, batch: batch.R_samp * torch.nan)
    shown = seen(replace(case, covariance=broken))
    estimates, music = shown["estimates"], shown["music"]
    assert isinstance(estimates, dict)
    assert isinstance(music, dict)
    assert list(estimates) == list(music["spectrum_db"]) == ["R_true", "R_blend", "R_samp"]
    assert magnitudes(shown, "m").count("data:image/png") >= 3
    nothing = replace(case.covariance, truth=lambda batch: batch.R_samp * 0)
    assert seen(replace(case, covariance=nothing)) == {}
