"""Which tensors of a batch stand behind the ones that a model and its loss compute with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from ris_diag.graph import tensors_in

# Layers that multiply their input by weights that start at the size of a standardised input.
WEIGHING = (
    *(nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, nn.RNNCellBase),
    *(nn.Embedding, nn.EmbeddingBag),
)
WEIGHED = ""  # in place of a name: weights were at work already
OF_CLASSES = (F.cross_entropy, F.nll_loss)


@dataclass(frozen=True, kw_only=True)
class Raw:
    """What a layer with weights gets directly from the batch.

    Attributes:
        names: of the tensors of the batch that stand behind it.
        layer: name of the layer.
        values: as they enter it, at least one axis.
    """

    names: frozenset[str]
    layer: str
    values: Tensor


class Origins(TorchFunctionMode):
    """Follows the tensors of a batch through every operation inside the `with`.

    Attributes:
        used: names of those that entered any operation.
        touched: names of those that entered an operation inside of the watched model.
        tokens: whole numbers [B, T] that entered such calls.
        targets: whole numbers that a loss over classes was given.
        raw: what layers with weights got before any other weights were at work.
        derivatives: whether derivatives were taken, as of a network that solves an equation.
    """

    def __init__(self, roots: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.touched: set[str] = set()
        self._given: set[str] = set()
        self.tokens: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.raw: list[Raw] = []
        self.derivatives = False
        self._names = {id(tensor): frozenset([name]) for name, tensor in roots.items()}
        self._held: list[Any] = list(roots.values())  # an id stays its tensor's while it is held
        self._depth = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function; what it gives comes from wherever its arguments come from."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        names = self.of((args, kwargs))
        if names:
            self.used |= names
            self.touched |= names if self._depth else set()
            changed = args[:1] if result is None else ()  # __setitem__ gives nothing
            self._mark((result, changed), names)
        self.derivatives |= func is torch.autograd.grad
        if func in OF_CLASSES:
            target = kwargs["target"] if "target" in kwargs else args[1]
            if not target.is_floating_point():
                self.targets.append(target.detach().clone())
        return result

    @property
    def entered(self) -> set[str]:
        """Names of those that the outermost calls of a watched model got, and read where it shows.

        A model that takes a whole batch gets its labels as well.
        """
        return self._given & self.touched or self._given

    def of(self, value: Any) -> frozenset[str]:
        """Names of the batch's tensors behind those in a structure."""
        found: frozenset[str] = frozenset()
        for tensor in tensors_in(value):
            found |= self._names.get(id(tensor), frozenset())
        return found

    def _mark(self, value: Any, names: frozenset[str]) -> None:
        for tensor in tensors_in(value):
            self._names[id(tensor)] = names
            self._held.append(tensor)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Note what enters the model and its layers inside the `with`."""
        with ExitStack() as stack:
            for name, module in model.named_modules():
                for handle in (
                    module.register_forward_pre_hook(self._before(name), with_kwargs=True),
                    module.register_forward_hook(self._behind, always_call=True),
                ):
                    stack.callback(handle.remove)
            yield

    def _before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._depth += 1
            given = tensors_in((args, kwargs))
            if self._depth == 1:
                self._given |= self.of(given) - {WEIGHED}
                self.tokens += [t.detach().clone() for t in given if are_tokens(t)]
            first = given[0] if given else None
            if isinstance(module, WEIGHING) and first is not None and first.ndim:
                names = self.of(first)
                if names and WEIGHED not in names:
                    values = first.detach().clone()
                    layer = name or type(module).__name__
                    self.raw.append(Raw(names=names, layer=layer, values=values))

        return hook

    def _behind(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth -= 1
        if isinstance(module, WEIGHING) and output is not None:
            self._mark(output, self.of(output) | {WEIGHED})


def are_tokens(tensor: Tensor) -> bool:
    """Whether these are whole numbers, [B, T]."""
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    return whole and tensor.ndim == 2
