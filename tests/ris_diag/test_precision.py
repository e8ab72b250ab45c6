"""L070 to L073: what each finds in mixed precision, and its silence on the healthy neighbour."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import ris_diag
from ris_diag import Case, Epoch, Plan
from ris_diag.underflow import losing
from tests.faults.zoo_parts import adam, classes, epochs, mlp, regression, supervised
from tests.ris_diag.findings import found, of_classes, of_numbers, places
from tests.ris_diag.lines import line_of


def under_autocast(
    loss: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype = torch.bfloat16, **parts: Any
) -> Case:
    """Network and loss under autocast."""

    def whole(model: nn.Module, batch: Any, progress: Any) -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            return loss(model(batch[0]), batch[1])

    return of_numbers(F.mse_loss, loss=whole, **parts)


class Net(nn.Module):
    """A network with an operation in the middle."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.middle = nn.Linear(8, 16), nn.Linear(16, 1), middle

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.middle(self.first(x)))
        return output


def around(middle: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float16) -> Case:
    return under_autocast(lambda p, y: F.mse_loss(p.float(), y), dtype, model=lambda: Net(middle))


# ---- L070


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        (lambda p, y: (p - y.bfloat16()).square().mean(), "mean() of [11, 1]"),
        (lambda p, y: (p - y.bfloat16()).square().sum().float() / 11, "sum() of [11, 1]"),
        (lambda p, y: (p - y.bfloat16()).square().sum(1).float().mean(), "sum() of [11, 1]"),
        (lambda p, y: F.mse_loss(p.float(), y) + 0.1 * p.norm(), "norm() of [11, 1]"),
    ],
    ids=["mean", "sum, cast behind it", "a sum a sample", "a term"],
)
def test_sums_of_the_loss_in_half(loss: Callable[[Tensor, Tensor], Tensor], shown: str) -> None:
    assert found(under_autocast(loss), "L070") == [
        (
            "loss-summed-in-half",
            "1 sums of the loss are in half precision, which keeps two to three digits "
            f"({shown} in torch.bfloat16; limit float32)",
        )
    ]


def test_the_line_of_the_sum_is_its_place() -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        error = p - y.bfloat16()
        return error.square().mean()  # in half

    assert places(under_autocast(loss), "L070") == [line_of("in half")]


def test_a_loss_of_torch_in_half() -> None:
    case = of_classes(lambda p, y: F.cross_entropy(p.half(), y))
    ((sign, text),) = found(case, "L070")
    assert sign == "loss-summed-in-half"
    assert "cross_entropy() of [11, 4] in torch.float16" in text


HEALTHY_LOSSES: dict[str, Case] = {
    "autocast keeps mse_loss in single": under_autocast(F.mse_loss),
    "differences are promoted": under_autocast(lambda p, y: (p - y).square().mean()),
    "cast in front": under_autocast(lambda p, y: (p.float() - y).square().mean()),
    "sums inside of the network": around(lambda h: h - h.mean(1, keepdim=True), torch.bfloat16),
    "no half at all": of_numbers(lambda p, y: (p - y).square().mean()),
    "in double": of_numbers(lambda p, y: (p.double() - y).square().mean()),
}


@pytest.mark.parametrize("name", HEALTHY_LOSSES)
def test_a_loss_in_single_is_silent(name: str) -> None:
    assert found(HEALTHY_LOSSES[name], "L070") == []


def test_sums_that_no_loss_is_made_of_do_not_count() -> None:
    """Features on their way to a layer, a number that is only shown."""

    def model() -> nn.Module:
        return nn.ModuleList([nn.Linear(4, 16), nn.Linear(16, 1)])

    def loss(model: Any, batch: Any, progress: Any) -> Tensor:
        x, y = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = model[0](x.unflatten(1, (2, 4))).mean(1)
            output = model[1](features)
        with torch.no_grad():
            output.mean()
        return F.mse_loss(output.float(), y)

    assert found(of_numbers(F.mse_loss, model=model, loss=loss), "L070") == []


# ---- L071


def test_the_first_operation_out_of_range() -> None:
    def middle(h: Tensor) -> Tensor:
        h = 1000 * h
        h = h * h  # too large
        return torch.tanh(h)

    ((sign, text),) = found(around(middle), "L071")
    assert sign == "half-overflows"
    assert text.startswith("mul() in Net gives infinity in torch.float16 for input of up to ")
    assert text.endswith("(float16 ends at 65504)")
    assert places(around(middle), "L071") == [line_of("too large")]
    assert found(around(middle, torch.bfloat16), "L071") == []


def test_a_cast_and_a_layer_leave_the_range() -> None:
    text = found(around(lambda h: (1e6 * h.float()).half()), "L071")[0][1]
    assert "to() in Net" in text or "half() in Net" in text
    text = found(around(lambda h: 60000 * torch.tanh(100 * h)), "L071")[0][1]
    assert text.startswith("linear() in last (Linear) gives infinity")


def test_masks_are_no_overflow() -> None:
    """Attention adds the smallest number to what is masked already."""

    def middle(h: Tensor) -> Tensor:
        mask = torch.zeros(16, dtype=h.dtype)
        mask[8:] = torch.finfo(h.dtype).min
        return 16 * (h + mask + mask).softmax(1)

    assert found(around(middle), "L071") == []


# ---- L072


def with_scaler(weight: float, dtype: torch.dtype, **settings: Any) -> Case:
    """A loss with a small weight, a GradScaler of given settings."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-12)
        scaler = torch.amp.GradScaler("cpu", **settings)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                output = model(x)
            loss = weight * F.mse_loss(output.float(), y)
            plan.on_step(epoch, loss)
            torch.autograd.backward(scaler.scale(loss))  # the pass
            scaler.step(optimizer)
            scaler.update()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised("scaled", lambda: mlp(8, 32, 1), regression, F.mse_loss, fit=fit)


def test_a_gradient_that_is_too_small_for_float16() -> None:
    case = with_scaler(1e-7, torch.float16, enabled=False)
    ((sign, text),) = found(case, "L072")
    assert sign == "gradient-underflows"
    assert text.startswith("float16 changes the gradient of 6 of 6 parameters with no scale of the")
    assert "0.weight: by 100%" in text
    assert text.endswith("; limit 10%)")
    assert places(case, "L072") == [line_of("the pass")]


def test_a_scale_that_is_too_small() -> None:
    ((_, text),) = found(with_scaler(1e-7, torch.float16, init_scale=4.0), "L072")
    assert "with a scale of 4 of the loss" in text


@pytest.mark.parametrize(
    "case",
    [
        with_scaler(1e-7, torch.float16),
        with_scaler(1.0, torch.float16),
        with_scaler(1.0, torch.float16, enabled=False),
        with_scaler(1e-7, torch.float16, init_scale=2.0**40),  # is lowered step by step
    ],
    ids=["small loss, scaled", "scaled", "large enough without", "too large at first"],
)
def test_a_gradient_that_float16_holds_is_silent(case: Case) -> None:
    assert found(case, "L072") == []


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (with_scaler(1e-7, torch.bfloat16, enabled=False), "nothing is computed in float16"),
        (of_numbers(F.mse_loss), "nothing is computed in float16"),
    ],
    ids=["bfloat16", "single"],
)
def test_nothing_to_judge_without_float16(case: Case, why: str) -> None:
    result = ris_diag.run(case, select="L072")["L072"]
    assert (result.status, result.lines) == ("pass", [f"not judged: {why}"])


def test_a_graph_that_gives_its_gradient_once() -> None:
    def middle(h: Tensor) -> Tensor:
        output: Tensor = checkpoint(torch.tanh, h, use_reentrant=True)
        return output

    result = ris_diag.run(around(middle), select="L072")["L072"]
    assert result.status == "pass"
    (line,) = result.lines
    assert line.startswith("not judged: the gradient can't be taken twice (")
    assert "heckpoint" in line


def test_the_training_goes_on_as_before_while_it_is_watched() -> None:
    case = with_scaler(1.0, torch.float16)
    assert case.fit is not None

    def losses(watched: bool) -> list[float]:
        torch.manual_seed(0)
        assert case.model is not None
        assert case.fit is not None
        model = case.model()
        plan = Plan(epochs=12, train=[regression("train", 0, 16)])
        if watched:
            with losing(model) as compared:
                history = case.fit(model, plan)
            assert len(compared.seen) == 12
        else:
            history = case.fit(model, plan)
        return [epoch.train for epoch in history]

    original = torch.autograd.backward
    assert losses(watched=True) == losses(watched=False)
    assert torch.autograd.backward is original


# ---- L073


def in_half(optimizer: Callable[[nn.Module], Any], dtype: torch.dtype = torch.float16) -> Case:
    return of_numbers(
        F.mse_loss,
        model=lambda: mlp(8, 16, 1).to(dtype),
        loss=lambda model, batch, progress: F.mse_loss(model(batch[0].to(dtype)).float(), batch[1]),
        optimizer=optimizer,
    )


def test_an_eps_that_vanishes() -> None:
    case = in_half(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3))  # built here
    assert found(case, "L073") == [
        (
            "epsilon-vanishes",
            "eps=1e-08 is 0 in torch.float16, in which Adam keeps weights and moments (limit "
            "6e-08)",
        )
    ]
    assert places(case, "L073") == [line_of("built here")]


@pytest.mark.parametrize(
    "case",
    [
        in_half(lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-4)),
        in_half(lambda model: torch.optim.SGD(model.parameters(), lr=1e-1)),
        in_half(lambda model: torch.optim.Adam(model.parameters(), lr=1e-2), torch.bfloat16),
        of_numbers(F.mse_loss, optimizer=adam(1e-3)),
    ],
    ids=["large eps", "no eps", "bfloat16 holds it", "single"],
)
def test_an_eps_that_the_weights_hold(case: Case) -> None:
    assert found(case, "L073") == []


def cast_in_loop(dtype: torch.dtype, *, once: bool = False) -> Case:
    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        casts = iter([True, *[not once] * 1000])

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            if next(casts):
                model.to(dtype).float()
            loss = F.cross_entropy(model(x), y)
            plan.on_step(epoch, loss)
            torch.autograd.backward(loss)
            optimizer.step()
            return float(loss.detach())

        return epochs(model, plan, step)

    return supervised("cast", lambda: mlp(8, 16, 4), classes, F.cross_entropy, fit=fit)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_master_weights_that_are_rounded(dtype: torch.dtype) -> None:
    ((sign, text),) = found(cast_in_loop(dtype), "L073")
    assert sign == "master-weights-rounded"
    assert text == (
        f"in front of 11 of 12 steps, the first is step 2, the weights were rounded to {dtype}: "
        "smaller changes of the step before are gone (limit 1)"
    )


def test_weights_that_are_rounded_once_are_loaded() -> None:
    assert found(cast_in_loop(torch.bfloat16, once=True), "L073") == []


# ---- L012


def two_passes(first: float, second: float) -> Case:
    """Two losses of one step, each scaled or (0) not."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            optimizer.zero_grad()
            output = model(x)
            losses = (F.mse_loss(output, y), 0.1 * output.square().mean())
            plan.on_step(epoch, losses[0] + losses[1])
            for loss, scaled in zip(losses, (first, second), strict=True):
                whole = scaler.scale(loss) if scaled else loss
                torch.autograd.backward(whole, retain_graph=True)
            if first or second:
                scaler.step(optimizer)
                scaler.update()
            else:
                optimizer.step()
            return float(losses[0].detach())

        return epochs(model, plan, step)

    return supervised("two", lambda: mlp(8, 16, 1), regression, F.mse_loss, fit=fit)


@pytest.mark.parametrize(("first", "second"), [(1, 0), (0, 1)])
def test_one_of_two_losses_is_not_scaled(first: float, second: float) -> None:
    assert ("loss-not-scaled" in dict(found(two_passes(first, second), "L012"))) is True


@pytest.mark.parametrize("both", [0, 1])
def test_two_losses_that_are_treated_alike(both: float) -> None:
    assert found(two_passes(both, both), "L012") == []
