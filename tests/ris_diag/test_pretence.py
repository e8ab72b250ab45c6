"""A pretended GPU: what would stand where, what would wait, and that nothing stays behind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.overrides import _get_current_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint

from ris_diag.pretence import DEVICE, pretended
from ris_diag.standing import Pretended
from tests.ris_diag.lines import line_of

BEFORE = torch.Generator()


def there(*shape: int) -> Tensor:
    return torch.ones(*shape).to(DEVICE)


def seen_in(use: Callable[[], Any]) -> Pretended:
    with pretended() as seen:
        use()
    return seen


def met(seen: Pretended) -> list[tuple[str, str]]:
    """Operation, and what made the tensor of the CPU."""
    return [(m.operation.name, m.origin.call.name if m.origin.call else "") for m in seen.meetings]


# ---- what is asked is answered as on a GPU


def test_a_tensor_that_was_moved_says_so_and_so_does_what_comes_of_it() -> None:
    with pretended():
        x = there(2, 3)
        for tensor in (x, x + 1, x[0], x.sum(), x.double(), x.new_zeros(2), torch.zeros_like(x)):
            assert (tensor.device, tensor.is_cuda, tensor.is_cpu) == (DEVICE, True, False)
        assert x.get_device() == 0
        assert torch.zeros(2).device.type == "cpu"
        assert x.cpu().device.type == x.to("cpu").device.type == "cpu"
        assert torch.ones(2).cuda().is_cuda
        assert torch.zeros(2, device=x.device).is_cuda
        assert torch.zeros(2, device="cuda").is_cuda
        assert torch.ones(2).to(x).is_cuda
        assert torch.device("cuda", 0) == torch.device("cuda:0") == x.device


def test_a_model_is_moved_with_its_gradients_and_the_state_of_its_optimiser() -> None:
    with pretended() as seen:
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(DEVICE)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            torch.autograd.backward(model(there(5, 3)).square().sum())
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        assert all(p.is_cuda and p.grad is not None and p.grad.is_cuda for p in model.parameters())
        assert all(buffer.is_cuda for buffer in model.buffers())
        state = optimizer.state[next(model.parameters())]
        assert (state["exp_avg"].is_cuda, state["step"].is_cuda) == (True, False)
    assert seen == Pretended()


def test_numbers_are_those_of_the_cpu() -> None:
    def loss() -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 1)).to(device)
        value = model(torch.randn(5, 3).to(device)).square().mean()
        torch.autograd.backward(value)
        return [
            value.item(),
            *(p.grad.sum().item() for p in model.parameters() if p.grad is not None),
        ]

    device = torch.device("cpu")
    plain = loss()
    device = DEVICE
    with pretended():
        assert loss() == plain


# ---- what is left alone


def devices_of_their_own() -> None:
    x = there(4, 3)
    positions = torch.arange(4, device=x.device)
    mask = torch.ones(4, 4, device=x.device).tril()
    (mask @ x)[positions].sum()


def scalars() -> None:
    x = there(3)
    x * torch.tensor(2.0) + torch.tensor(1)
    x.clamp(torch.tensor(0.0))


def copies() -> None:
    x, here = there(3), torch.zeros(3)
    here.copy_(x)
    x[:2] = torch.ones(2)
    x.cpu() + here


def lengths_on_the_cpu() -> None:
    lengths = torch.tensor([3, 5])
    packed = pack_padded_sequence(there(2, 5, 3), lengths, batch_first=True, enforce_sorted=False)
    padded, again = pad_packed_sequence(packed, batch_first=True)
    assert (padded.is_cuda, again.is_cuda) == (True, False)
    again.to(padded.device)[:, None] - torch.arange(5, device=padded.device)
    scores = there(6, 2, 4).requires_grad_().log_softmax(2)
    whole, half = torch.full((2,), 6), torch.full((2,), 3)
    torch.autograd.backward(F.ctc_loss(scores, there(2, 3).long(), whole, half))


def attention() -> None:
    layer = nn.MultiheadAttention(8, 2, batch_first=True).to(DEVICE)
    x = there(2, 5, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(5, device=x.device)
    layer(x, x, x, attn_mask=mask, is_causal=True)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.abs()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = 2 * x.abs() * torch.ones(3, device=x.device)
        return gradients[0] * slope


def recomputed() -> None:
    layer = nn.Linear(3, 3).to(DEVICE)
    twice: Callable[[Tensor], Tensor] = Twice.apply

    def inner(x: Tensor) -> Tensor:
        output: Tensor = twice(layer(x)) * torch.ones(3, device=x.device)
        return output

    torch.autograd.backward(checkpoint(inner, there(2, 3), use_reentrant=False).sum())


def chosen_by_what_is_there() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    there(3) + torch.zeros(3, device=device)
    there(3) + torch.zeros(3).to(device)


def made_like_another() -> None:
    x = there(3)
    x + torch.ones(3).type_as(x) + x.new_tensor([1.0, 2.0, 3.0]) + x.new_full((3,), 0.5)
    with x.device:
        x + torch.zeros(3)


def hooks_of_the_device() -> None:
    x = there(3).requires_grad_()
    x.register_hook(lambda g: g * torch.ones(3, device=g.device))  # type: ignore[no-untyped-call]
    torch.autograd.backward((2 * x).sum())


def generators_of_the_device() -> None:
    x = there(3)
    name = "cpu"  # as where torch.cuda.is_available() is False
    other = torch.Generator(device=name)
    torch.rand(3, device=name, generator=other) + x
    source = torch.Generator(device=x.device).manual_seed(0)
    assert source.device == DEVICE
    assert isinstance(BEFORE, torch.Generator)
    assert BEFORE.device.type == torch.Generator().device.type == "cpu"
    torch.rand(3, device=x.device, generator=source)


def sparse_gradients() -> None:
    layer = nn.Embedding(5, 3, sparse=True).to(DEVICE)
    torch.autograd.backward(layer(there(4).long()).sum())
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


@pytest.mark.parametrize(
    "use",
    [
        devices_of_their_own,
        scalars,
        copies,
        lengths_on_the_cpu,
        attention,
        recomputed,
        chosen_by_what_is_there,
        made_like_another,
        hooks_of_the_device,
        generators_of_the_device,
        sparse_gradients,
    ],
)
def test_what_runs_on_a_gpu_is_left_alone(use: Callable[[], None]) -> None:
    seen = seen_in(use)
    assert (seen.meetings, seen.refused, seen.draws) == ([], [], [])


# ---- what is seen


def in_place_on_a_scalar() -> None:
    total = torch.zeros(())
    total += there(3).sum()


def device_that_is_written_down() -> None:
    device = torch.device("cpu")
    there(3) + torch.zeros(3, device=device)


def mask_of_the_library() -> None:
    there(3, 3) + nn.Transformer.generate_square_subsequent_mask(3)


def in_a_hook() -> None:
    x = there(3).requires_grad_()
    x.register_hook(lambda g: g * torch.ones(3))  # type: ignore[no-untyped-call]
    torch.autograd.backward((2 * x).sum())


def table_of_the_cpu() -> None:
    torch.eye(4)[there(3).long()]


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda: there(3) * torch.ones(3), ("mul", "ones")),
        (lambda: there(3) * torch.tensor([1.0, 2.0, 3.0]), ("mul", "tensor")),
        (lambda: there(3) * torch.from_numpy(np.ones(3)), ("mul", "from_numpy")),
        (lambda: there(3) * torch.ones(3, device="cpu"), ("mul", "ones")),
        (lambda: there(3) - there(3).cpu(), ("sub", "cpu")),
        (lambda: there(3) - there(3).to("cpu"), ("sub", "to")),
        (lambda: there(3) + (torch.ones(3) * 2 - 1), ("add", "ones")),
        (lambda: torch.cat([there(2), torch.ones(1)]), ("cat", "ones")),
        (lambda: F.embedding(torch.arange(2), there(4, 3)), ("embedding", "arange")),
        (lambda: there(3) + torch.FloatTensor(3).zero_(), ("add", "empty")),
        (lambda: there(3) + there(3).type("torch.FloatTensor"), ("add", "type")),
        (lambda: torch.stack([there(2).sum(), torch.tensor(0.0)]), ("stack", "tensor")),
        (device_that_is_written_down, ("add", "zeros")),
        (mask_of_the_library, ("add", "full")),
        (in_a_hook, ("mul", "ones")),
        (in_place_on_a_scalar, ("add_", "zeros")),
        (table_of_the_cpu, ("__getitem__", "eye")),
    ],
)
def test_what_meets_without_a_device_is_seen(
    use: Callable[[], Any], expected: tuple[str, str]
) -> None:
    assert met(seen_in(use)) == [expected]


def test_an_index_of_the_cpu_works_with_a_copy() -> None:
    def values() -> None:
        there(4)[there(2).long()] = torch.ones(2)

    (index,) = seen_in(lambda: there(4)[torch.arange(2)]).meetings
    (value,) = seen_in(values).meetings
    assert (index.index, value.index) == (True, False)


def test_what_one_tensor_does_is_said_once() -> None:
    def use() -> None:
        scale = torch.ones(3)
        for _ in range(3):
            there(3) * scale + scale.square()

    assert met(seen_in(use)) == [("mul", "ones")]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.full((3,), 2.0)  # homeless


def test_a_derivative_of_the_users_own_is_looked_into() -> None:
    def use() -> None:
        double: Callable[[Tensor], Tensor] = Doubled.apply
        torch.autograd.backward(double(there(3).requires_grad_()).sum())

    (meeting,) = seen_in(use).meetings
    assert meeting.operation.place == line_of("homeless")
    assert meeting.origin.call is not None
    assert meeting.origin.call.place == line_of("homeless")


def test_what_numpy_refuses_is_seen() -> None:
    def use() -> None:
        there(3).numpy()
        np.asarray(there(3))
        there(3).cpu().numpy()
        there(3).numpy(force=True)

    assert [call.name for call in seen_in(use).refused] == ["numpy()", "numpy.asarray()"]


def test_draws_from_a_generator_of_the_cpu_are_seen() -> None:
    def use() -> None:
        source = torch.Generator()
        torch.rand(3, device="cuda", generator=source)
        there(3).normal_(generator=source)
        torch.rand(3, generator=source)

    assert [call.name for call in seen_in(use).draws] == ["rand()", "normal_()"]


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("item()", lambda x: x.sum().item()),
        ("__getitem__()", lambda x: x[:, : x[0, 0].long()]),
        ("repeat_interleave()", lambda x: x.repeat_interleave(x[:, 0].long(), 0)),
        ("bincount()", lambda x: torch.bincount(x[:, 0].long(), minlength=3)),
        ("tensor()", lambda x: torch.tensor([x.sum(), x.sum()])),
        ("add()", lambda x: torch.add(x, x, alpha=x.sum())),
        ("full()", lambda x: torch.full((1,), x.sum(), device=x.device)),
        ("one_hot()", lambda x: F.one_hot(x.long())),
        ("copy_()", lambda x: torch.empty(4, 3).copy_(x)),
        ("__float__()", lambda x: float(x.sum())),
        ("__bool__()", lambda x: 1 if x.sum() > 0 else 0),
        ("tolist()", lambda x: x.tolist()),
        ("cpu()", lambda x: x.cpu()),
        ('to("cpu")', lambda x: x.to("cpu")),
        ("nonzero()", lambda x: x.nonzero()),
        ("where()", lambda x: torch.where(x > 0)),
        ("unique()", lambda x: x.unique()),
        ("__format__()", lambda x: f"{x.sum():.3f}"),
        ("indexing with a mask", lambda x: x[x > 0]),
    ],
)
def test_waits_are_seen_in_front_of_the_backward_pass(
    name: str, use: Callable[[Tensor], Any]
) -> None:
    with pretended() as seen:
        model = nn.Linear(3, 1).to(DEVICE)
        x = there(4, 3)
        use(x)  # no step has begun
        assert seen.waits == []
        output = model(x).abs()
        use(output.detach())
        torch.autograd.backward(output.sum())
        use(output.detach())
    assert [call.name for call in seen.waits] == [name]


def test_what_is_evaluated_behind_the_step_is_left_alone() -> None:
    with pretended() as seen:
        model, x = nn.Linear(3, 1).to(DEVICE), there(4, 3)
        torch.autograd.backward(model(x).sum())
        with torch.no_grad():
            model(x).mean().item()
    assert seen.waits == []


def test_filling_by_a_mask_and_what_pytorch_fetches_do_not_wait() -> None:
    with pretended() as seen:
        model = nn.Linear(3, 1).to(DEVICE)
        output = model(there(4, 3)).clone()
        output[output > 1] = 0.0
        F.one_hot(output.long().abs() % 3, 3)
        torch.distributions.Normal(output, 1.0).log_prob(output)  # type: ignore[no-untyped-call]
    assert seen.waits == []


# ---- nothing stays


def test_nothing_stays_behind() -> None:
    hooks = len(nn.modules.module._global_forward_pre_hooks)
    generator, engine = torch.Generator, torch.autograd._engine_run_backward  # type: ignore[attr-defined]
    state = torch.get_rng_state()
    with pytest.raises(KeyError), pretended():
        raise KeyError
    assert torch.Generator is generator
    assert torch.autograd._engine_run_backward is engine  # type: ignore[attr-defined]
    assert _get_current_function_mode() is None  # type: ignore[no-untyped-call]
    assert _get_current_dispatch_mode() is None
    assert len(nn.modules.module._global_forward_pre_hooks) == hooks
    assert torch.equal(torch.get_rng_state(), state)
