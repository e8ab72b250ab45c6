"""The way from the network's output to the loss or the metric, with the output in our hands."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from ris_diag.case import Batch
from ris_diag.context import Subject
from ris_diag.graph import leaves, map_leaves, tensors_in
from ris_diag.measure import LITMUS_EPOCHS
from ris_diag.plan import Progress

SIZE = 7  # samples; a length that few other axes have


class Unreachable(Exception):  # noqa: N818  # no error: there is nothing to judge
    """The output can't be put in the network's place; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """What is computed from the output of one module.

    Attributes:
        run: computes it; calls the module.
        outputs: what the module gave, call by call.
    """

    run: Callable[[], Any]
    module: nn.Module
    outputs: list[Any]
    subject: Subject

    def given(self, outputs: Sequence[Any]) -> Any:
        """What `run` gives with these outputs in place of the module's own.

        Raises:
            Unreachable: it raises on them.
        """
        try:
            with self.subject.seeded("oracle"), _answering(self.module, outputs):
                return self.run()
        except Exception as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error


def follow(
    subject: Subject,
    model: nn.Module,
    run: Callable[[], Any],
    fits: Callable[[Any], bool] = lambda output: True,
) -> Path:
    """The path from the model's output, or from that of its last part whose output fits.

    Raises:
        Unreachable: there is no such output, or the model computes its loss itself.
    """
    calls = _outermost_calls(subject, model, run)
    module = next(
        (m for m in [model, *(m for m, _ in reversed(calls))] if any(m is c for c, _ in calls)),
        None,
    )
    if module is not model:
        module = next((m for m, output in reversed(calls) if fits(output)), module)
    outputs = [output for called, output in calls if called is module]
    if module is None:
        raise Unreachable("neither the model nor a part of it is called")
    if isinstance(module, torch.jit.ScriptModule):
        raise Unreachable("the model is compiled")
    if not all(map(numbers_in, outputs)):
        raise Unreachable("the model's output holds no numbers that could be replaced")
    if any(leaf.ndim == 0 for output in outputs for leaf in numbers_in(output)):
        raise Unreachable("the model computes its loss itself")
    return Path(run=run, module=module, outputs=outputs, subject=subject)


def _outermost_calls(
    subject: Subject, model: nn.Module, run: Callable[[], Any]
) -> list[tuple[nn.Module, Any]]:
    parts, calls, depth = set(model.modules()), [], 0

    def before(module: nn.Module, args: Any) -> None:
        nonlocal depth
        depth += module in parts

    def after(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal depth
        depth -= module in parts
        if depth == 0 and module in parts:
            calls.append((module, output))

    hooks = (register_module_forward_pre_hook(before), register_module_forward_hook(after))
    try:
        with subject.seeded("oracle"):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return calls


@contextmanager
def _answering(module: nn.Module, outputs: Sequence[Any]) -> Iterator[None]:
    """The module computes nothing and gives these outputs, call by call; its hooks run."""
    number = 0

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal number
        number += 1
        return outputs[min(number, len(outputs)) - 1]

    own = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]
        if own is not None:
            module.__dict__["forward"] = own


def numbers_in(output: Any) -> list[Tensor]:
    """The floating and complex tensors in a structure."""
    return [t for t in tensors_in(output) if t.is_floating_point() or t.is_complex()]


def attached(output: Any) -> Any:
    """The same numbers, each tensor a leaf that wants a gradient."""
    return changed(output, lambda t: t.detach().clone().requires_grad_())


def changed(output: Any, change: Callable[[Tensor], Tensor], only: Tensor | None = None) -> Any:
    """The same structure with its numbers changed, those of one tensor or all."""

    def one(leaf: Any) -> Any:
        numbers = isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
        return change(leaf) if numbers and (only is None or leaf is only) else leaf

    return map_leaves(output, one)


@dataclass(frozen=True, kw_only=True)
class Losing:
    """The training loss as a function of the network's output."""

    path: Path

    @classmethod
    def of(
        cls, subject: Subject, model: nn.Module, batch: Batch, fits: Callable[[Any], bool]
    ) -> "Losing":
        """From a model in eval mode; the loss is that of train mode.

        Raises:
            Unreachable: see `follow`.
        """

        def run() -> Any:
            return subject.loss(model, batch, Progress(epoch=1, epochs=LITMUS_EPOCHS))

        path = follow(subject, model.eval(), run, fits)
        model.train()
        return cls(path=path)

    def tensors(self, *outputs: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
        """(the total and each term, the tensors of the outputs), attached to each other.

        Args:
            outputs: one for every call of the model, or one for all of them.
        """
        own = [attached(outputs[k % len(outputs)]) for k in range(len(self.path.outputs))]
        losses = self.path.given(own)
        named = {"total": losses.total, **{f"term {n}": t for n, t in losses.terms.items()}}
        return named, [tensor for each in own for tensor in numbers_in(each)]

    def __call__(self, output: Any) -> dict[str, float]:
        """The total and each term."""
        return {name: float(value.detach()) for name, value in self.tensors(output)[0].items()}

    def beside(self, output: Any) -> bool:
        """Whether the total has a gradient that doesn't come through this output."""
        named, own = self.tensors(output)
        known = {id(tensor) for tensor in own}
        return any(id(leaf) not in known for leaf in leaves(named["total"]))
