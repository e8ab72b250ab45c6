"""One training step, operation by operation: what goes into the loss, and where it comes from."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode

from ris_diag.graph import tensors_in
from ris_diag.operation_names import (
    ACTIVATIONS,
    COMPARISONS,
    FLAT,
    HALF,
    JOINS,
    LOSSES,
    PLACED,
    RESHAPES,
    SUMS,
)
from ris_diag.places import calling_place, made_by_toolkit


@dataclass(frozen=True, kw_only=True)
class Called:
    """A call worth noting.

    Attributes:
        name: of the function: "cross_entropy", "softmax", "sub".
        module: path and type of the innermost module that made the call, "" outside of all.
        place: file:line of the user's code.
        args: its tensors and numbers by name; positional ones under their number.
        output: what it gave.
    """

    name: str
    module: str
    place: str
    args: dict[str, Any]
    output: Any

    def get(self, name: str, position: int, default: Any = None) -> Any:
        """An argument, whichever way it was passed."""
        return self.args.get(name, self.args.get(str(position), default))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Two linear layers with nothing between them that bends, where something was meant to.

    They have one parent, or the first is of a Sequential in which nothing bends.

    Attributes:
        first, second: paths of the modules.
        place: file:line of the second call.
        widths: features in front, between and behind.
    """

    first: str
    second: str
    place: str
    widths: tuple[int, int, int]


@dataclass
class Anatomy:
    """What one or a few steps show.

    Attributes:
        losses: calls of PyTorch's losses with a prediction that requires a gradient.
        compared: the same, and differences between a prediction and what is none, outside of
            modules with parameters.
        activations: calls of softmax, relu and the like, of dropout too.
        chains: linear layers behind linear layers.
        linear: how often each linear layer was called.
        shared: linear layers whose output something else than a linear layer computes with, too.
        swallowed: sums of values and a much larger constant that something is divided by.
        normalised: softmax and its like, by PyTorch or by hand, of what is normalised already.
        flat: roundings and the like, whose slope is zero, of what has a gradient.
        sampled: draws whose distribution has a gradient and which enter a module without one.
        broken: calls with finite input and an output that isn't.
        halves: half-precision dtypes in which something with a gradient was computed.
        reduced: losses and sums over samples whose result is in half precision, outside of
            modules with parameters.
        whole: numbers made of whole numbers, by id.
        outputs: what the outermost modules with parameters gave, each with its gradient once
            there was a backward pass.
    """

    losses: list[Called] = field(default_factory=list)
    compared: list[Called] = field(default_factory=list)
    activations: list[Called] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    linear: Counter[str] = field(default_factory=Counter)
    shared: set[str] = field(default_factory=set)
    swallowed: list[Called] = field(default_factory=list)
    normalised: list[Called] = field(default_factory=list)
    flat: list[Called] = field(default_factory=list)
    sampled: list[Called] = field(default_factory=list)
    broken: list[Called] = field(default_factory=list)
    halves: set[torch.dtype] = field(default_factory=set)
    reduced: list[Called] = field(default_factory=list)
    outputs: list["Output"] = field(default_factory=list)
    whole: dict[int, Tensor] = field(default_factory=dict, repr=False)
    makers: dict[int, tuple[Tensor, Called]] = field(default_factory=dict, repr=False)

    def maker(self, tensor: Tensor) -> Called | None:
        """The activation that gave the numbers of this tensor, seen through reshapes and joins."""
        _, called = self.makers.get(id(tensor), (None, None))
        return called


@dataclass
class Output:
    """A tensor that an outermost module gave, what entered it, and the gradient that came back."""

    module: str
    value: Tensor
    entered: list[Tensor]
    gradient: Tensor | None = None

    def arrive(self, gradient: Tensor) -> None:
        """The hook of the tensor: adds up what comes back by several ways."""
        gradient = gradient.detach()
        self.gradient = gradient if self.gradient is None else self.gradient + gradient


SWALLOWED = 10.0  # times the largest value, a constant leaves nothing of it


class _Mode(TorchFunctionMode):
    def __init__(self, anatomy: Anatomy, names: dict[nn.Module, str], steps: int) -> None:
        super().__init__()
        self.anatomy, self.names, self.steps = anatomy, names, steps
        self.stack: list[nn.Module] = []
        self.linear: dict[int, tuple[Tensor, str, tuple[int, int], bool]] = {}
        self.done = 0
        self.sums: dict[int, tuple[Tensor, Called]] = {}
        self.drawn: dict[int, tuple[Tensor, Called]] = {}
        self.folded: dict[int, tuple[Tensor, Called]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function and note it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.done >= self.steps or made_by_toolkit():
            return result
        self._follow(_name(func), args, kwargs, result)
        return result

    def _follow(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        seen = self.anatomy
        inputs = tensors_in((args, list(kwargs.values())))
        trained = [t for t in inputs if t.requires_grad]
        if name in LOSSES and trained:
            called = self._called(name, args, kwargs, result)
            seen.losses.append(called)
            seen.compared.append(called)
        elif name in COMPARISONS and trained and len(trained) < len(inputs) and self._outside():
            seen.compared.append(self._called(name, args, kwargs, result))
        elif name in ACTIVATIONS and isinstance(result, Tensor):
            called = self._called(name, args, kwargs, result)
            seen.activations.append(called)
            if not name.startswith("dropout") and name != "alpha_dropout":
                seen.makers[id(result)] = (result, called)
        elif inputs and (name in RESHAPES or name in JOINS):
            sources = inputs if name in JOINS else inputs[:1]
            kept = [seen.makers[id(source)][1] for source in sources if id(source) in seen.makers]
            if len(kept) == len(sources) and len({called.name for called in kept}) == 1:
                seen.makers.update({id(part): (part, kept[0]) for part in tensors_in(result)})
        if name in RESHAPES and inputs and isinstance(result, Tensor):
            source = inputs[0]
            counts = not (source.is_floating_point() or source.is_complex())
            if result.is_floating_point() and (counts or id(source) in seen.whole):
                seen.whole[id(result)] = result
        if name in FLAT and trained:
            seen.flat.append(self._called(name, args, kwargs, result))
        if isinstance(result, Tensor) and result.requires_grad and result.dtype in HALF:
            self._follow_half(name, args, kwargs, result)
        self._follow_normalising(name, args, kwargs, result, trained)
        self._follow_linear(name, args, inputs, result)
        self._follow_draws(name, (args, kwargs, result), trained)
        self._follow_constant(name, args, kwargs, result)
        if name not in PLACED and isinstance(result, Tensor) and _breaks(inputs, result):
            seen.broken.append(self._called(name, args, kwargs, result))

    def _follow_draws(self, name: str, called: tuple[Any, Any, Any], trained: list[Tensor]) -> None:
        """Draws from what has a gradient: none comes back, or zeros."""
        if name in LOSSES or name in COMPARISONS:  # the likelihood of a draw is a way of its own
            for scored in [self.drawn.pop(id(t), None) for t in tensors_in(called[:2])]:
                seen = self.anatomy.sampled
                self.anatomy.sampled = [c for c in seen if scored is None or c is not scored[1]]
        drawn = name == "normal" or (name == "bernoulli" and torch.is_grad_enabled())
        if drawn and trained and self.stack:
            self.drawn[id(called[2])] = (called[2], self._called(name, *called))

    def _follow_half(self, name: str, args: Any, kwargs: Any, result: Tensor) -> None:
        self.anatomy.halves.add(result.dtype)
        # One number, or one a sample: what has more axes may be features on their way to a layer.
        if (name in LOSSES or (name in SUMS and result.ndim < 2)) and self._outside():
            self.anatomy.reduced.append(self._called(name, args, kwargs, result))

    def _follow_normalising(
        self, name: str, args: Any, kwargs: Any, result: Any, trained: list[Tensor]
    ) -> None:
        """A softmax of probabilities, or log(1 + exp(-|p|)) of one: the loss does it again."""
        if not trained or not self._outside() or not isinstance(result, Tensor):
            return
        source = trained[0]
        kept = self.anatomy.makers.get(id(source)) or self.folded.get(id(source))
        if name in ("neg", "abs") and kept is not None and kept[1].name == "sigmoid":
            self.folded[id(result)] = (result, kept[1])
        elif name == "exp" and id(source) in self.folded:
            self.anatomy.normalised.append(self._called(name, args, kwargs, result))
        elif name in ("logsumexp", "log_softmax", "softmax") and source.ndim > 1:
            dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
            if isinstance(dim, int) and are_probabilities(source, dim):
                self.anatomy.normalised.append(self._called(name, args, kwargs, result))

    def _follow_constant(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """A constant in a denominator that is larger than all that it is added to."""
        if name in ("div", "true_divide", "truediv") and len(args) > 1:
            kept = self.sums.get(id(args[1]))
            if kept is not None:
                self.anatomy.swallowed.append(kept[1])
        if name not in ("add", "radd") or len(args) < 2 or not isinstance(result, Tensor):
            return
        values, constant = args[:2] if isinstance(args[0], Tensor) else args[1::-1]
        if not isinstance(constant, float) or not isinstance(values, Tensor) or constant <= 0:
            return
        largest = float(values.detach().abs().max()) if values.numel() > 1 else math.inf
        if 0 < SWALLOWED * largest < constant:
            self.sums[id(result)] = (result, self._called(name, args, kwargs, result))

    def _follow_linear(self, name: str, args: Any, inputs: list[Tensor], result: Any) -> None:
        if not isinstance(result, Tensor) or not inputs:
            return
        if name == "linear":
            path, weight = self._path(), inputs[1]
            self.anatomy.linear[path] += 1
            before = self.linear.get(id(inputs[0]))
            if before is not None and path and (_parent(before[1]) == _parent(path) or before[3]):
                widths = (*before[2], weight.shape[0])
                self.anatomy.chains.append(
                    Chain(first=before[1], second=path, place=calling_place(), widths=widths)
                )
            shape = (weight.shape[1], weight.shape[0])
            self.linear[id(result)] = (result, path, shape, self._in_bare_container())
        elif name in RESHAPES or name in ("dropout", "alpha_dropout"):
            kept = self.linear.get(id(inputs[0]))
            if kept is not None:
                self.linear[id(result)] = (result, *kept[1:])
        elif result.requires_grad:
            self.anatomy.shared |= {self.linear[id(t)][1] for t in inputs if id(t) in self.linear}

    def _in_bare_container(self) -> bool:
        """Whether the linear layer at work stands in a Sequential in which nothing bends."""
        container = self.stack[-2] if len(self.stack) > 1 else None
        return isinstance(container, nn.Sequential) and all(
            isinstance(child, nn.Linear | nn.Identity | nn.Dropout | nn.Flatten)
            for child in container
        )

    def _called(self, name: str, args: Any, kwargs: Any, result: Any) -> Called:
        return Called(
            name=name,
            module=self._shown_path(),
            place=calling_place(),
            args={**{str(k): a for k, a in enumerate(args)}, **kwargs},
            output=result,
        )

    def _path(self) -> str:
        return self.names.get(self.stack[-1], type(self.stack[-1]).__name__) if self.stack else ""

    def _shown_path(self) -> str:
        """Path and type of the module at work: "net.5 (ReLU)"."""
        path, kind = self._path(), type(self.stack[-1]).__name__ if self.stack else ""
        return path if path == kind else f"{path} ({kind})"

    def _outside(self) -> bool:
        """Whether no module with parameters of its own is at work."""
        return not any(next(module.parameters(), None) is not None for module in self.stack)

    def stepped(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """An optimiser took a step: what was kept for it may go."""
        self.done += 1
        self.linear.clear()
        self.sums.clear()
        self.drawn.clear()
        self.folded.clear()

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module begins."""
        if self.drawn and next(module.parameters(), None) is not None:
            entering = [self.drawn.get(id(a)) for a in tensors_in(args)]
            self.anatomy.sampled += [kept[1] for kept in entering if kept is not None]
        if not self.stack:
            for name, inner in module.named_modules():
                self.names.setdefault(inner, name or type(module).__name__)
        self.stack.append(module)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """A module ends; what outermost ones give is followed to its gradient."""
        if self.stack and self.stack[-1] is module:
            self.stack.pop()
        if self.done >= self.steps or not self._outside():
            return
        if next(module.parameters(), None) is None:
            return
        for tensor in tensors_in(output):
            if tensor.requires_grad and not tensor.is_leaf:
                kept = Output(
                    module=self.names.get(module, ""), value=tensor, entered=tensors_in(args)
                )
                self.anatomy.outputs.append(kept)
                tensor.register_hook(kept.arrive)  # type: ignore[no-untyped-call]


@contextmanager
def dissect(model: nn.Module | None = None, *, steps: int = 1) -> Iterator[Anatomy]:
    """Look at every operation of the first steps inside the `with`; nothing stays behind.

    Args:
        model: names its modules.
        steps: of an optimiser, after which operations are passed through.
    """
    anatomy = Anatomy()
    names = {} if model is None else {m: n or type(m).__name__ for n, m in model.named_modules()}
    mode = _Mode(anatomy, names, steps)
    with ExitStack() as stack:
        hooks = (
            register_module_forward_pre_hook(mode.enter),
            register_module_forward_hook(mode.leave, always_call=True),
            register_optimizer_step_post_hook(mode.stepped),
        )
        for hook in hooks:
            stack.callback(hook.remove)
        stack.enter_context(mode)
        yield anatomy


def _name(func: Callable[..., Any]) -> str:
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name).strip("_") if str(name).startswith("__") else str(name)


def are_probabilities(values: Tensor, dim: int, tolerance: float = 1e-3) -> bool:
    """Whether entries along `dim` are shares of several classes that sum to one."""
    if values.shape[dim] < 2 or values.is_complex():
        return False
    values = values.detach().double()
    inside = bool(((values >= 0) & (values <= 1 + tolerance)).all())
    return inside and bool(((values.sum(dim) - 1).abs() <= tolerance).all())


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _breaks(inputs: list[Tensor], result: Tensor) -> bool:
    """Whether finite numbers went in and something else came out."""
    if not (result.is_floating_point() or result.is_complex()) or not result.numel():
        return False
    if any(t.layout != torch.strided for t in (*inputs, result)):
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    with torch.no_grad(), torch._C.DisableTorchFunction():
        return not bool(torch.isfinite(result).all()) and all(
            bool(torch.isfinite(t).all()) for t in inputs if t.is_floating_point() or t.is_complex()
        )
