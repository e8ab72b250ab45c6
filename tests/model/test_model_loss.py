import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import model
from model.blend import blend
from model.loss import DualLoss, DualLossValue, LossWeights
from model.network import CovarianceNet
from model.nmse import nmse
from model.scene import Scenes

CUT = (
    "R_pred and R_blend require(s) no gradient while training: the network cannot learn; look for "
    "detach(), .data, .numpy() or no_grad() in front of the loss"
)


def value_of(
    net: CovarianceNet, scenes: Scenes, beta: float, weights: LossWeights | None = None
) -> DualLossValue:
    criterion = DualLoss(weights or LossWeights())
    value: DualLossValue = criterion(net(scenes.X), scenes.R_samp, scenes.R_true, beta)
    return value


def gradients(loss: Tensor, net: CovarianceNet) -> dict[str, Tensor]:
    names, parameters = zip(*net.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True))


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.99])
def test_total_is_the_weighted_sum(net: CovarianceNet, scenes: Scenes, beta: float) -> None:
    value = value_of(net, scenes, beta, LossWeights(lam_cov=2.5, lam_cov_pred=0.75))
    R_pred = net(scenes.X)
    cov = nmse(blend(R_pred, scenes.R_samp, beta), scenes.R_true).mean().item()
    cov_pred = nmse(R_pred, scenes.R_true).mean().item()
    assert value.cov.item() == pytest.approx(cov, rel=1e-5)
    assert value.cov_pred.item() == pytest.approx(cov_pred, rel=1e-5)
    assert value.total.item() == pytest.approx(2.5 * cov + 0.75 * cov_pred, rel=1e-5)
    assert value.total.shape == ()
    assert torch.allclose(value.R_pred, R_pred)
    assert torch.allclose(value.R_blend, blend(R_pred, scenes.R_samp, beta))


def test_default_weights() -> None:
    assert LossWeights() == LossWeights(lam_cov=1.0, lam_cov_pred=0.05)


def test_the_perfect_prediction_costs_the_floor_of_the_blend(scenes: Scenes) -> None:
    criterion = DualLoss(LossWeights()).eval()
    assert float(criterion(scenes.R_true, scenes.R_samp, scenes.R_true, 0.0).total) == 0.0
    blended = criterion(scenes.R_true, scenes.R_samp, scenes.R_true, 0.3)
    floor = 0.09 * float(nmse(scenes.R_samp, scenes.R_true).mean())
    assert float(blended.total) == pytest.approx(floor, rel=1e-4)
    assert float(blended.cov_pred) == 0.0


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_both_terms_reach_every_parameter(net: CovarianceNet, scenes: Scenes, beta: float) -> None:
    value = value_of(net, scenes, beta)
    for term in (value.cov, value.cov_pred):
        sizes = {name: float(g.norm()) for name, g in gradients(term, net).items()}
        assert not [name for name, size in sizes.items() if not size > 1e-7]


@pytest.mark.parametrize(
    ("beta", "weights", "expected"),
    [
        (0.998, (1.0, 0.05), 0.05),
        (0.999, (1.0, 0.05), 0.2),
        (1.0, (1.0, 0.05), 0.2),
        (1.0, (3.0, 0.05), 0.6),
        (1.0, (1.0, 0.5), 0.5),
    ],
)
def test_auxiliary_weight_near_beta_one(
    net: CovarianceNet,
    scenes: Scenes,
    beta: float,
    weights: tuple[float, float],
    expected: float,
) -> None:
    declared = LossWeights(lam_cov=weights[0], lam_cov_pred=weights[1])
    assert declared.auxiliary(beta) == pytest.approx(expected)
    value = value_of(net, scenes, beta, declared)
    total = weights[0] * value.cov.item() + expected * value.cov_pred.item()
    assert value.total.item() == pytest.approx(total, rel=1e-5)


def test_at_beta_one_every_parameter_still_learns(net: CovarianceNet, scenes: Scenes) -> None:
    value = value_of(net, scenes, 1.0)
    assert all(not g.any() for g in gradients(value.cov, net).values())
    total, alone = gradients(value.total, net), gradients(value.cov_pred, net)
    for name in total:
        assert float(total[name].norm()) > 1e-7, name
        assert torch.allclose(total[name], 0.2 * alone[name], rtol=1e-4, atol=1e-8), name


@pytest.mark.parametrize("name", ["lam_cov", "lam_cov_pred"])
@pytest.mark.parametrize(
    "value", [0, 0.0, -1.0, math.nan, math.inf, -math.inf, 100, 100.0, 1000, True, "1", None]
)
def test_weights_that_are_refused(name: str, value: Any) -> None:
    message = f"{name}={value!r}: admissible is 0 < {name} < 100"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LossWeights(**{name: value})


@pytest.mark.parametrize("value", [1e-12, 1, 99.999])
def test_weights_that_are_admissible(value: float) -> None:
    assert LossWeights(lam_cov=value, lam_cov_pred=value).lam_cov == value


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_detached_prediction_is_refused_in_training(
    net: CovarianceNet, scenes: Scenes, beta: float
) -> None:
    criterion = DualLoss(LossWeights())
    assert criterion.training
    arguments = net(scenes.X).detach(), scenes.R_samp, scenes.R_true, beta
    with pytest.raises(RuntimeError, match=f"^{re.escape(CUT)}$"):
        criterion(*arguments)
    with torch.no_grad():
        under_no_grad = float(criterion(*arguments).total)
    in_eval = float(criterion.eval()(*arguments).total)
    with pytest.raises(RuntimeError, match=r"^R_pred and R_blend"):
        criterion.train()(*arguments)
    assert under_no_grad == in_eval
    assert in_eval == pytest.approx(value_of(net, scenes, beta).total.item())


@pytest.mark.parametrize("training", [True, False])
def test_wrong_covariances_are_refused_in_train_and_eval(scenes: Scenes, training: bool) -> None:
    criterion = DualLoss(LossWeights()).train(training)
    R = scenes.R_true.clone().requires_grad_()
    message = (
        "shapes do not agree: R_pred [8, 16, 16], R_samp [8, 16, 16], R_true [1, 16, 16]; "
        "expected one [B, N, N] for all"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        criterion(R, scenes.R_samp, scenes.R_true[:1], 0.3)
    with pytest.raises(TypeError, match=r"^R_true is torch\.float32 \[8, 16, 16\]: admissible"):
        criterion(R, scenes.R_samp, scenes.R_true.real, 0.3)
    with pytest.raises(TypeError, match=r"^dtypes do not agree: .*R_true torch\.complex128; cast"):
        criterion(R, scenes.R_samp, scenes.R_true.to(torch.complex128), 0.3)
    with pytest.raises(ValueError, match=r"^beta=1\.5: admissible is 0 <= beta <= 1$"):
        criterion(R, scenes.R_samp, scenes.R_true, 1.5)


OPTIMISED = """
import torch
from model.array import PlanarArray
from model.blend import BlendSchedule, blend
from model.loss import DualLoss, LossWeights
from model.nmse import nmse
from model.scene import Scenes, SceneSettings, check_scenes, simulate
from model.train import TrainSettings

assert False, "-O is not in effect"
R = torch.eye(2, dtype=torch.complex64).repeat(2, 1, 1)
leaf = R.clone().requires_grad_()
criterion = DualLoss(LossWeights())
for attempt in (
    lambda: criterion(R, R, R, 0.3),
    lambda: criterion(leaf, R, R[:1], 0.3),
    lambda: criterion(leaf, R, R.real, 0.3),
    lambda: LossWeights(lam_cov=0),
    lambda: LossWeights(lam_cov=100),
    lambda: LossWeights(lam_cov_pred=-1),
    lambda: blend(R, R, 1.5),
    lambda: blend(R, R[:1], 0.5),
    lambda: blend(R.real, R.real, 0.5),
    lambda: BlendSchedule().beta(1, 1),
    lambda: TrainSettings(learning_rate=0),
    lambda: SceneSettings(snr_db=(20, -5)),
    lambda: simulate(SceneSettings(array=PlanarArray(n_h=2, n_v=2)), 1, split="val", seed=0),
    lambda: check_scenes(Scenes(R, R, R * float("nan"))),
    lambda: nmse(R, R, w_diag=-1),
    lambda: nmse(R, R[:1]),
    lambda: criterion.eval()(R, R, R, 0.3),
):
    try:
        attempt()
    except Exception as error:
        print(type(error).__name__)
    else:
        print("accepted")
"""


@pytest.mark.slow
def test_the_guards_hold_under_python_o() -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-c", OPTIMISED],
        cwd=Path(str(model.__file__)).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [
        "RuntimeError",
        "ValueError",
        "TypeError",
        *["ValueError"] * 5,
        "TypeError",
        *["ValueError"] * 7,
        "accepted",
    ]
