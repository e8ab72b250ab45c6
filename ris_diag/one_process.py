"""The gradient of several ranks, and that of one process on all of their samples."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ris_diag.case import Batch
from ris_diag.context import Subject
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.marks import sample_rows
from ris_diag.measure import captured_output
from ris_diag.observer import TrainingStopped
from ris_diag.plan import Plan
from ris_diag.replica import Portion
from ris_diag.replicas import (
    EPOCHS,
    launched,
    let_go,
    own_batches_once,
    own_seed,
    ranks_of,
    refuse_what_raised,
    wrap,
)
from ris_diag.wrapped import plain_names, plain_state

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Gradients at the first optimiser step in eval mode, each a vector over all parameters.

    Attributes:
        ranks: of this rank, behind the exchange.
        global_: of one process on the batches of all ranks, concatenated.
        reordered: the same with the ranks the other way round: rounding, or noise of the loss.
        local: what one process has on each rank's own batches, by rank.
        samples: in the batches of the step, by rank.
        summed: values that are summed into an entry, the samples' entries.
        eps: of the gradient's dtype.
    """

    ranks: Tensor
    global_: Tensor
    reordered: Tensor
    local: list[Tensor]
    samples: list[int]
    summed: int
    eps: float


def gradients(subject: Subject) -> Gradients | str:
    """Measured once; a reason where there is nothing to compare."""
    return subject.once("gradients of the ranks", _gradients)


def _gradients(subject: Subject) -> Gradients | str:
    ranks, seen = ranks_of(subject), launched(subject)
    count = _batches_of_a_step(subject)
    own = own_batches_once(subject)[:count]
    if min(ranks.share("batches of a step", len(own))) < count:
        return "a rank has fewer batches than a step takes"
    try:
        with ranks.together(seen.seconds):
            everyone = [_from_all(subject, batch) for batch in own]
    except ValueError as error:
        return str(error)
    start: Weights = {}
    taken: dict[str, Any] = {}

    def together() -> None:
        taken["ranks"] = _at_first_step(subject, own, start, wrapped=True)

    def alone() -> None:
        for name, batches in (
            ("global", [_joined(parts) for parts in everyone]),
            ("reordered", [_joined(parts[::-1]) for parts in everyone]),
            ("local", own),
        ):
            taken[name] = _at_first_step(subject, batches, start, wrapped=False)

    with ranks.together(seen.seconds):
        refuse_what_raised(ranks.each("the gradient of all ranks", together))
    with ranks.alone():
        refuse_what_raised(ranks.each("the gradient of one process", alone))
    named = [taken[name] for name in ("ranks", "global", "reordered", "local")]
    shared = [name for name in named[0] if all(name in each for each in named)]
    if not min(ranks.share("parameters with a gradient", len(shared))):
        return "no optimiser step was taken with a gradient"
    vectors = [torch.cat([_flat(each[name]) for name in shared]) for each in named]
    with ranks.together(seen.seconds):
        local = ranks.gathered(vectors[3])
    sizes = [sum(_samples(parts[rank]) for parts in everyone) for rank in range(ranks.size)]
    return Gradients(
        ranks=vectors[0],
        global_=vectors[1],
        reordered=vectors[2],
        local=local,
        samples=sizes,
        summed=sum(
            max(t.numel() for t in tensors_in(part)) for parts in everyone for part in parts
        ),
        eps=max(torch.finfo(named[0][name].dtype).eps for name in shared),
    )


def _flat(gradient: Tensor) -> Tensor:
    """Its real numbers, float64 [n]."""
    dense = gradient.to_dense() if gradient.is_sparse else gradient
    real = torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
    return real.reshape(-1).double()


def _batches_of_a_step(subject: Subject) -> int:
    declared = subject.case.declared
    return 1 if declared is None else declared.accumulation


def _samples(batch: Batch) -> int:
    rows = sample_rows(batch)
    return len(next(iter(rows.values()))) if rows else 0


def _from_all(subject: Subject, batch: Batch) -> list[Batch]:
    """The batches of all ranks that stand where this one stands, by rank.

    Raises:
        ValueError: batches that can't be put together tensor by tensor.
    """
    ranks, tensors = ranks_of(subject), tensors_in(batch)
    kinds = ranks.share("kinds", [[str(t.dtype), list(t.shape[1:]), t.ndim] for t in tensors])
    if not tensors or any(kind != kinds[0] for kind in kinds):
        raise ValueError("the ranks' batches hold tensors of other kinds or shapes")
    parts = [ranks.gathered(tensor) for tensor in tensors]
    return [_replaced(batch, [part[rank] for part in parts]) for rank in range(ranks.size)]


def _replaced(batch: Batch, tensors: list[Tensor]) -> Batch:
    """The structure of a batch with other tensors."""
    left = iter(tensors)
    return map_leaves(batch, lambda leaf: next(left) if isinstance(leaf, Tensor) else leaf)


def _joined(parts: list[Batch]) -> Batch:
    """One batch of several: rows behind each other; what has no rows is that of the first."""
    rows = sample_rows(parts[0])
    numbered = [[t for t in tensors_in(part) if t.ndim] for part in parts]
    joined = {k: torch.cat([each[k] for each in numbered]) for k in rows}
    counted = iter(range(len(numbered[0])))

    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        return joined.get(next(counted), value)

    return map_leaves(parts[0], leaf)


def _at_first_step(
    subject: Subject, batches: list[Batch], start: Weights, *, wrapped: bool
) -> Weights:
    """Gradient of every parameter at the first step of the author's loop, in eval mode.

    Args:
        start: weights and buffers to begin with; filled by the wrapped run, used by the others.
    """
    with own_seed(subject, "gradient"):
        found = _first_gradients(subject, batches, start, wrapped=wrapped)
    if wrapped:
        let_go(subject)
    return found


def _first_gradients(
    subject: Subject, batches: list[Batch], start: Weights, *, wrapped: bool
) -> Weights:
    found: Weights = {}
    model = subject.model()
    if wrapped:
        model = wrap(subject, model)
        start.update({name: t.detach().clone() for name, t in plain_state(model).items()})
    else:
        _begin(model, start)
    parameters = plain_names(model)

    def stop(optimizer: Any, args: Any, kwargs: Any) -> None:
        gradients = {name: p.grad for name, p in parameters.items()}
        found.update({name: g.detach().clone() for name, g in gradients.items() if g is not None})
        raise TrainingStopped

    plan = Plan(epochs=EPOCHS, train=Portion(batches, len(batches), subject.device))
    hook = register_optimizer_step_pre_hook(stop)
    try:
        with captured_output(), _still(model), suppress(TrainingStopped):
            subject.fit(model, plan)
    finally:
        hook.remove()
    return found


def _begin(model: nn.Module, start: Weights) -> None:
    """Give a model the weights and buffers of another."""
    with torch.no_grad():
        for name, tensor in plain_state(model).items():
            if name in start:
                tensor.copy_(start[name])


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Every module is called in eval mode, whatever the loop sets: no dropout, no statistics."""

    def calm(module: nn.Module, args: Any) -> None:
        module.training = False

    with ExitStack() as stack:
        for module in model.modules():
            if not isinstance(module, nn.RNNBase):  # cuDNN has no backward for it in eval mode
                stack.callback(module.register_forward_pre_hook(calm).remove)
        yield
