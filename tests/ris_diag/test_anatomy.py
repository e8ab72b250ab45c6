"""One step, operation by operation: what is seen, and that nothing stays behind."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks
from torch.optim.optimizer import _global_optimizer_post_hooks
from torch.overrides import _get_current_function_mode
from torch.utils.data import DataLoader, TensorDataset

from ris_diag.anatomy import Anatomy, Called, dissect
from tests.ris_diag.lines import line_of

X, Y = torch.ones(5, 3), torch.zeros(5, 2)


def net(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def seen_in(model: nn.Module, loss: Callable[[Tensor], Tensor]) -> Anatomy:
    """One step on X."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dissect(model) as seen:
        torch.autograd.backward(loss(model(X)))
        optimizer.step()
    return seen


# ---- losses and comparisons


def test_a_loss_is_noted_with_its_arguments_and_its_line() -> None:
    seen = seen_in(
        net(nn.Linear(3, 2)),
        lambda p: F.cross_entropy(p, torch.zeros(5).long(), label_smoothing=0.1),  # the loss
    )
    (called,) = seen.losses
    assert (called.name, called.module, called.place) == ("cross_entropy", "", line_of("the loss"))
    assert called.get("input", 0).shape == (5, 2)
    assert called.get("target", 1).dtype == torch.int64
    assert called.get("label_smoothing", 7) == 0.1
    assert called.get("reduction", 6, "none given") in ("mean", "none given")
    assert seen.compared == seen.losses


def test_a_loss_of_a_module_is_noted_inside_of_it() -> None:
    seen = seen_in(net(nn.Linear(3, 2)), lambda p: nn.MSELoss()(p, Y))
    assert [(called.name, called.module) for called in seen.losses] == [("mse_loss", "MSELoss")]


def test_a_loss_without_gradient_is_none() -> None:
    with dissect() as seen:
        F.mse_loss(X, X + 1)
    assert seen.losses == seen.compared == []


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (lambda p: (p - Y).square().mean(), ["sub"]),
        (lambda p: (Y - p).square().mean(), ["sub"]),
        (lambda p: torch.sub(p, Y).abs().mean(), ["sub"]),
        (lambda p: (p - p.detach()).square().mean(), ["sub"]),
        (lambda p: (p - p.flip(0)).square().mean(), []),
        (lambda p: (p * Y).mean(), []),
    ],
)
def test_a_difference_between_what_has_a_gradient_and_what_has_none_is_a_comparison(
    loss: Callable[[Tensor], Tensor], names: list[str]
) -> None:
    assert [called.name for called in seen_in(net(nn.Linear(3, 2)), loss).compared] == names


def test_a_difference_inside_of_a_network_is_none() -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.layer(x)
            return hidden - hidden.detach().mean(0)

    assert seen_in(Centred(), lambda p: p.square().mean()).compared == []


def test_the_maker_of_a_tensor_is_known_through_reshapes_alone() -> None:
    found: dict[str, Called | None] = {}

    def loss(p: Tensor) -> Tensor:
        probabilities = p.softmax(1)
        found["view"] = seen.maker(probabilities.view(-1).reshape(5, 2).squeeze())
        found["sum"] = seen.maker(probabilities + 1)
        found["input"] = seen.maker(p)
        return probabilities.square().mean()

    model = net(nn.Linear(3, 2))
    with dissect(model) as seen:
        loss(model(X))
    assert found["view"] is not None
    assert found["view"].name == "softmax"
    assert found["sum"] is found["input"] is None


def test_a_module_is_named_by_path_and_type() -> None:
    model = net(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2), nn.Dropout(0.1))
    seen = seen_in(model, lambda p: p.square().mean())
    shown = [(called.name, called.module) for called in seen.activations]
    assert shown == [("relu", "1 (ReLU)"), ("dropout", "3 (Dropout)")]


def test_numbers_made_of_whole_numbers_are_remembered() -> None:
    label = torch.tensor([0, 1, 2, 1, 0])
    with dissect() as seen:
        made = label.float().unsqueeze(1)
        other = torch.tensor([0.0, 1.0]).view(2, 1)
    assert id(made) in seen.whole
    assert id(other) not in seen.whole


# ---- chains


def test_two_linear_layers_in_a_row_are_a_chain() -> None:
    seen = seen_in(net(nn.Linear(3, 4), nn.Linear(4, 2)), lambda p: p.square().mean())
    (chain,) = seen.chains
    assert (chain.first, chain.second, chain.widths) == ("0", "1", (3, 4, 2))
    assert seen.linear == {"0": 1, "1": 1}


@pytest.mark.parametrize("between", [nn.Dropout(0.1), nn.Flatten(), nn.Identity()])
def test_what_does_not_bend_keeps_the_chain(between: nn.Module) -> None:
    seen = seen_in(net(nn.Linear(3, 4), between, nn.Linear(4, 2)), lambda p: p.mean())
    assert [(chain.first, chain.second) for chain in seen.chains] == [("0", "2")]


@pytest.mark.parametrize("between", [nn.ReLU(), nn.Tanh(), nn.LayerNorm(4), nn.GELU()])
def test_what_bends_ends_it(between: nn.Module) -> None:
    seen = seen_in(net(nn.Linear(3, 4), between, nn.Linear(4, 2)), lambda p: p.mean())
    assert seen.chains == []


def test_layers_of_two_parents_are_no_chain() -> None:
    class Part(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.layer = nn.Linear(inputs, outputs)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.layer(x)
            return output

    assert seen_in(net(Part(3, 4), Part(4, 2)), lambda p: p.mean()).chains == []


# ---- what breaks


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (lambda p: (-p.square() - 1).sqrt().mean(), "sqrt"),
        (lambda p: (p * 0).log().mean(), "log"),
        (lambda p: (p.square() + 100).exp().exp().mean(), "exp"),
    ],
)
def test_the_first_operation_with_finite_input_alone_is_noted(
    loss: Callable[[Tensor], Tensor], name: str
) -> None:
    (called,) = seen_in(net(nn.Linear(3, 2)), loss).broken[:1]
    assert called.name == name
    assert called.place.startswith("tests/ris_diag/test_anatomy.py:")


def test_infinities_that_are_put_somewhere_on_purpose_are_not() -> None:
    mask = torch.tensor([[True, False]]).expand(5, 2)
    seen = seen_in(
        net(nn.Linear(3, 2)), lambda p: p.masked_fill(mask, float("-inf")).softmax(1).mean()
    )
    assert seen.broken == []
    bad = torch.full((5, 2), float("nan"))
    with dissect() as seen:
        (bad + 1).sum()  # its input isn't finite
    assert seen.broken == []


@pytest.fixture
def unwritten_is_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("unwritten_is_nan")
def test_memory_that_nothing_was_written_to_yet_is_not() -> None:
    with dissect() as seen:
        assert torch.empty(2).isnan().all()
        torch.empty_like(X), X.new_empty(2), torch.empty_strided((2,), (1,))
    assert seen.broken == []


# ---- outputs


def test_outputs_get_their_gradient() -> None:
    seen = seen_in(net(nn.Linear(3, 2)), lambda p: p[:, 0].sum())
    (output,) = seen.outputs
    assert output.module == "Sequential"
    assert output.gradient is not None
    assert output.gradient.tolist() == [[1.0, 0.0]] * 5


def test_gradients_that_come_back_by_two_ways_are_added() -> None:
    model = net(nn.Linear(3, 2))
    with dissect(model) as seen:
        output = model(X)
        torch.autograd.backward(output.sum(), retain_graph=True)
        torch.autograd.backward(2 * output.sum())
    assert seen.outputs[0].gradient is not None
    assert seen.outputs[0].gradient.tolist() == [[3.0, 3.0]] * 5


def test_modules_without_parameters_and_calls_without_gradient_give_no_outputs() -> None:
    with dissect() as seen:
        nn.ReLU()(X.clone().requires_grad_())
        with torch.no_grad():
            net(nn.Linear(3, 2))(X)
    assert seen.outputs == []


# ---- how long, and what is left


def test_it_looks_at_the_first_steps_alone() -> None:
    model = net(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dissect(model, steps=2) as seen:
        for _ in range(5):
            torch.autograd.backward(F.mse_loss(model(X), Y))
            optimizer.step()
    assert len(seen.losses) == len(seen.outputs) == 2


def test_what_the_toolkit_itself_computes_is_passed_over() -> None:
    from ris_diag.measure import shake

    with dissect() as seen:
        shake(net(nn.Linear(3, 2)), 0.1)
    assert seen == Anatomy()


def train(model: nn.Module) -> list[float]:
    data = DataLoader(TensorDataset(torch.randn(12, 3)), batch_size=4, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        for (x,) in data:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_the_training_is_the_same_with_and_without() -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return net(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 1)).train()

    alone = train(model())
    state = torch.get_rng_state()
    with dissect() as seen:
        watched = train(model())
    assert watched == alone
    assert torch.equal(torch.get_rng_state(), state)
    assert seen.outputs


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_nothing_stays_behind(ends: str) -> None:
    hooks = (_global_forward_hooks, _global_forward_pre_hooks, _global_optimizer_post_hooks)
    before = [len(held) for held in hooks]
    model = net(nn.Linear(3, 2), nn.Dropout(0.5)).eval()
    with suppress(ZeroDivisionError), dissect(model):
        model(X)
        if ends == "badly":
            raise ZeroDivisionError
    assert [len(held) for held in hooks] == before
    assert _get_current_function_mode() is None  # type: ignore[no-untyped-call]
    assert [module.training for module in model.modules()] == [False] * 3
    assert all(not module._forward_hooks for module in model.modules())
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None
