"""Settings under which a GPU gives the same numbers again, for as long as a `with` lasts."""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TextIO

import torch

from ris_diag.places import calling_place

# cuBLAS sums in a fixed order only with a workspace of its own a stream; torch names this one.
WORKSPACE, FIXED = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
_SAID = re.compile(r"(.+?) does not have a deterministic implementation")


@contextmanager
def deterministic() -> Iterator[list[str]]:
    """Deterministic algorithms, float32 in full width, no search for the fastest kernel.

    All settings are put back. Of the precision of convolutions torch tells the value, not whether
    somebody set it: behind the scope it no longer follows `torch.backends.fp32_precision`, as
    behind torch's own `torch.backends.cudnn.flags`.

    Returns:
        what has no deterministic form, each once, with file:line; filled until the scope ends.
    """
    with ExitStack() as settings:
        settings.enter_context(_environment(WORKSPACE, FIXED))
        # Its twin, use_deterministic_algorithms, sets torch.compile as well, and can't read that.
        kept = torch.get_deterministic_debug_mode()
        settings.callback(torch.set_deterministic_debug_mode, kept)
        torch.set_deterministic_debug_mode("warn")
        for name, value in (("benchmark", False), ("deterministic", True)):
            settings.callback(
                setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name)
            )
            setattr(torch.backends.cudnn, name, value)
        settings.enter_context(_full_float32())
        yield settings.enter_context(_collected())


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    kept = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if kept is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = kept


@contextmanager
def _full_float32() -> Iterator[None]:
    """No TF32.

    Torch has two ways to say so, and who reads by one what was set by the other gets an error. The
    code under test may read by either, so both are set, the older first: it sets the newer, too.
    """
    legacy: list[tuple[Callable[[], Any], Callable[[Any], None], Any]] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        (
            lambda: torch.backends.cudnn.allow_tf32,
            partial(setattr, torch.backends.cudnn, "allow_tf32"),
            False,
        ),
    ]
    operations = _operations()
    kept = [(operation, operation.fp32_precision) for operation in operations]
    with ExitStack() as settings:
        settings.callback(_put_back, kept)
        for read, write, value in legacy:
            try:
                before = read()
            except RuntimeError:  # the two ways disagree already: it can be neither read nor kept
                continue
            settings.callback(_quietly, write, before)
            _quietly(write, value)
        for operation in operations:
            operation.fp32_precision = "ieee"
        yield


def _operations() -> list[Any]:
    """Whose precision torch 2.9 and newer set one by one; empty in older ones."""
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return []
    return [
        backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul,
    ]  # fmt: skip


def _put_back(kept: list[tuple[Any, str]]) -> None:
    for operation, precision in kept:
        operation.fp32_precision = "none"  # it follows the general setting
        if operation.fp32_precision != precision:
            operation.fp32_precision = precision


def _quietly(write: Callable[[Any], None], value: Any) -> None:
    """Set by the older way, which torch asks to leave."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*TF32")
        write(value)


@contextmanager
def _collected() -> Iterator[list[str]]:
    """Torch's warnings of what has no deterministic form; all others go where they went."""
    found: list[str] = []
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if "use_deterministic_algorithms" not in str(message):
            shown(message, category, filename, lineno, file, line)
            return
        said = _named(str(message), calling_place())
        if said not in found:
            found.append(said)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="(?s).*use_deterministic_algorithms")
        warnings.showwarning = show
        yield found


def _named(text: str, place: str) -> str:
    at = f", {place}" if place else ""
    named = _SAID.match(text)
    if named:
        return f"not deterministic: {named.group(1)} has no deterministic form{at}"
    if WORKSPACE in text:
        return f"not deterministic: cuBLAS started before {WORKSPACE} was set{at}"
    return f"not deterministic: {text.partition('. ')[0]}{at}"
