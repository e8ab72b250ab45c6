"""What the modules of one run give, forward and backward, up to its first optimiser step."""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ris_diag.graph import tensors_in
from ris_diag.rounding import longest_sum

OUTSIDE = "outside of all modules"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Numbers of one module's call, on the CPU.

    Attributes:
        path: of the module, or the name of a parameter.
        length: of the longest sum behind one entry: the inputs of a unit, or the longest axis.
        values: tensors as they were computed, of any floating or complex dtype.
    """

    path: str
    length: int
    values: list[Tensor] = field(repr=False)


class Recorder:
    """Global hooks until the first optimiser step."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.names = {m: n or type(m).__name__ for n, m in model.named_modules()}
        self.outputs, self.slopes, self.gradients = list[Part](), list[Part](), list[Part]()
        self.draws: list[str] = []
        self._inside: list[str] = []
        self._state = torch.get_rng_state()
        self._done = False
        self._hooks = ExitStack()

    def __enter__(self) -> None:
        self._state = torch.get_rng_state()
        for hook in (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
            register_optimizer_step_pre_hook(self._step),
        ):
            self._hooks.callback(hook.remove)

    def __exit__(self, *error: object) -> None:
        self._hooks.close()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._look_for_draws()
        self._inside.append(self.names.get(module, type(module).__name__))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._look_for_draws()
        path = self._inside.pop()
        if self._done or output is None:  # an exception ended the call
            return
        values = [t for t in tensors_in(output) if counts(t)]
        length = longest_sum(module, [*tensors_in(args), *values])
        part = Part(path=path, length=length, values=[_kept(value) for value in values])
        self.outputs.append(part)
        for value in values:
            if value.requires_grad:
                value.register_hook(partial(self._arrive, part))  # type: ignore[no-untyped-call]

    def _arrive(self, part: Part, slope: Tensor) -> None:
        if not self._done:
            self.slopes.append(replace(part, values=[_kept(slope)]))

    def _step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._look_for_draws()
        if self._done:
            return
        self._done = True
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None and not parameter.grad.is_sparse:
                kept = _kept(parameter.grad)
                self.gradients.append(Part(path=name, length=1, values=[kept]))

    def _look_for_draws(self) -> None:
        state = torch.get_rng_state()
        if not torch.equal(state, self._state):
            self.draws.append(self._inside[-1] if self._inside else OUTSIDE)
        self._state = state


def _kept(value: Tensor) -> Tensor:
    return value.detach().cpu().clone()


def counts(value: Any) -> bool:
    """Whether it is a tensor of floating or complex numbers."""
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
