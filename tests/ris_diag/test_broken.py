"""Which operation makes NaN or infinity first, forward and backward."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Epoch, Plan
from ris_diag.broken import backward_break, forward_break
from ris_diag.context import Subject
from ris_diag.watched import watch
from tests.faults.zoo_parts import mlp
from tests.ris_diag.findings import of_numbers
from tests.ris_diag.lines import line_of


def subject(case: Case) -> Subject:
    return Subject(case, torch.device("cpu"), seed=0)


def forward(case: Case) -> tuple[str, str] | None:
    return forward_break(subject(case))


def backward(case: Case) -> tuple[str, str] | None:
    training = subject(case)
    return backward_break(training, watch(training).trace)


class Model(nn.Module):
    """A network with an operation in it."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.net, self.end = mlp(8, 16, 1), end

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.end(self.net(x))
        return output


def test_a_healthy_step_breaks_nowhere() -> None:
    assert forward(of_numbers(F.mse_loss)) is None
    assert backward(of_numbers(F.mse_loss)) is None


def test_the_operation_in_the_loss() -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        return (-p.square() - 1).sqrt().mean()  # root of a negative number

    assert forward(of_numbers(loss)) == (
        "sqrt() gives NaN for finite input",
        line_of("root of a negative number"),
    )


def test_the_operation_in_the_network() -> None:
    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.square() * 0).log()  # logarithm of zero

    assert forward(of_numbers(F.mse_loss, model=lambda: Model(Logarithm()))) == (
        "log() in end (Logarithm) gives infinity for finite input",
        line_of("logarithm of zero"),
    )


def test_what_gives_nan_is_nearer_to_the_cause_than_an_infinity() -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        weight = 1 / (p * 0).square()  # an infinity
        kept = torch.where(weight > 0, p - y, weight)
        return kept.square().mean() + (p * 0 / (p * 0)).mean()  # what is nothing over nothing

    assert forward(of_numbers(loss)) == (
        "div() gives NaN for finite input",
        line_of("what is nothing over nothing"),
    )


def test_infinities_of_a_mask_break_nothing() -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        scores = torch.cat([p, y], 1).masked_fill(torch.tensor([[False, True]]), float("-inf"))
        return (scores.softmax(1)[:, 0] * p[:, 0] - y[:, 0]).square().mean()

    assert forward(of_numbers(loss)) is None


@pytest.mark.parametrize("where", ["loss", "network"])
def test_the_derivative_that_is_nan(where: str) -> None:
    def loss(p: Tensor, y: Tensor) -> Tensor:
        root: Tensor = (p * 0).norm(dim=1).mul(0).sqrt()  # a root of zero
        return root.mean() + F.mse_loss(p, y)

    def end(p: Tensor) -> Tensor:
        bent: Tensor = (p * 0).abs().sqrt()  # a root of zero, in the network
        return p + bent

    case = of_numbers(loss) if where == "loss" else of_numbers(F.mse_loss, model=lambda: Model(end))
    assert forward(case) is None
    line = line_of("a root of zero" if where == "loss" else "a root of zero, in the network")
    found = backward(case)
    assert found is not None
    assert found[1] == line
    # The root's is infinite; NaN comes of infinity times zero behind it.
    assert found[0] == f"the derivative of {'Mul' if where == 'loss' else 'Abs'} is NaN"


def test_the_loop_of_the_author_is_the_one_that_runs() -> None:
    calls = []

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        calls.append(len(list(plan.train)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(plan.epochs):
            for x, y in plan.train:
                loss = F.mse_loss(model(x), y) + (0 * model(x)).abs().sqrt().mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        return [Epoch(train=1.0)] * plan.epochs

    found = backward(of_numbers(F.mse_loss, fit=fit))
    assert found is not None
    assert found[0].endswith(" is NaN")
    assert len(calls) == 2
    assert not torch.is_anomaly_enabled()


def test_other_errors_are_not_swallowed() -> None:
    training = subject(of_numbers(F.mse_loss))
    trace = watch(training).trace

    def loss(p: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        backward_break(subject(of_numbers(loss)), trace)
    assert not torch.is_anomaly_enabled()
