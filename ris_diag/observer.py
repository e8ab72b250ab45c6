"""Watches a running training through PyTorch's own hooks; nothing stays behind."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ris_diag.graph import leaves, nodes, tensors_in
from ris_diag.norms import hash_of, norm_of, product, stacked, transformed, zeros_of
from ris_diag.operations import Operations
from ris_diag.places import calling_place
from ris_diag.trace import Backward, Call, Step, Trace, Usage
from ris_diag.undone import Turned, Undone, glimpse, rounded_away


class TrainingStopped(BaseException):
    """Ends a loop after the asked number of steps; no `except Exception` swallows it."""


class Served:
    """Batches that say when they are being gone through, as training or as validation."""

    def __init__(self, batches: Iterable[Any], trace: Trace, phase: str) -> None:
        self.batches, self.trace, self.phase = batches, trace, phase

    def __iter__(self) -> Iterator[Any]:
        before = self.trace.phase
        try:
            for batch in self.batches:
                self.trace.phase = self.phase
                hashes = frozenset(map(hash_of, tensors_in(batch)))
                if self.phase == "train":
                    self.trace.batches += 1
                    self.trace.served.append(hashes)
                else:
                    self.trace.validated.append(hashes)
                yield batch
        finally:
            self.trace.phase = before

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # raises as the batches themselves do


@contextmanager
def observe(
    model: nn.Module | None = None, *, stop_after: int | None = None, operations: bool = False
) -> Iterator[Trace]:
    """Watch all training inside the `with`; nothing stays behind after it.

    Args:
        model: names the parameters; without it they get names as they are met.
        stop_after: ends the body of the `with` after so many steps of one optimiser.
        operations: look at every operation, too; a step then takes several times as long.

    Yields:
        the trace, filled while the body runs.
    """
    trace = Trace()
    watch = _Watch(trace, stop_after)
    if model is not None:
        watch.add_module(model)
    with ExitStack() as stack:
        for hook in (
            register_optimizer_step_pre_hook(watch.before_step),
            register_optimizer_step_post_hook(watch.after_step),
            register_module_forward_pre_hook(watch.before_forward),
            register_module_forward_hook(watch.after_forward, always_call=True),
        ):
            stack.callback(hook.remove)
        for owner, name, replacement in (
            (torch.autograd, "backward", watch.backward(torch.autograd.backward)),
            (torch.autograd, "grad", watch.taking(torch.autograd.grad)),
            (torch.amp.GradScaler, "scale", watch.scale(torch.amp.GradScaler.scale)),
            *(
                (owner, name, watch.noted(getattr(owner, name), event))
                for owner, name, event in NOTED
            ),
            *(
                (owner, "__init__", watch.building(owner.__init__))
                for owner in (Optimizer, LRScheduler, ReduceLROnPlateau)
            ),
        ):
            stack.enter_context(patch.object(owner, name, replacement))
        if operations:
            trace.operations = stack.enter_context(Operations())
        try:
            yield trace
        except TrainingStopped:
            if stop_after is None:
                raise
        finally:
            watch.finish()


NOTED = (
    (torch.amp.GradScaler, "unscale_", "unscale"),
    (torch.amp.GradScaler, "step", "scaler.step"),
    (torch.amp.GradScaler, "update", "scaler.update"),
    (LRScheduler, "step", "scheduler"),
    (ReduceLROnPlateau, "step", "scheduler"),
    (Optimizer, "zero_grad", "zero_grad"),
    (nn.Module, "zero_grad", "zero_grad"),
    # What clip_grad_norm_ calls, however it was imported.
    (torch.nn.utils.clip_grad, "_clip_grads_with_norm_", "clip"),
)


class _Watch:
    """The hooks, and what they have to remember between two calls."""

    def __init__(self, trace: Trace, stop_after: int | None) -> None:
        self.trace = trace
        self.stop_after = stop_after
        self._number: dict[int, int] = {}
        self._named: set[nn.Module] = set()
        self._depth = 0
        self._hash: int | None = None
        self._in_step = self._in_backward = False
        self._raw: Tensor | None = None
        self._left: Tensor | None = None
        self._scales: dict[int, float] = {}
        self._cleared: dict[int, bool] = {}
        self._before: tuple[list[int], Tensor, Tensor, Tensor, list[Tensor]] | None = None
        self._undone: dict[Optimizer, Undone] = {}
        self._undone_now = 0.0
        self._halved_now: torch.dtype | None = None
        self._turned, self._turned_now = Turned(), 1.0
        self._seen: list[Tensor] = []
        self._graphs: list[tuple[int, set[Any]]] = []

    def add(self, parameter: Tensor, name: str) -> int:
        """Number of a parameter, a new one where it wasn't seen before."""
        number = self._number.get(id(parameter))
        if number is None:
            number = self._number[id(parameter)] = len(self.trace.names)
            self.trace.names.append(name)
            self.trace.parameters.append(parameter)
        return number

    def add_module(self, module: nn.Module, prefix: str = "") -> None:
        """Names for the parameters of a module."""
        self._named.add(module)
        for name, parameter in module.named_parameters():
            self.add(parameter, prefix + name)

    def norms(self) -> Tensor:
        """Gradient norm of every parameter, float64 [P]; -1 where there is no gradient."""
        return stacked([norm_of(p.grad) for p in self.trace.parameters])

    def backward(self, original: Callable[..., None]) -> Callable[..., None]:
        """`torch.autograd.backward`, noted."""

        def noted(tensors: Any, *args: Any, **kwargs: Any) -> None:
            roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
            graphs = [nodes(root) for root in roots]
            reached = [
                self.add(leaf, f"tensor {list(leaf.shape)}")
                for root, graph in zip(roots, graphs, strict=True)
                for leaf in leaves(root, graph)
            ]
            carried = self._carried([node for graph in graphs for node in graph])
            if not self.trace.optimizers:
                self._look_for_updates()
            before = self.norms()
            for number, optimizer in enumerate(self.trace.optimizers):
                held = [self._number[id(p)] for p in _parameters(optimizer)]
                self._cleared[number] |= bool((before[held] <= 0).all())
            self._in_backward = True
            try:
                original(tensors, *args, **kwargs)
            except Exception as error:
                self.trace.raised.append(f"{type(error).__name__} in backward()")
                raise
            finally:
                self._in_backward = False
            after = self._raw = self.norms()
            self._turned.arrived(self.trace.parameters)
            self.trace.events.append("backward")
            place = calling_place()
            for root in roots:
                scale = self._scales.pop(id(root), 1.0)
                self.trace.backward.append(
                    Backward(
                        value=root.detach().clone() / scale,
                        before=torch.where(before > 0, before / scale, before),
                        after=torch.where(after > 0, after / scale, after),
                        scale=scale,
                        reached=frozenset(reached),
                        carried=carried,
                        inside_step=self._in_step,
                        batch=self.trace.batches,
                        phase=self.trace.phase,
                        place=place,
                    )
                )

        return noted

    def _look_for_updates(self) -> None:
        """Count weights that move although no optimiser has stepped yet."""
        now = [glimpse(p).clone() for p in self.trace.parameters]
        pairs = zip(self._seen, now, strict=False)
        self.trace.updated_by_hand += any(not torch.equal(old, new) for old, new in pairs)
        self._seen = now

    def _carried(self, graph: list[Any]) -> bool:
        """Whether a graph holds operations of an earlier batch, or of three passes ago."""
        now = {node for node in graph if not hasattr(node, "variable")}
        batch = self.trace.batches
        older = [old for number, old in self._graphs if number < batch or not batch]
        reference = older[-1 if batch else 0] if older and (batch or len(older) > 2) else set()
        self._graphs = [*self._graphs[-2:], (batch, now)]
        return bool(now & reference)

    def finish(self) -> None:
        """Note what can only be seen at the end."""
        for module, usage in self.trace.usage.items():
            mean = getattr(module, "running_mean", None)
            if usage.statistics is not None and mean is not None:
                usage.moved = not torch.equal(usage.statistics, mean)

    def scale(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`GradScaler.scale`, its factor kept for the backward pass that follows."""

        def noted(scaler: Any, outputs: Any) -> Any:
            scaled = original(scaler, outputs)
            if isinstance(scaled, Tensor):
                self._scales[id(scaled)] = float(scaler.get_scale())
            return scaled

        return noted

    def taking(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """`torch.autograd.grad`, counted where the user calls it."""

        def grad(*args: Any, **kwargs: Any) -> Any:
            self.trace.gradients_taken += bool(calling_place())
            return original(*args, **kwargs)

        return grad

    def building(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """A constructor whose place is noted."""

        def init(built: Any, *args: Any, **kwargs: Any) -> None:
            self.trace.built[id(built)] = calling_place()
            original(built, *args, **kwargs)
            if isinstance(built, Optimizer):
                self.trace.made.append(built)

        return init

    def noted(self, original: Callable[..., Any], event: str) -> Callable[..., Any]:
        """A method whose calls are noted as an event."""

        def method(*args: Any, **kwargs: Any) -> Any:
            if event == "unscale" and self._raw is not None:
                optimizer = kwargs["optimizer"] if "optimizer" in kwargs else args[1]
                held = [self._number.get(id(p), len(self._raw)) for p in _parameters(optimizer)]
                numbers = [number for number in held if number < len(self._raw)]
                if self._shrank(self._raw[numbers], numbers):
                    self.trace.events.append("clip scaled")
            last = next((e for e in reversed(self.trace.events) if e != "clip"), "")
            if event == "zero_grad" and last == "step":
                step = self.trace.steps[-1]
                if self._shrank(self._left, step.numbers):
                    self.trace.events.append("clip late")
            # Every scheduler takes a step of its own when it is built.
            if not (event == "scheduler" and getattr(args[0], "_is_initial", False)):
                self.trace.events.append(event)
            steps = len(self.trace.steps)
            result = original(*args, **kwargs)
            if event == "scaler.step" and len(self.trace.steps) == steps and self.trace.backward:
                self.trace.backward[-1] = replace(self.trace.backward[-1], skipped=True)
            return result

        return method

    def _shrank(self, since: Tensor | None, numbers: list[int]) -> bool:
        """Whether gradients are smaller than they were, and not gone."""
        if since is None:
            return False
        now = self.norms()[numbers]
        return bool(((now > 0) & (now < 0.999 * since)).any())

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Note weights and gradients as the step finds them."""
        held = _parameters(optimizer)
        numbers = [self.add(p, f"parameter {n} of the optimiser") for n, p in enumerate(held)]
        if optimizer not in self.trace.optimizers:
            self._cleared[len(self.trace.optimizers)] = True
            self.trace.optimizers.append(optimizer)
        with torch.no_grad():
            copies = [p.detach().clone() for p in held]
            gradients = stacked([norm_of(p.grad) for p in held])
            zeros = stacked([zeros_of(p.grad) for p in held])
            self._turned_now = self._turned.cosine(held)
        self._before = (numbers, gradients, zeros, stacked([norm_of(p) for p in copies]), copies)
        undone = self._undone.setdefault(optimizer, Undone())
        self._undone_now, self._halved_now = undone.share(held), undone.halved(held)
        self._in_step = True

    def after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Note what moved; end the training if it was long enough."""
        self._in_step = self._in_backward = False
        if self._before is None:
            return
        numbers, gradients, zeros, weights, copies = self._before
        number = self.trace.optimizers.index(optimizer)
        held = _parameters(optimizer)
        updates = [p.detach() - c for p, c in zip(held, copies, strict=False)]
        self.trace.steps.append(
            Step(
                optimizer=number,
                rates=[float(group["lr"]) for group in optimizer.param_groups],
                numbers=numbers,
                gradients=gradients,
                weights=weights,
                moved=stacked([norm_of(update) for update in updates]),
                zeros=zeros,
                expected=-sum(map(product, held, updates)),
                cleared=self._cleared[number],
                backward=len(self.trace.backward),
                place=calling_place(),
                undone=self._undone_now,
                turned=self._turned_now,
                rounded=rounded_away(held, updates),
                halved=self._halved_now,
            )
        )
        with torch.no_grad():
            self._undone[optimizer].stepped(held, copies)
        self.trace.events.append("step")
        self._left = self.norms()[numbers]  # an optimiser may change them itself
        self._cleared[number] = False
        self._before = None
        if self.stop_after is not None and self.trace.rounds >= self.stop_after:
            raise TrainingStopped

    def before_forward(self, module: nn.Module, args: Any) -> None:
        """Note how a module is used."""
        if self._depth == 0:
            self._hash = None
            if module not in self._named:
                self.add_module(module, "" if not self.trace.names else f"{type(module).__name__}.")
        self._depth += 1
        tensor = next((a for a in args if isinstance(a, Tensor)), None)
        if self._hash is None and tensor is not None and not transformed():
            self._hash = hash_of(tensor)
        usage = self.trace.usage.setdefault(module, Usage())
        usage.calls += 1
        usage.modes.add((self.trace.phase, module.training, torch.is_grad_enabled()))
        if isinstance(module, _BatchNorm) and tensor is not None and not transformed():
            if usage.statistics is None and module.running_mean is not None:
                usage.statistics = module.running_mean.clone()
            if module.training:
                values = tensor.numel() // max(1, module.num_features)
                usage.smallest = min(values, usage.smallest or values)

    def after_forward(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note the call of an outermost module."""
        self._depth -= 1
        if self._depth == 0:
            error = sys.exc_info()[0]  # a hook runs behind an exception, too
            # Checkpointing ends its second forward, inside of backward, by an exception.
            if error is not None and output is None and not self._in_backward:
                self.trace.raised.append(f"{error.__name__} in a call of {type(module).__name__}")
            self.trace.calls.append(
                Call(
                    module=module,
                    phase=self.trace.phase,
                    training=module.training,
                    gradient=torch.is_grad_enabled(),
                    input_hash=self._hash,
                    backward=len(self.trace.backward),
                )
            )


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
