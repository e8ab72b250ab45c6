"""Five litmus steps on one device, recorded to be compared with the same steps on another."""

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

from ris_diag.case import Plan
from ris_diag.comparable import nudged, without_dropout, without_tf32
from ris_diag.context import Subject
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.measure import LITMUS_BATCH, LITMUS_EPOCHS, LITMUS_STEPS, accumulation, run_fit
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


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run from given weights on a given batch.

    Attributes:
        outputs: of every module call in front of the first step, in order of execution.
        slopes: gradients of those outputs, in the order in which backward made them.
        gradients: of the parameters at the first step.
        losses: real scalars, of every backward pass in turn.
        draws: modules that drew from the CPU's random numbers, in order; `OUTSIDE` for the rest.
    """

    device: str
    outputs: list[Part]
    slopes: list[Part]
    gradients: list[Part]
    losses: list[Tensor]
    draws: list[str]


def recorded(subject: Subject, device: torch.device, *, nudge: int = 0) -> RecordedRun:
    """Five steps of the case's loop from the subject's seed, without dropout and without TF32.

    Args:
        device: where it runs; weights and batch are made on the CPU and moved.
        nudge: change every weight and input by its last digit, up or down as this seed says; 0
            changes nothing.
    """
    other = Subject(subject.case, device, subject.seed)
    with other.seeded("recorded"), without_tf32():
        model, count = other.model(), accumulation(other)
        batch = other.batch("train", LITMUS_BATCH)
    if nudge:
        with other.seeded(f"nudge {nudge}"), torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(nudged(parameter))
            batch = map_leaves(batch, lambda leaf: nudged(leaf) if _counts(leaf) else leaf)
    with other.seeded("recorded steps"), without_tf32(), without_dropout(model):
        recorder = _Recorder(model)
        with recorder:
            fitted = run_fit(
                other,
                other.fit,
                model,
                Plan(epochs=LITMUS_EPOCHS, train=[batch] * count),
                stop_after=LITMUS_STEPS,
                planned=LITMUS_STEPS,
            )
    return RecordedRun(
        device=str(device),
        outputs=recorder.outputs,
        slopes=recorder.slopes,
        gradients=recorder.gradients,
        losses=[passes.value.cpu() for passes in fitted.trace.backward],
        draws=recorder.draws,
    )


class _Recorder:
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
            register_module_forward_hook(self._leave),
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
        if self._done:
            return
        values = [t for t in tensors_in(output) if _counts(t)]
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


def _counts(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
