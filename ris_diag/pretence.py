"""A GPU that isn't there: where every tensor would stand, on the numbers of the CPU.

Tensors that the code under test moves to the pretended device stay on the CPU and are marked, by
their storage. They say that they are on CUDA when they are asked, whatever is computed from them
is marked, too, and what meets them without a mark would be an error on a real one.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from unittest.mock import patch

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ris_diag.graph import tensors_in
from ris_diag.places import calling_place, calling_text, direct_place, made_by_toolkit
from ris_diag.standing import (
    PARAMETER,
    Call,
    Marks,
    Meeting,
    Origin,
    Pretended,
    share_memory,
)

DEVICE = torch.device("cuda", 0)


# fmt: off
WAITS = frozenset({
    "tolist", "equal", "allclose", "unique", "unique_consecutive", "__format__", "__repr__", "cpu",
})
MOVES = frozenset({"to", "cpu", "cuda", "type", "type_as"})
# Operations that read a number, or whose result has a shape that depends on values.
READS = frozenset({
    "_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "masked_select", "repeat_interleave",
})
COPIES = frozenset({"copy_", "set_", "_foreach_copy_"})
# Operations that want lengths on the CPU (ctc_loss divides by them, too), and how many of their
# outputs stand on the device.
LENGTHS = {"_pack_padded_sequence": 1, "_ctc_loss": 2, "_ctc_loss_backward": 1}
JOINING = frozenset({"cat", "stack"})  # scalars, too, must stand where the others do
INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
OF_THE_CPU = frozenset({
    f"{module}{kind}Tensor"
    for module in ("", "torch.")
    for kind in (
        "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte", "Char", "Bool",
    )
})
# fmt: on


class _Functions(TorchFunctionMode):
    """What Python code calls: answers for marked tensors, moves and makes as it is asked to."""

    def __init__(self, seen: Pretended) -> None:
        super().__init__()
        self.seen = seen
        self.there = Marks()  # True: on the device
        self.origins = Marks()
        self.names: list[tuple[str, bool]] = []  # of the calls that run: on tensors of the device?
        self.met: set[int] = set()
        self.forward = False
        self._here: list[torch.device] = []  # answers of tensors on the CPU

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function as if the device were there."""
        kwargs = kwargs or {}
        name = _name(func)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        marked = first is not None and bool(self.there.of(first))
        if first is not None and name in ("device", "is_cuda", "is_cpu", "get_device"):
            return self._answer(name, marked, func(*args))
        if func is torch.device:
            return self._named(func(*args, **kwargs))
        backward = not _is_property(func) and (
            name == "backward" or (name == "grad" and not kwargs.get("create_graph"))
        )
        self.forward &= not backward
        if marked:
            self._note_conversion(name, args, kwargs)
        elif name in ("tensor", "as_tensor") and any(map(self.there.of, tensors_in(args[:1]))):
            self.read(name)
        target = None if isinstance(func, OpOverload) else self._target(name, args, kwargs)
        self._note_draw(name, args, kwargs, marked or target is True)
        args, kwargs = tree_map(_on_cpu, args), tree_map(_on_cpu, kwargs)
        if name == "cuda":
            func, args, kwargs = Tensor.to, (*args[:1], "cpu"), {}
        self.names.append((name, any(self.there.of(t) for t in tensors_in([args, kwargs]))))
        # Where the number of classes is known, one_hot looks at values on the CPU alone.
        forward = self.forward and not backward
        self.forward &= name != "one_hot" or len(args) + len(kwargs) < 2
        try:
            result = func(*args, **kwargs)
        finally:
            self.names.pop()
            self.forward = forward or (self.forward and not backward)
        if name == "__deepcopy__" and marked:
            self.there.put(result, True)
        if name == "_pad_packed_sequence":  # gives lengths, which stay on the CPU
            self.there.put(result[1], False)
        return result if target is None else self._placed(name, first, marked, target, result)

    def _answer(self, name: str, marked: bool, real: Any) -> Any:
        if name != "device":
            return {"is_cuda": marked, "is_cpu": not marked, "get_device": marked - 1}[name]
        if not marked:
            self._here.append(real)
        return DEVICE if marked else real

    def _named(self, device: torch.device) -> torch.device:
        """A device that is made by name: one that is written "cpu" is meant."""
        if device.type == "cpu" and '"cpu"' in _quoted():
            self._here.append(device)
        return device

    def _target(self, name: str, args: Any, kwargs: Any) -> bool | None:
        """Whether the result shall stand on the device; None where nothing says so."""
        if name in ("cpu", "cuda"):
            return name == "cuda"
        asked = kwargs.get("device")
        if name in ("to", "type_as") and asked is None:
            asked = kwargs.get("other", args[1] if len(args) > 1 else None)
        elif name == "new_tensor" and asked is None:
            asked = args[0]
        elif name == "type" and len(args) > 1:
            return False if str(getattr(args[1], "__name__", args[1])) in OF_THE_CPU else None
        if isinstance(asked, Tensor):
            return bool(self.there.of(asked))
        if isinstance(asked, bool) or not isinstance(asked, str | int | torch.device):
            return None
        if isinstance(asked, int) or torch.device(asked).type == "cuda":
            return True
        if any(asked is device for device in self._here) or '"cpu"' in _quoted():
            return False
        # Where CUDA isn't there a variable of the user is "cpu" by necessity.
        return name == "to" or bool(direct_place())

    def _placed(
        self, name: str, first: Tensor | None, marked: bool, target: bool, result: Any
    ) -> Any:
        """The result where it shall stand; a tensor that moves is copied."""
        stays = name in MOVES and marked == target
        if not isinstance(result, Tensor) or stays:
            return result
        if first is not None and share_memory(result, first):
            result = result.clone()
        self.there.put(result, target)
        if not target:
            call = Call(name=name, place=calling_place())
            self.origins.put(result, Origin(call=call, tensor=result, stage=self.seen.stage))
        return result

    def _note_conversion(self, name: str, args: Any, kwargs: Any) -> None:
        """What NumPy would refuse, and what waits for the device."""
        if name in ("numpy", "__array__") and not kwargs.get("force", args[1:2] == (True,)):
            self._note(self.seen.refused, "numpy()" if name == "numpy" else "numpy.asarray()")
        if not self.forward:
            return
        if name in WAITS:
            self._note(self.seen.waits, f"{name}()")
        elif name == "to" and self._target(name, args, kwargs) is False:
            self._note(self.seen.waits, 'to("cpu")')
        elif name in ("__getitem__", "__setitem__"):
            masks = [t for t in tensors_in(list(args[1:2])) if t.dtype in (torch.bool, torch.uint8)]
            # Filling masked entries with one number needs no count of them.
            filled = name == "__setitem__" and not (
                isinstance(args[2], Tensor) and args[2].numel() > 1
            )
            if any(self.there.of(mask) for mask in masks) and not filled:
                self._note(self.seen.waits, "indexing with a mask")

    def _note_draw(self, name: str, args: Any, kwargs: Any, there: bool) -> None:
        generators = [g for g in tree_leaves((args, kwargs)) if isinstance(g, torch.Generator)]
        if there and any(getattr(g, "there", False) is False for g in generators):
            self._note(self.seen.draws, f"{name}()")

    def _note(self, calls: list[Call], name: str) -> None:
        call = Call(name=name, place="" if made_by_toolkit() else direct_place())
        if call.place and call not in calls:
            calls.append(call)

    def meet(self, operation: str, host: Tensor, *, index: bool) -> None:
        """An operation of the device gets a tensor of the CPU."""
        origin, place = self.origin_of(host), calling_place()
        if id(origin) in self.met or not (place or (origin.call and origin.call.place)):
            return
        self.met.add(id(origin))
        name = self.names[-1][0] if self.names else operation
        self.seen.meetings.append(
            Meeting(
                operation=Call(name=name, place=place),
                origin=origin,
                shape=tuple(host.shape),
                index=index,
            )
        )

    def origin_of(self, host: Tensor) -> Origin:
        """Where a tensor of the CPU begins: itself, if nothing made it under these eyes."""
        known: Origin | None = self.origins.of(host)
        weight = isinstance(host, nn.Parameter)
        if known is None or (weight and known.stage != PARAMETER):
            known = Origin(call=None, tensor=host, stage=PARAMETER if weight else "")
            self.origins.put(host, known)
        return known

    def read(self, operation: str) -> None:
        """An operation that the host must wait for, if the user's own code calls it."""
        caller = self.names[-1][0] if self.names else operation
        if self.forward:
            self._note(self.seen.waits, f"{caller}()")

    def begin(self, module: Any, args: Any) -> None:
        """A module is called: a step has begun, if it can be trained by that."""
        in_backward = torch._C._current_graph_task_id() >= 0
        self.forward |= torch.is_grad_enabled() and not in_backward


class _Dispatched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation, those of backward passes and optimisers among them."""

    def __init__(self, functions: _Functions) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.functions = functions

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to keep the compiler out of it takes its import, a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it; what comes of tensors on the device stands there, too."""
        functions, name = self.functions, func._schema.name.removeprefix("aten::")
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        there = [bool(functions.there.of(t)) for t in given]
        if name in READS and any(there) and (kwargs or {}).get("output_size") is None:
            functions.read(name)  # the size of what repeats is known by output_size alone
        result = func(*args, **(kwargs or {}))
        if name in COPIES:
            if there == [False, True]:
                functions.read(name)
            return result
        made = tensors_in(result)[: LENGTHS.get(name)]
        # What PyTorch makes inside of a call, a derivative or a script it makes where tensors are.
        caller, within = functions.names[-1] if functions.names else ("", not direct_place())
        if not any(there) and not (within and (not given or caller == "ctc_loss")):
            self._remember(name, given, made)
            return result
        picking = tensors_in(args[1]) if name in INDEXING else []
        for number, tensor in enumerate(given if any(there) and name not in LENGTHS else ()):
            # A scalar of the CPU goes anywhere, unless it is what is written to.
            written = number == 0 and func._schema.is_mutable
            if not there[number] and (tensor.ndim or written or name in JOINING):
                functions.meet(name, tensor, index=any(tensor is index for index in picking))
        for tensor in made:
            functions.there.put(tensor, True)
        return result

    def _remember(self, name: str, given: list[Tensor], made: list[Tensor]) -> None:
        """Who made tensors of the CPU, or the one that they come from."""
        functions = self.functions
        # What comes from elsewhere is given to this operation alone.
        source = next((t for t in given if t.ndim and name != "lift_fresh"), None)
        for tensor in made:
            if source is not None:
                functions.origins.put(tensor, functions.origin_of(source))
            elif functions.origins.of(tensor) is None:
                caller = functions.names[-1][0] if functions.names else ""
                if name == "lift_fresh":
                    caller = caller if caller in ("tensor", "as_tensor") else "from_numpy"
                call = Call(name=caller or name, place=calling_place())
                stage = functions.seen.stage
                functions.origins.put(tensor, Origin(call=call, tensor=tensor, stage=stage))


class _OfAllGenerators(type(torch.Generator)):  # type: ignore[misc]
    """A generator that was made before is one as well."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _REAL)


_REAL = torch.Generator


class _Generator(torch.Generator, metaclass=_OfAllGenerators):
    """In place of torch.Generator, which has none for CUDA where that isn't there."""

    there: bool | None  # None: of a device in a variable, which is that of the tensors

    def __new__(cls, device: Any = None) -> Self:
        made = super().__new__(cls)
        if device is not None and torch.device(device).type == "cuda":
            made.there = True
        else:
            made.there = False if device is None or '"cpu"' in _quoted() else None
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # it is read-only there, too
        """As it was asked for."""
        return DEVICE if self.there else torch.device("cpu")


def _engine(functions: _Functions) -> Callable[..., Any]:
    """The engine of backward passes: the user's derivatives and hooks are seen as well.

    PyTorch takes a mode away while a call runs that it saw, as `backward()`.
    """
    run = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        with functions:
            return run(*args, **kwargs)

    return run_backward


def _described(tensor: Tensor) -> dict[str, Any]:
    """What a checkpoint compares of a tensor; PyTorch asks for its device with the mode away."""
    return {"shape": tensor.shape, "dtype": tensor.dtype, "device": DEVICE}


@contextmanager
def pretended() -> Iterator[Pretended]:
    """Pretend inside the `with` that `cuda:0` is there, and watch; nothing stays behind."""
    seen = Pretended()
    functions = _Functions(seen)
    with ExitStack() as stack:
        stack.callback(register_module_forward_pre_hook(functions.begin).remove)
        stack.enter_context(patch.object(torch, "Generator", _Generator))
        stack.enter_context(
            patch.object(torch.autograd, "_engine_run_backward", _engine(functions))
        )
        compared = torch.utils.checkpoint._allowed_determinism_checks_to_fns
        stack.enter_context(patch.dict(compared, {"default": _described}))
        stack.enter_context(_Dispatched(functions))
        stack.enter_context(functions)
        yield seen


def _on_cpu(value: Any) -> Any:
    """A CUDA device named in arguments, as the CPU."""
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == "cuda" else value
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


def _quoted() -> str:
    return calling_text().replace("'", '"')


def _is_property(func: Any) -> bool:
    return getattr(func, "__name__", "") == "__get__"


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    return getattr(getattr(func, "__self__", None), "__name__", name) if name == "__get__" else name
