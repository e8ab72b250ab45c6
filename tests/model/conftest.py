"""Small scenes and a small network whose weights are not the initial ones."""

from collections.abc import Callable, Iterator

import pytest
import torch

from model.array import PlanarArray
from model.network import CovarianceNet, NetworkSettings
from model.scene import Scenes, SceneSettings, simulate


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These matrices are too small to share; on a busy machine idle threads cost a factor of 10."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture
def make_net(net: CovarianceNet) -> Callable[[], CovarianceNet]:
    def make() -> CovarianceNet:
        copy = CovarianceNet(net.settings)
        copy.load_state_dict(net.state_dict())
        return copy

    return make
