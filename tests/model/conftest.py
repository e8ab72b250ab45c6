"""Small scenes and a small network whose weights are not the initial ones."""

import pytest
import torch

from model.array import PlanarArray
from model.network import CovarianceNet, NetworkSettings
from model.scene import Scenes, SceneSettings, simulate


@pytest.fixture
def settings() -> SceneSettings:
    return SceneSettings(array=PlanarArray(n_h=4, n_v=4), snapshots=8)


@pytest.fixture
def scenes(settings: SceneSettings) -> Scenes:
    return simulate(settings, 8, split="train", seed=3)


@pytest.fixture
def net(settings: SceneSettings) -> CovarianceNet:
    torch.manual_seed(11)
    model = CovarianceNet(
        NetworkSettings(array=settings.array, snapshots=settings.snapshots, width=8, channels=8)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
