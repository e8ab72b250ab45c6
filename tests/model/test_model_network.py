import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.array import PlanarArray
from model.estimators import sample_covariance
from model.network import CovarianceNet, NetworkSettings, eigenbasis
from model.nmse import nmse
from model.scene import Scenes, SceneSettings, simulate


def built(n_h: int, n_v: int, snapshots: int, dtype: torch.dtype, scale: float) -> CovarianceNet:
    torch.manual_seed(4)
    net = CovarianceNet(
        NetworkSettings(
            array=PlanarArray(n_h=n_h, n_v=n_v),
            snapshots=snapshots,
            width=8,
            channels=8,
            dtype=dtype,
        )
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return net


def fresh(net: CovarianceNet, count: int = 6) -> Scenes:
    settings = SceneSettings(
        array=net.settings.array, snapshots=net.settings.snapshots, dtype=net.settings.dtype
    )
    return simulate(settings, count, split="test", seed=2)


def rotation(L: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(L, L, generator=generator, dtype=torch.complex128)
    Q: Tensor = torch.linalg.qr(noise).Q
    return Q


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(
    ("n_h", "n_v", "snapshots"), [(4, 4, 8), (4, 4, 24), (3, 5, 8), (1, 6, 4), (1, 1, 4)]
)
@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_output_is_a_covariance_whatever_the_weights(
    n_h: int, n_v: int, snapshots: int, dtype: torch.dtype, scale: float
) -> None:
    net = built(n_h, n_v, snapshots, dtype, scale)
    N = n_h * n_v
    for count in (1, 6):
        R = net(fresh(net, count).X).detach()
        assert R.shape == (count, N, N)
        assert R.dtype == dtype
        tolerance = 1e-5 if dtype == torch.complex64 else 1e-13
        assert (R - R.mH).abs().max() < tolerance
        assert (R.diagonal(dim1=1, dim2=2) - 1).abs().max() < tolerance
        assert torch.linalg.eigvalsh(R.to(torch.complex128)).min() > 1e-4
        assert N == 1 or R[:, 0, 1].abs().min() > 0


def test_the_two_precisions_agree(scenes: Scenes, net: CovarianceNet) -> None:
    double = CovarianceNet(replace(net.settings, dtype=torch.complex128))
    double.load_state_dict(net.state_dict())
    difference = net(scenes.X) - double(scenes.X.to(torch.complex128))
    assert difference.abs().max() < 1e-3


def test_a_new_network_is_a_shrinkage_of_the_sample_covariance(settings: SceneSettings) -> None:
    net = CovarianceNet(NetworkSettings(array=settings.array, snapshots=settings.snapshots))
    scenes = simulate(settings, 100, split="test", seed=1)
    R_pred = net(scenes.X).detach()
    # Equal gains of 1/2 and a floor of log 2, brought to unit diagonal.
    by_hand = scenes.R_samp / 4 + torch.log(torch.tensor(2.0)) * torch.eye(16)
    scale = by_hand.diagonal(dim1=1, dim2=2).real.rsqrt()
    assert torch.allclose(R_pred, by_hand * scale[:, :, None] * scale[:, None], atol=1e-5)
    assert nmse(R_pred, scenes.R_true).mean() < 1.0


@pytest.mark.parametrize(("N", "L"), [(16, 8), (8, 16), (7, 7)])
def test_eigenbasis_reconstructs_the_sample_covariance(N: int, L: int) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(5, N, L, generator=generator, dtype=torch.complex128)
    rank = min(N, L)
    U, values = eigenbasis(X, rank)
    assert U.shape == (5, N, rank)
    assert values.shape == (5, rank)
    assert (values.diff(dim=1) <= 0).all()
    assert torch.allclose(U.mH @ U, torch.eye(rank, dtype=U.dtype).expand(5, -1, -1), atol=1e-8)
    assert torch.allclose((U * values[:, None]) @ U.mH, sample_covariance(X), atol=1e-10)
    assert torch.allclose(values, torch.linalg.eigvalsh(sample_covariance(X)).flip(1)[:, :rank])


def test_eigenvectors_meet_the_first_snapshot_with_a_positive_product() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(5, 6, 4, generator=generator, dtype=torch.complex128)
    product = (eigenbasis(X, 4)[0].mH @ X[..., :1]).squeeze(-1)
    assert (product.real > 0).all()
    assert product.imag.abs().max() < 1e-12


def test_tiny_eigenvalues_are_floored() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 6, 1, generator=generator, dtype=torch.complex128)
    U, values = eigenbasis(a @ a.mT[..., :4], 4)
    assert torch.allclose(values[:, 1:], 1e-6 * values[:, :1].expand(-1, 3), rtol=1e-9)
    assert torch.isfinite(U).all()


def test_a_rotation_of_the_snapshots_changes_phases_only() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(5, 6, 4, generator=generator, dtype=torch.complex128)
    U, values = eigenbasis(X, 4)
    V, rotated = eigenbasis(X @ rotation(4), 4)
    assert torch.allclose(values, rotated)
    overlap = U.mH @ V
    assert torch.allclose(overlap.abs(), torch.eye(4, dtype=torch.float64).expand(5, -1, -1))
    assert (overlap.diagonal(dim1=1, dim2=2).angle().abs() > 0.1).any()


def test_without_a_residual_a_rotation_changes_nothing(net: CovarianceNet, scenes: Scenes) -> None:
    Q = rotation(8).to(torch.complex64)
    before, after = net(scenes.X), net(scenes.X @ Q)
    assert (before - after).abs().max() > 1e-2  # the convolutions see the phases
    with torch.no_grad():
        net.conv_out.weight.zero_()
        net.conv_out.bias.zero_()  # type: ignore[union-attr]  # it has one
    before, after = net(scenes.X), net(scenes.X @ Q)
    assert (before - after).abs().max() < 1e-4
    assert torch.allclose(torch.linalg.eigvalsh(before), torch.linalg.eigvalsh(after), atol=1e-4)


def test_the_scale_of_the_input_matters(net: CovarianceNet, scenes: Scenes) -> None:
    # The noise floor and the embedding of the eigenvalues are on the scale of trace N, which
    # `simulate` brings every scene to: snapshots of another scale need that scaling first.
    assert (net(2 * scenes.X) - net(scenes.X)).abs().max() > 1e-2


def test_scenes_of_a_batch_do_not_see_each_other(net: CovarianceNet, scenes: Scenes) -> None:
    order = torch.tensor([4, 2, 7])
    assert (net(scenes.X)[order] - net(scenes.X[order])).abs().max() < 1e-5


def test_gradient_reaches_every_parameter(net: CovarianceNet, scenes: Scenes) -> None:
    loss = nmse(net(scenes.X), scenes.R_true).mean()
    parameters = dict(net.named_parameters())
    assert len(parameters) == 12
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    size = {
        name: float(gradient.norm()) for name, gradient in zip(parameters, gradients, strict=True)
    }
    assert not [name for name, norm in size.items() if not 1e-7 < norm < 1e3]
    # Every gain, the noise floor, every channel of the residual.
    for name in ("gains.bias", "conv_out.bias"):
        assert gradients[list(parameters).index(name)].abs().min() > 1e-9, name


def test_a_new_network_gets_a_gradient_where_it_can(scenes: Scenes) -> None:
    net = CovarianceNet(NetworkSettings(array=PlanarArray(n_h=4, n_v=4), snapshots=8))
    loss = nmse(net(scenes.X), scenes.R_true).mean()
    last = [net.gains.weight, net.gains.bias, net.conv_out.weight]
    assert min(float(g.norm()) for g in torch.autograd.grad(loss, last)) > 1e-5


def test_parameters_have_the_precision_of_the_settings() -> None:
    for dtype, real in ((torch.complex64, torch.float32), (torch.complex128, torch.float64)):
        net = built(2, 2, 4, dtype, 0.0)
        assert {parameter.dtype for parameter in net.parameters()} == {real}


def test_rank_is_that_of_the_sample_covariance() -> None:
    array = PlanarArray(n_h=3, n_v=5)
    assert NetworkSettings(array=array, snapshots=8).rank == 8
    assert NetworkSettings(array=array, snapshots=40).rank == 15


@pytest.mark.parametrize(
    ("shape", "dtype", "got"),
    [
        ((2, 16, 9), torch.complex64, "torch.complex64 [2, 16, 9]"),
        ((2, 15, 8), torch.complex64, "torch.complex64 [2, 15, 8]"),
        ((2, 8, 16), torch.complex64, "torch.complex64 [2, 8, 16]"),
        ((16, 8), torch.complex64, "torch.complex64 [16, 8]"),
        ((1, 2, 16, 8), torch.complex64, "torch.complex64 [1, 2, 16, 8]"),
        ((2, 16, 8), torch.complex128, "torch.complex128 [2, 16, 8]"),
        ((2, 16, 8), torch.float32, "torch.float32 [2, 16, 8]"),
    ],
)
def test_wrong_input(
    net: CovarianceNet, shape: tuple[int, ...], dtype: torch.dtype, got: str
) -> None:
    message = f"X is {got}: expected torch.complex64 [B, 16, 8]"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        net(torch.ones(shape, dtype=dtype))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"snapshots": 1}, "snapshots=1: admissible are the integers 2 <= snapshots <= 4096"),
        ({"width": 0}, "width=0: admissible are the integers 1 <= width <= 4096"),
        ({"channels": 4097}, "channels=4097: admissible are the integers 1 <= channels <= 4096"),
        ({"width": 8.0}, "width=8.0: admissible are the integers 1 <= width <= 4096"),
        (
            {"dtype": torch.complex32},
            "dtype=torch.complex32: admissible are torch.complex64 and torch.complex128",
        ),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        NetworkSettings(**wrong)
