"""L041: other learning rates, tried where the author's get nowhere; and what is put back."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

import ris_diag
from ris_diag import Case
from ris_diag.checks.experiments import doubled, scaled_rates
from tests.faults.zoo_parts import regression
from tests.ris_diag.findings import found, of_numbers, places
from tests.ris_diag.lines import line_of


def at(rate: float, kind: Callable[..., Any] = torch.optim.SGD, **settings: Any) -> Case:
    return of_numbers(
        F.mse_loss, optimizer=lambda model: kind(model.parameters(), lr=rate, **settings)
    )


def said(case: Case) -> list[str]:
    return ris_diag.run(case, select="L041")["L041"].lines


# ---- scaled rates


class Raises(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        raise ZeroDivisionError


def groups(kind: Any = torch.optim.SGD) -> torch.optim.Optimizer:
    first, second = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    for parameter in (first, second):
        parameter.grad = torch.ones(1)
    optimizer: torch.optim.Optimizer = kind(
        [{"params": [first]}, {"params": [second], "lr": 0.5}], lr=0.1
    )
    return optimizer


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def weights(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["params"][0].item() for group in optimizer.param_groups]


def test_a_step_is_taken_at_the_scaled_rate_and_the_rate_is_put_back() -> None:
    optimizer = groups()
    with scaled_rates(10.0):
        optimizer.step()
        assert rates(optimizer) == [0.1, 0.5]
    assert weights(optimizer) == [-1.0, -5.0]
    optimizer.step()
    assert weights(optimizer) == pytest.approx([-1.1, -5.5])


def test_a_schedule_goes_on_from_the_rate_of_the_author() -> None:
    optimizer = groups()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with scaled_rates(100.0):
        optimizer.step()
        schedule.step()
    assert rates(optimizer) == pytest.approx([0.05, 0.25])


def test_a_rate_that_is_a_tensor_is_put_back() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1))
    with scaled_rates(10.0):
        optimizer.step()
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.1)


@pytest.mark.parametrize("factor", [0.0, 0.1, 10.0])
def test_the_rates_are_put_back_where_the_step_raises(factor: float) -> None:
    optimizer = groups(Raises)
    with pytest.raises(ZeroDivisionError), scaled_rates(factor):
        optimizer.step()
    assert rates(optimizer) == [0.1, 0.5]


def test_no_hook_stays() -> None:
    before = len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)
    with pytest.raises(KeyError), scaled_rates(2.0):
        raise KeyError
    assert (len(_global_optimizer_pre_hooks), len(_global_optimizer_post_hooks)) == before


# ---- what it says


def test_a_rate_that_is_far_too_small() -> None:
    case = of_numbers(
        F.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-6),  # far too small
    )
    ((sign, text),) = found(case, "L041")
    assert sign == "larger-rate-learns"
    assert text.startswith(
        "five steps lower the loss by 0.00%; with learning rates 100000 times as"
    )
    assert text.endswith("(rates 1e-06; limit a factor of 10000)")
    assert places(case, "L041") == [line_of("far too small")]


def test_a_rate_that_is_far_too_large() -> None:
    ((sign, text),) = found(at(30.0, momentum=0.9), "L041")[:1]
    assert sign == "smaller-rate-learns"
    assert text.startswith("five steps raise the loss by ")
    assert text.endswith("% (rates 30)")
    assert " times as small they lower it by " in text


def test_updates_that_climb() -> None:
    ((sign, text),) = found(at(1e-3, maximize=True), "L041")
    assert sign == "update-climbs"
    assert text.startswith("five steps raise the loss by ")
    assert text.endswith(" of the fall that the gradients promise: the updates go uphill")


def test_a_loss_that_is_summed() -> None:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        return regression(split, seed, size)

    case = of_numbers(
        lambda p, y: 100 * F.mse_loss(p, y, reduction="sum"),
        data,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-2),
    )
    assert found(case, "L041")[1:] == [
        (
            "grows-with-batch",
            "the loss doubles where every sample stands twice: it is summed, not averaged",
        )
    ]


@pytest.mark.parametrize("rate", [1e-2, 3e-2])
def test_a_useful_rate_is_not_varied(rate: float) -> None:
    case = at(rate, torch.optim.Adam)
    assert found(case, "L041") == []
    assert said(case)[-1].startswith("not varied: the loss falls by ")


@pytest.mark.parametrize("rate", [1e-3, 3e-4])
def test_a_careful_rate_is_fine(rate: float) -> None:
    assert found(at(rate, torch.optim.Adam), "L041") == []


def test_a_rate_of_zero_is_another_checks() -> None:
    assert found(at(0.0), "L041") == []
    assert said(at(0.0)) == ["not varied: the rates are zero, or the loss isn't finite"]


def test_the_training_of_the_author_is_not_touched() -> None:
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    batches = [regression("train", k, 16) for k in range(3)]
    before = model.weight.detach().clone()
    ris_diag.run(Case.from_xy(model, batches, F.mse_loss, optimizer), select="L041")
    assert torch.equal(model.weight, before)
    assert rates(optimizer) == [1e-7]


def test_every_sample_twice() -> None:
    x, names = torch.arange(6).view(3, 2), ["a", "b", "c"]
    both = doubled({"x": x, "of no sample": torch.ones(2), "names": names, "n": 3}, 3)
    assert both["x"].tolist() == [*x.tolist(), *x.tolist()]
    assert both["of no sample"].shape == (2,)
    assert (both["names"], both["n"]) == (names, 3)
