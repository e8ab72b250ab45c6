import re
from typing import Any

import pytest
import torch
from torch import Tensor

from model.estimators import sample_covariance
from model.loader import SceneLoader
from model.scene import Scenes


def order_of(epoch: list[Scenes], scenes: Scenes) -> list[int]:
    """Index of every served scene, found by its truth."""
    served = torch.cat([batch.R_true for batch in epoch])
    distance = torch.cdist(as_rows(served), as_rows(scenes.R_true))
    assert distance.amin(1).max() < 1e-6
    return [int(index) for index in distance.argmin(1)]


def as_rows(R: Tensor) -> Tensor:
    return torch.view_as_real(R).flatten(1).double()


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(3, [3, 3, 2]), (4, [4, 4]), (8, [8]), (100, [8]), (1, [1] * 8)]
)
def test_an_epoch_serves_every_scene_once(
    scenes: Scenes, batch_size: int, sizes: list[int]
) -> None:
    loader = SceneLoader(scenes, batch_size=batch_size, seed=0)
    epoch = list(loader)
    assert [len(batch.X) for batch in epoch] == sizes
    assert len(loader) == len(sizes)
    assert sorted(order_of(epoch, scenes)) == list(range(8))


def test_every_epoch_has_a_new_order(scenes: Scenes) -> None:
    loader = SceneLoader(scenes, batch_size=3, seed=0)
    orders = {tuple(order_of(list(loader), scenes)) for _ in range(5)}
    assert len(orders) == 5
    assert tuple(range(8)) not in orders


def test_labels_stay_with_their_inputs_and_r_samp_is_that_of_x(scenes: Scenes) -> None:
    for batch in SceneLoader(scenes, batch_size=3, seed=1):
        assert torch.allclose(sample_covariance(batch.X), batch.R_samp, atol=1e-5)
        index = order_of([batch], scenes)
        assert torch.equal(batch.R_samp, scenes.R_samp[index])


def test_the_snapshots_are_rotated_anew_in_every_batch_and_epoch(scenes: Scenes) -> None:
    loader = SceneLoader(scenes, batch_size=4, seed=1)
    rotations = []
    for batch in [*loader, *loader]:
        index = order_of([batch], scenes)
        # 16 elements, 8 snapshots: the rotation follows from the data.
        Q = torch.linalg.lstsq(scenes.X[index], batch.X).solution
        assert torch.allclose(Q @ Q.mH, torch.eye(8).to(Q.dtype).expand_as(Q), atol=1e-3)
        assert torch.allclose(Q, Q[:1].expand_as(Q), atol=1e-3)
        rotations.append(Q[0])
    assert len(rotations) == 4
    for i, Q in enumerate(rotations):
        for other in [torch.eye(8).to(Q.dtype), *rotations[:i]]:
            assert (Q - other).abs().max() > 0.1


def test_the_scenes_themselves_are_left_alone(scenes: Scenes) -> None:
    copies = [part.clone() for part in scenes]
    for batch in SceneLoader(scenes, batch_size=3, seed=1):
        batch.R_true.zero_()
    assert all(torch.equal(part, copy) for part, copy in zip(scenes, copies, strict=True))


def test_the_seed_alone_decides(scenes: Scenes) -> None:
    def two_epochs(seed: int) -> list[Tensor]:
        loader = SceneLoader(scenes, batch_size=3, seed=seed)
        return [batch.X for batch in [*loader, *loader]]

    before = torch.get_rng_state()
    first = two_epochs(5)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, two_epochs(5), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, two_epochs(6), strict=True))


def test_double_precision_stays(scenes: Scenes) -> None:
    double = Scenes(*(part.to(torch.complex128) for part in scenes))
    for batch in SceneLoader(double, batch_size=3, seed=1):
        assert {part.dtype for part in batch} == {torch.complex128}


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_batch_size_out_of_range(scenes: Scenes, batch_size: Any) -> None:
    message = f"batch_size={batch_size!r}: admissible are the integers 1 <= batch_size <= 1000000"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SceneLoader(scenes, batch_size=batch_size, seed=0)
