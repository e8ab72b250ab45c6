"""L075: what it says where two runs part, and that it waits for CUDA."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ris_diag
from ris_diag import Case
from ris_diag.check import get_check
from ris_diag.checks.devices import judge
from ris_diag.context import Context, Subject
from ris_diag.gate import lets_through
from ris_diag.parting import Comparison, Parting, compare
from ris_diag.recorded import recorded
from ris_diag.recorder import OUTSIDE
from ris_diag.runner import Runner
from tests.faults.healthy import small
from tests.faults.plant_precision import FastSilu, one_formula, with_silu
from tests.faults.zoo import ZOO
from tests.faults.zoo_parts import regression

CPU = torch.device("cpu")


def context() -> Context:
    case = one_formula()
    return Context(get_check("L075"), Subject(case, CPU, 0), Runner(case).run_check)


def test_it_waits_for_cuda_and_the_gate_does_not() -> None:
    result = ris_diag.run(small(), select="L075")["L075"]
    assert (result.status, result.cause) == ("skip", "compares CPU with CUDA: needs --gpu")
    assert lets_through(result)
    without = ris_diag.run(ris_diag.Case(name="nothing"), select="L075")["L075"]
    assert (without.status, without.cause[:21]) == ("skip", "does not apply: needs")
    assert not lets_through(without)


def test_the_message_names_the_first_module() -> None:
    """A second run on the CPU, by the formula of the other device, stands for that device."""
    first, second = Subject(one_formula(), CPU, 0), Subject(with_silu("cpu"), CPU, 0)
    runs = (recorded(first, CPU), recorded(second, CPU), recorded(first, CPU, nudge=1))
    seen = context()
    judge(seen, compare(*runs), "cuda:0")
    (finding,) = seen.findings
    assert finding["sign"] == "devices-part"
    assert finding["cause"].startswith("cpu and cuda:0 part at the output of 1: they differ by 0.")
    assert finding["cause"].endswith("; all 1 parts in front of it agree")
    assert finding["place"].endswith(" (1)")
    assert finding["place"] == f"{ris_diag.places.where(FastSilu)} (1)"
    assert seen.measurements["compared"] == 2
    assert seen.lines == [
        "2 parts compared, 5 steps; the largest difference is "
        f"{seen.measurements['largest_share']:.2g} of what rounding explains (output, 1)"
    ]


def test_what_draws_random_numbers_is_said_and_no_alarm() -> None:
    part = Parting(what="output", path="first", difference=1e-7, limit=1e-5)
    seen = context()
    judge(seen, Comparison(parts=[part], random="noise"), "cuda:0")
    assert not seen.findings
    assert seen.lines == [
        "not compared from there on: noise draws random numbers that are the device's own",
        "1 parts compared, 5 steps; the largest difference is 0.01 of what rounding explains "
        "(output, first)",
    ]
    seen = context()
    judge(seen, Comparison(parts=[], random=OUTSIDE), "cuda:0")
    assert not seen.findings
    assert seen.lines == [f"not compared: {OUTSIDE} draws random numbers that are the device's own"]


def lent() -> tuple[Case, nn.Module, torch.optim.Optimizer]:
    """In the middle of a training: the optimiser holds moments."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, y = regression("train", 0, 64)
    torch.autograd.backward(F.mse_loss(model(x), y))
    optimizer.step()
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    return Case.from_xy(model, loader, F.mse_loss, optimizer), model, optimizer


def test_the_state_of_a_lent_optimiser_goes_where_the_model_is() -> None:
    """Another dtype stands for another device: `load_state_dict` follows the weights to both."""
    case, model, optimizer = lent()
    assert case.optimizer is not None
    case.optimizer(model.double())
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    assert {moment.dtype for moment in moments} == {torch.float64}


@pytest.mark.cuda
def test_what_was_lent_comes_back_to_its_device() -> None:
    case, model, optimizer = lent()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = ris_diag.run(case, select="L001,L075", device="cuda")["L075"]
    assert result.status == "pass", result.message()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {state["exp_avg"].device.type for state in optimizer.state.values()} == {"cpu"}


@pytest.mark.cuda
@pytest.mark.parametrize(
    "name", ["mlp_regression", "conv_batch_norm_dropout", "lstm", "transformer_tied", "float64"]
)
def test_cpu_and_cuda_agree(name: str) -> None:
    result = ris_diag.run(ZOO[name](), select="L075", device="cuda")["L075"]
    assert result.status == "pass", result.message()
    assert result.measurements["compared"] > 5


@pytest.mark.cuda
def test_the_reference_agrees_on_cuda() -> None:
    result = ris_diag.run(small(), select="L075", device="cuda")["L075"]
    assert result.status == "pass", result.message()


@pytest.mark.cuda
def test_a_formula_of_the_device_is_found_on_cuda() -> None:
    result = ris_diag.run(with_silu(), select="L075", device="cuda")["L075"]
    assert result.status == "fail"
    assert "part at the output of 1" in result.message()
