"""Gradients, updates and zeros of a training by module, as plain data."""

import json

import pytest
import torch
from torch import nn

import ris_diag
from ris_diag import observe
from ris_diag.flow import MOST_MODULES, flow_in, flow_of
from ris_diag.result import plain


class Half(nn.Module):
    """One hidden unit in two is dead: its gradients are exactly zero."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(3, 4)
        self.body = nn.Sequential(layer, nn.ReLU())
        self.head = nn.Linear(4, 1)
        with torch.no_grad():
            layer.bias.copy_(torch.tensor([10.0, 10.0, -100.0, -100.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x))
        return out


def trained(model: nn.Module, steps: int = 2, lr: float = 0.1) -> ris_diag.trace.Trace:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    with observe(model) as trace:
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().mean().backward()
            optimizer.step()
    return trace


def test_modules_are_prefixes_of_parameter_paths() -> None:
    assert list(flow_of(trained(Half()))) == ["body.0", "head"]
    assert list(flow_of(trained(nn.Linear(3, 1)))) == ["Linear"]


def test_norms_and_ratios_are_those_of_all_parameters_of_the_module() -> None:
    model = Half()
    before = [p.detach().clone() for p in model.head.parameters()]
    flow = flow_of(trained(model, steps=1))["head"]
    gradients = [p.grad for p in model.head.parameters() if p.grad is not None]
    gradient = float(torch.cat([g.flatten() for g in gradients]).norm())
    weight = float(torch.cat([w.flatten() for w in before]).norm())
    assert flow["gradient_norm"] == [pytest.approx(gradient, rel=1e-3)]
    assert flow["update_to_weight"] == [pytest.approx(0.1 * gradient / weight, rel=1e-3)]


def test_zeros_are_counted_entry_by_entry() -> None:
    flow = flow_of(trained(Half()))
    assert flow["body.0"]["zero_gradients"] == [0.5, 0.5]
    assert flow["head"]["zero_gradients"] == [0.4, 0.4]  # two of four weights, one bias


def test_without_gradient_or_weight_there_is_no_number() -> None:
    model = Half()
    model.head.requires_grad_(False)
    with torch.no_grad():
        for parameter in model.body.parameters():
            parameter.zero_()
    flow = flow_of(trained(model, steps=1))
    assert flow["head"]["gradient_norm"] == [None]
    assert flow["head"]["zero_gradients"] == [None]
    assert flow["body.0"]["update_to_weight"] == [None]


def test_updates_by_hand_leave_the_norms_of_the_backward_passes() -> None:
    model = nn.Linear(3, 1)
    with observe(model) as trace:
        model(torch.ones(2, 3)).square().mean().backward()
    assert trace.steps == []
    flow = flow_of(trace)["Linear"]
    assert flow["gradient_norm"] != [None]
    assert flow["update_to_weight"] == flow["zero_gradients"] == [None]


def test_nothing_was_trained() -> None:
    with observe(nn.Linear(3, 1)) as trace:
        pass
    assert flow_of(trace) == {}


def test_deep_models_are_folded_to_their_upper_modules() -> None:
    blocks = nn.Sequential(*[nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(30)])
    flow = flow_of(trained(blocks))
    assert list(flow) == [str(n) for n in range(30)]
    wide = nn.Sequential(*[nn.Linear(3, 3) for _ in range(MOST_MODULES + 9)])
    flow = flow_of(trained(wide))
    assert len(flow) == MOST_MODULES
    assert list(flow)[-1] == "and 10 more"


def a_case() -> ris_diag.Case:
    def batch(split: str, seed: int, size: int) -> torch.Tensor:
        return torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))

    return ris_diag.Case(
        name="half",
        model=Half,
        batch=batch,
        loss=lambda model, x, progress: (model(x) - x.sum(1, keepdim=True)).square().mean(),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-2),
    )


def test_the_litmus_and_the_watched_run_carry_it_through_json() -> None:
    report = ris_diag.run(a_case(), select=["L001", "L014"])
    told = json.loads(json.dumps(plain(report.to_json())))
    results = {entry["id"]: ris_diag.Result(**entry) for entry in told["results"]}
    for name, steps in (("L001", 5), ("L014", 12)):
        modules = results[name].measurements["modules"]
        assert list(modules) == ["body.0", "head"]
        assert all(len(row) == steps for values in modules.values() for row in values.values())
    litmus = results["L001"].measurements
    assert litmus["beta"] == [None] * 5
    assert len(litmus["losses"]) == 5
    assert len(json.dumps(results["L014"].measurements["losses"])) < 400
    assert flow_in(results.values()) == ("L001", litmus["modules"])
    assert flow_in([results["L014"]])[0] == "L014"
    assert flow_in([]) == ("", {})
