"""Healthy cases: every check must be silent on each."""

from collections.abc import Callable
from dataclasses import replace

import torch

from model.array import PlanarArray
from model.blend import BlendSchedule
from model.case import Reference
from model.loss import LossWeights
from model.scene import SceneSettings
from model.train import TrainSettings
from ris_diag import Case, Override
from tests.faults.loop import HEALTHY_LOOP

SMALL = Reference(scenes=SceneSettings(array=PlanarArray(n_h=4, n_v=4)), train_scenes=512)


def small() -> Case:
    return SMALL.case()


def double_precision() -> Case:
    return replace(SMALL, scenes=replace(SMALL.scenes, dtype=torch.complex128)).case()


def oblong_surface() -> Case:
    return replace(SMALL, scenes=SceneSettings(array=PlanarArray(n_h=6, n_v=3))).case()


def jittered_blend() -> Case:
    train = TrainSettings(schedule=BlendSchedule(jitter=0.05))
    return replace(SMALL, train=train).case()


def constant_blend() -> Case:
    train = TrainSettings(schedule=BlendSchedule(beta_start=0.3))
    return replace(SMALL, train=train).case()


def heavier_weights() -> Case:
    train = TrainSettings(weights=LossWeights(lam_cov=5.0, lam_cov_pred=0.5), clip_norm=10.0)
    return replace(SMALL, train=train).case()


def few_snapshots() -> Case:
    return replace(SMALL, scenes=replace(SMALL.scenes, snapshots=8)).case()


def many_snapshots() -> Case:
    return replace(SMALL, scenes=replace(SMALL.scenes, snapshots=24)).case()


def another_loop() -> Case:
    """A loop of another hand: Adam, no scheduler, no clipping, own log lines."""
    return replace(small(), fit=HEALTHY_LOOP, paths={"only": HEALTHY_LOOP})


def tightened() -> Case:
    """Thresholds of one's own."""
    return replace(small(), thresholds={"L001.min_drop": Override(value=0.1, reason="stricter")})


HEALTHY: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        small,
        double_precision,
        oblong_surface,
        jittered_blend,
        constant_blend,
        heavier_weights,
        few_snapshots,
        many_snapshots,
        another_loop,
        tightened,
    )
}
