"""What enters the model of a script, and what its loss over classes compares with."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from ris_diag.context import Subject
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.origins import OF_CLASSES, WEIGHING, Raw, are_tokens
from ris_diag.places import calling_place
from ris_diag.watched import DISSECTED, run_script


@dataclass(frozen=True, kw_only=True)
class Invoked:
    """A call of an outermost module in train mode, and the tokens [B, T] that it was given."""

    module: nn.Module
    args: Any
    tokens: Tensor
    place: str

    def given(self, tokens: Tensor) -> list[Tensor]:
        """What the module gives in eval mode with these tokens in place of its own."""
        modes = {module: module.training for module in self.module.modules()}
        args = map_leaves(self.args, lambda leaf: tokens if leaf is self.tokens else leaf)
        try:
            with torch.no_grad():
                return tensors_in(self.module.eval()(*args))
        finally:
            for module, training in modes.items():
                module.training = training


@dataclass
class Entered:
    """What was seen in the first steps.

    Attributes:
        raw: what the first layer with weights got of each call, as it is.
        calls: those that were given tokens.
        targets: class numbers that a loss was given.
        place: file:line of the user's code that called the model first.
    """

    raw: list[Raw] = field(default_factory=list)
    calls: list[Invoked] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    place: str = ""


def entered(subject: Subject) -> Entered:
    """Measured once."""

    def measure(subject: Subject) -> Entered:
        with _watching() as seen:
            run_script(subject, DISSECTED)
        return seen

    return subject.once("what enters a script's model", measure)


class _Targets(TorchFunctionMode):
    def __init__(self, seen: Entered) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function; note what a loss with a gradient is given."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in OF_CLASSES and result.requires_grad:
            target = kwargs["target"] if "target" in kwargs else args[1]
            if not target.is_floating_point():
                self.seen.targets.append(target.detach().clone())
        return result


@contextmanager
def _watching() -> Iterator[Entered]:
    seen, stack = Entered(), list[nn.Module]()
    waits = False  # for the first layer with weights of a call

    def before(module: nn.Module, args: Any) -> None:
        nonlocal waits
        own = module.training and torch.is_grad_enabled()
        if not stack and own and next(module.parameters(), None) is not None:
            waits = True
            seen.place = seen.place or calling_place()
            tokens = [t for t in tensors_in(args) if are_tokens(t)]
            if len(tokens) == 1:
                seen.calls.append(
                    Invoked(
                        module=module,
                        args=args,
                        tokens=tokens[0],
                        place=calling_place(),
                    )
                )
        stack.append(module)
        given = tensors_in(args)
        if waits and isinstance(module, WEIGHING) and given:
            waits = False
            if not given[0].requires_grad and given[0].ndim > 1:
                names = frozenset([f"the input of {type(stack[0]).__name__}"])
                values = given[0].detach().clone()
                seen.raw.append(Raw(names=names, layer=type(module).__name__, values=values))

    def behind(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal waits
        if stack and stack[-1] is module:
            stack.pop()
        waits = waits and bool(stack)

    hooks = (
        register_module_forward_pre_hook(before),
        register_module_forward_hook(behind, always_call=True),
    )
    try:
        with _Targets(seen):
            yield seen
    finally:
        for hook in hooks:
            hook.remove()
