"""The configuration of a case as data: what it declares, and the values that its functions hold."""

import enum
import functools
import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn, optim

from ris_diag.case import Case
from ris_diag.lent import Lent
from ris_diag.places import is_users
from ris_diag.result import plain

LONG = 100  # a sequence that is longer is data: its hash says whether it changed
SHORT = 12  # characters of a text that a function holds; a longer one may be a password
DECLARED = ("name", "declared", "exempt", "expected_failures", "thresholds")


def configuration(case: Case) -> dict[str, Any]:
    """Every part of a case as plain data, with closures and constants of its functions."""
    data, found = _Data(), {}
    for item in fields(case):
        data.clear = item.name in DECLARED
        found[item.name] = data.of(getattr(case, item.name))
    return found


class _Data:
    """Turns values into data; settings that several parts share are written once."""

    def __init__(self) -> None:
        self.shown: dict[int, Any] = {}  # keeps them alive: an id may not be given twice
        self.inside: list[int] = []
        self.clear = False  # whether long texts are shown, or their hashes

    def of(self, value: Any) -> Any:
        if isinstance(value, enum.Enum | Path | torch.dtype | torch.device):
            return str(value)
        if isinstance(value, str) and len(value) > SHORT and not self.clear:
            return f"text, sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]}"
        if value is None or isinstance(value, str | int | float):
            return plain(value)
        if id(value) in self.inside:
            return "..."
        self.inside.append(id(value))
        try:
            return self._of_object(value)
        finally:
            self.inside.pop()

    def _of_object(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self.of(item) for key, item in value.items()}
        if isinstance(value, set | frozenset):
            return sorted(map(self.of, value), key=repr)
        if isinstance(value, list | tuple):
            return _shortened([self.of(item) for item in value])
        if isinstance(value, functools.partial):
            return {"partial": self.of(value.func), "of": self.of([value.args, value.keywords])}
        if isinstance(value, FunctionType) and hasattr(value, "ris_place"):
            return self.of(inspect.unwrap(value))  # the place has a line, and a working folder
        if isinstance(value, MethodType):
            return {f"{value.__module__}.{value.__qualname__}": self.of(value.__self__)}
        if isinstance(value, FunctionType):
            return self._function(value)
        if _is_settings(value) or isinstance(value, Lent):
            name = type(value).__qualname__
            if id(value) in self.shown:
                return f"{name} as above"
            self.shown[id(value)] = value
            return {"type": name, **{key: self.of(held) for key, held in _held(value).items()}}
        if isinstance(value, nn.Module | optim.Optimizer):
            return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # layers and settings, no weights
        kind = value if isinstance(value, type) else type(value)
        return f"{kind.__module__}.{kind.__qualname__}"

    def _function(self, function: FunctionType) -> Any:
        """Name of a function with what it holds: closure, defaults, constants of its module."""
        code = function.__code__
        name = f"{function.__module__}.{function.__qualname__}"
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        held = {key: self.of(_content(cell)) for key, cell in cells}
        if is_users(code.co_filename):
            held |= {f"default of {key}": self.of(v) for key, v in _defaults(function)}
            constants = {key: function.__globals__.get(key) for key in code.co_names}
            held |= {key: self.of(v) for key, v in constants.items() if _is_constant(key, v)}
        return {name: held} if held else name


def _shortened(items: list[Any]) -> Any:
    if len(items) <= LONG:
        return items
    return {"items": len(items), "sha256": hashlib.sha256(repr(items).encode()).hexdigest()}


def _is_settings(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _held(value: Any) -> dict[str, Any]:
    """What settings hold, or what was lent to a case; of a loader its batch size."""
    if isinstance(value, Lent):
        parts = {key: getattr(value, key) for key in ("model", "loss_fn", "optimizer")}
        return {**parts, "batch_size": getattr(value.loader, "batch_size", None)}
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _is_constant(name: str, value: Any) -> bool:
    kinds = (str, int, float, Mapping, list, tuple, Path)
    return not name.startswith("__") and (isinstance(value, kinds) or _is_settings(value))


def _defaults(function: FunctionType) -> Iterable[tuple[str, Any]]:
    values = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    yield from zip(names[len(names) - len(values) :], values, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it isn't filled yet
        return None
