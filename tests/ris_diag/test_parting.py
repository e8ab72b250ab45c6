"""Two recorded runs: alike up to rounding, or the first module in which they part."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case
from ris_diag.comparable import nudged, without_dropout, without_tf32
from ris_diag.context import Subject
from ris_diag.parting import Comparison, Parting, compare
from ris_diag.recorded import RecordedRun, recorded
from ris_diag.recorder import OUTSIDE, Part
from ris_diag.rounding import difference, longest_sum
from tests.faults.healthy import small
from tests.faults.zoo import ZOO
from tests.faults.zoo_parts import adam, mlp, regression, supervised

CPU = torch.device("cpu")


def run(case: Case, *, nudge: int = 0) -> RecordedRun:
    return recorded(Subject(case, CPU, 0), CPU, nudge=nudge)


Formula = Callable[[nn.Linear, Tensor], Tensor]


def affine(linear: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, linear.weight, linear.bias)


class Net(nn.Module):
    """Three layers; the second may be computed by another formula."""

    def __init__(self, second: Formula = affine) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 32), Layer(second), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(torch.relu(self.second(torch.relu(self.first(x)))))
        return output


class Layer(nn.Module):
    def __init__(self, formula: Formula) -> None:
        super().__init__()
        self.linear, self.formula = nn.Linear(32, 32), formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(self.linear, x)


def case(model: Callable[[], nn.Module] = Net, **parts: Any) -> Case:
    given = {"optimizer": adam(1e-2), **parts}
    return supervised("two runs", model, regression, F.mse_loss, **given)


def with_formula(formula: Formula) -> Case:
    return case(lambda: Net(formula))


def against(second: Case, first: Case | None = None) -> Comparison:
    first = first or case()
    return compare(run(first), run(second), run(first, nudge=1))


def parting(second: Case) -> Parting:
    found = against(second).parting
    assert found is not None
    return found


# ---- alike


def test_the_same_run_is_the_same() -> None:
    found = against(case())
    assert found.parting is None
    assert found.random == ""
    assert {part.difference for part in found.parts} == {0.0}
    kinds = ["output", "gradient of the output", "gradient", "loss"]
    assert list(dict.fromkeys(part.what for part in found.parts)) == kinds
    outputs = [part.path for part in found.parts if part.what == "output"]
    assert outputs == ["first", "second", "last", "Net"]
    assert [part.path for part in found.parts if part.what == "loss"] == [
        f"step {n}" for n in range(1, 6)
    ]


def other_order(linear: nn.Linear, x: Tensor) -> Tensor:
    """The same sum in another order, as another device adds it up."""
    halves = zip(x.flip(1).chunk(4, 1), linear.weight.flip(1).chunk(4, 1), strict=True)
    return sum((a @ w.T for a, w in halves), torch.zeros(())) + linear.bias


def test_another_order_of_the_same_sums_is_explained() -> None:
    found = against(with_formula(other_order))
    assert found.parting is None
    assert max(part.difference for part in found.parts) > 0
    assert max(part.share for part in found.parts) < 0.5


NETWORKS = [
    "conv_batch_norm_dropout", "bias_in_front_of_batch_norm", "lstm", "transformer_tied",
    "complex_weights", "float64", "bfloat16_throughout", "grad_scaler_float16", "autocast_step",
    "activation_checkpointing", "two_losses_scaled", "accumulation_of_two", "spectral_norm",
]  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_other_last_digits_are_explained_for_any_network(name: str) -> None:
    """A run whose data differ in their last digits stands for another device."""
    found = compare(*(run(ZOO[name](), nudge=nudge) for nudge in (0, 2, 1)))
    assert found.parting is None
    assert found.random == ""
    assert max(part.share for part in found.parts) < 0.5
    assert [part.what for part in found.parts].count("loss") >= 5


def test_the_reference_is_explained() -> None:
    """Its eigenvectors are worse conditioned than any layer."""
    found = compare(*(run(small(), nudge=nudge) for nudge in (0, 2, 1)))
    assert found.parting is None
    assert len(found.parts) > 10


# ---- where they part


def in_bfloat16(linear: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x.bfloat16(), linear.weight.bfloat16(), linear.bias.bfloat16()).float()


def as_tf32(linear: nn.Linear, x: Tensor) -> Tensor:
    """Ten bits of the mantissa, as tensor cores read them."""

    def cut(values: Tensor) -> Tensor:
        shortened = (values.detach().view(torch.int32) & ~0x1FFF).view(torch.float32)
        return values + (shortened - values.detach())

    return F.linear(cut(x), cut(linear.weight), linear.bias)


def without_bias(linear: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, linear.weight)


@pytest.mark.parametrize(
    ("formula", "at_least"),
    [(in_bfloat16, 1e-3), (as_tf32, 1e-4), (without_bias, 1e-2)],
    ids=["bfloat16", "tf32", "another formula"],
)
def test_the_first_module_that_parts(formula: Formula, at_least: float) -> None:
    found = parting(with_formula(formula))
    assert (found.what, found.path) == ("output", "second")
    assert found.difference > at_least
    assert found.limit < at_least / 2


class WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * 1.01


def test_a_backward_pass_that_parts() -> None:
    def formula(linear: nn.Linear, x: Tensor) -> Tensor:
        output: Tensor = WrongSlope.apply(affine(linear, x))  # type: ignore[no-untyped-call]
        return output

    found = parting(with_formula(formula))
    assert found.what == "gradient of the output"
    assert found.path == "first"
    assert found.difference == pytest.approx(0.01, rel=0.2)


def test_a_parameter_that_parts() -> None:
    def wrong(model: nn.Module) -> torch.optim.Optimizer:
        weight = dict(model.named_parameters())["last.weight"]
        weight.register_hook(lambda slope: 0.99 * slope)  # type: ignore[no-untyped-call]
        optimizer: torch.optim.Optimizer = adam(1e-2)(model)
        return optimizer

    found = parting(case(optimizer=wrong))
    assert (found.what, found.path) == ("gradient", "last.weight")
    assert found.difference == pytest.approx(0.01, rel=0.2)


def test_a_step_that_parts() -> None:
    found = parting(case(optimizer=adam(1.001e-2)))
    assert (found.what, found.path) == ("loss", "step 2")


def test_what_is_missing_or_not_finite_parts() -> None:
    one, two = run(case()), run(case(), nudge=1)
    assert compare(one, replace(one, outputs=one.outputs[:2]), two).parts[-1].path == "last"
    broken = Part(path="first", length=8, values=[one.outputs[0].values[0] / 0])
    found = compare(one, replace(one, outputs=[broken, *one.outputs[1:]]), two).parting
    assert found is not None
    assert (found.path, found.difference) == ("first", math.inf)


def test_the_coarsest_precision_counts() -> None:
    def under_autocast(formula: Formula) -> Case:
        def loss(model: nn.Module, batch: Any, progress: Any) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = model(batch[0])
            return F.mse_loss(output.float(), batch[1])

        return case(lambda: Net(formula), loss=loss)

    first = under_autocast(affine)
    second = under_autocast(lambda linear, x: affine(linear, x) * (1 + 2**-7))
    found = against(second, first)
    assert found.parting is None
    assert found.parts[1].path == "second"
    assert found.parts[1].difference > 1e-3


def test_gradients_of_nothing_but_rounding_do_not_part() -> None:
    """A bias in front of a batch norm: its gradient is zero but for rounding."""

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1)
        )  # fmt: skip

    one, two = run(case(model)), run(case(model), nudge=1)
    bias = next(part for part in one.gradients if part.path == "0.bias")
    bias.values[0].zero_()
    assert compare(one, two, replace(two, gradients=one.gradients)).parting is None


# ---- random numbers


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.noise, self.last = nn.Linear(8, 16), Noise(), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.noise(self.first(x)))
        return output


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


def of_the_device(recorded_run: RecordedRun) -> RecordedRun:
    """As if the random numbers of the run were drawn on another device."""
    return replace(recorded_run, draws=[], losses=[loss + 1 for loss in recorded_run.losses])


def test_random_numbers_of_the_device_end_the_comparison() -> None:
    one = run(case(Noisy))
    assert set(one.draws) == {"noise"}
    found = compare(one, of_the_device(one), one)
    assert found.parting is None
    assert found.random == "noise"
    assert [part.path for part in found.parts] == ["first"]


def test_random_numbers_outside_of_modules_leave_nothing_to_compare() -> None:
    def loss(model: nn.Module, batch: Any, progress: Any) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x + 0.1 * torch.randn_like(x)), y)

    one = run(case(loss=loss))
    assert set(one.draws) == {OUTSIDE}
    found = compare(one, of_the_device(one), one)
    assert (found.random, found.parts) == (OUTSIDE, [])


def test_random_numbers_of_the_cpu_are_the_same_everywhere() -> None:
    one = run(case(Noisy))
    found = compare(one, one, one)
    assert found.random == ""
    assert found.parts[-1].what == "loss"


def test_dropout_is_off_and_on_again() -> None:
    model: Any = nn.Sequential(
        nn.Linear(8, 16), nn.Dropout(0.3), nn.LSTM(16, 4, 2, dropout=0.2),
        nn.MultiheadAttention(4, 2, dropout=0.1),
    )  # fmt: skip
    with without_dropout(model):
        assert (model[1].p, model[2].dropout, model[3].dropout) == (0, 0, 0)
    assert (model[1].p, model[2].dropout, model[3].dropout) == (0.3, 0.2, 0.1)
    dropping = case(lambda: nn.Sequential(mlp(8, 16, 16), nn.Dropout(0.5), nn.Linear(16, 1)))
    assert run(dropping).draws == []


# ---- the parts


def test_a_call_that_raises_leaves_the_names_of_the_others_right() -> None:
    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError

    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Linear(8, 4), Raises(), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            with suppress(ValueError):
                x = self.second(x)
            output: Tensor = self.last(x)
            return output

    assert [part.path for part in run(case(Tries)).outputs] == ["first", "last", "Tries"]


def test_the_longest_sum() -> None:
    x = torch.zeros(16, 8)
    assert longest_sum(nn.Linear(8, 32), [x]) == 32
    assert longest_sum(nn.Conv2d(3, 5, 7), [torch.zeros(2, 3, 9, 9)]) == 5 * 49
    assert longest_sum(nn.ReLU(), [x]) == 16
    assert longest_sum(nn.ReLU(), []) == 1


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
)
def test_a_nudge_is_one_digit(dtype: torch.dtype) -> None:
    values = torch.linspace(0.5, 4, 100).to(dtype)
    change = (nudged(values) - values).abs().double() / values.abs().double()
    eps = torch.finfo(dtype).eps
    assert 0.4 * eps < float(change.min())
    assert float(change.max()) < 2.1 * eps


def test_differences() -> None:
    one = torch.tensor([1.0, -4.0])
    assert difference([one], [one + 0.5]) == 0.125
    assert difference([one], [one + 0.5], floor=50.0) == 0.01
    assert difference([one * 1j], [one * 1j + 0.5]) == 0.125
    assert difference([one], [one[:1]]) == math.inf
    assert difference([one], [one, one]) == math.inf
    assert difference([0 * one], [one]) == math.inf
    assert difference([], []) == 0.0
    assert difference([one[:0]], [one[:0]]) == 0.0
    for broken in (math.nan, math.inf):
        spoilt = torch.tensor([1.0, broken])
        assert difference([one], [spoilt]) == math.inf
        assert difference([spoilt], [one]) == math.inf
        assert difference([spoilt], [spoilt]) == 0.0


def test_overflow_of_float16_has_a_border_that_is_not_compared() -> None:
    first, second = (
        torch.tensor(values).half() for values in ([1.0, 65504.0, math.inf], [1.0, math.inf, 2.0])
    )
    assert difference([first], [second]) == 0.0
    assert difference([torch.ones(3).half()], [second]) == math.inf
    assert difference([first.float()], [second.float()]) == math.inf


def precisions() -> list[str]:
    backends: Any = torch.backends
    owners = (
        backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul
    )  # fmt: skip
    return [owner.fp32_precision for owner in owners]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_tf32_is_off_inside_and_as_it_was_behind(precision: str) -> None:
    torch.set_float32_matmul_precision(precision)
    try:
        before = precisions()
        with without_tf32():
            assert set(precisions()) == {"ieee"}
        assert precisions() == before
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


def test_nothing_stays_behind() -> None:
    from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
    from torch.optim.optimizer import _global_optimizer_pre_hooks

    states = torch.get_rng_state()
    run(case())
    assert not _global_forward_hooks
    assert not _global_forward_pre_hooks
    assert not _global_optimizer_pre_hooks
    assert torch.equal(torch.get_rng_state(), states)
