"""file:line in the user's code: of a callable, of an exception, of the call that is running."""

import inspect
import linecache
import sysconfig
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

TOOLKIT = Path(__file__).resolve().parent
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
# They stand between a call and its watcher.
OVERRIDES = ("torch/overrides.py", "torch/_tensor.py", "torch/_compile.py", "_dynamo/eval_frame.py")
# What watches a call from inside of it; another file of the toolkit made the call itself.
MODES = (
    *("places.py", "operations.py", "anatomy.py", "followed.py", "pretence.py"),
    *("derivatives.py", "functions.py", "script_data.py"),
)
WATCHERS = (
    *(*MODES, "observer.py", "underflow.py", "replica.py", "restored.py"),
    *("lent.py", "case.py", "determinism.py"),
)
LIBRARIES = {"site-packages", "dist-packages"}  # also those of the user and of other environments

_LINES: WeakKeyDictionary[type, int] = WeakKeyDictionary()


def where(function: Any) -> str:
    """file:line of a callable's definition, or its name where Python can't tell."""
    function = getattr(function, "func", function)
    function = inspect.unwrap(function, stop=lambda f: hasattr(f, "ris_place"))
    if hasattr(function, "ris_place"):
        return str(function.ris_place)
    if inspect.isbuiltin(function):
        return function.__qualname__
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = getattr(function, "__func__", type(function))
    try:
        path, line = inspect.getfile(function), _line(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(function))
    if not is_users(path):  # a class of torch, a model that was lent
        return str(getattr(function, "__qualname__", function))
    return f"{short_path(path)}:{line + 1}"


def _line(function: Any) -> int:
    """The line of a definition, from 0; for a class inspect reads its whole module anew."""
    if not isinstance(function, type):
        return inspect.findsource(function)[1]
    if function not in _LINES:
        _LINES[function] = inspect.findsource(function)[1]
    return _LINES[function]


def placed(function: Callable[..., Any], place: str) -> Callable[..., Any]:
    """The same function, which `where` finds at `place`."""

    def at_its_place(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    at_its_place.__wrapped__ = function  # type: ignore[attr-defined]  # read by inspect.unwrap
    at_its_place.ris_place = place  # type: ignore[attr-defined]  # read by `where`
    at_its_place.__self__ = getattr(function, "__self__", None)  # type: ignore[attr-defined]  # whose method it is, as a bound one says
    return at_its_place


def place_of(error: BaseException) -> str:
    """file:line of the innermost frame of the user: outside of toolkit and libraries."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_users(frame.filename):
            return f"{short_path(frame.filename)}:{frame.lineno}, in {frame.name}"
    return ""


def calling_place() -> str:
    """file:line of the user's innermost frame that is running now; "" if the toolkit calls."""
    frame = _calling_frame()
    return "" if frame is None else f"{short_path(frame.f_code.co_filename)}:{frame.f_lineno}"


def calling_text() -> str:
    """The source of the call that runs now, as a library wrote it and as the user did."""
    frame = inspect.currentframe()
    while frame is not None and _watches(frame.f_code.co_filename):
        frame = frame.f_back
    return "".join(_text(f) for f in (frame, _calling_frame()) if f is not None)


def _text(frame: FrameType) -> str:
    at = inspect.getframeinfo(frame, context=0).positions
    last = frame.f_lineno if at is None or at.end_lineno is None else at.end_lineno
    path = frame.f_code.co_filename
    return "".join(linecache.getline(path, line) for line in range(frame.f_lineno, last + 1))


def _calling_frame() -> FrameType | None:
    frame = inspect.currentframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if is_users(path):
            return frame
        if _calls_by_itself(path):
            return None
        frame = frame.f_back
    return None


def direct_place() -> str:
    """file:line of the user's code if it made the running call itself, "" if a library did."""
    frame = inspect.currentframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if is_users(path):
            return f"{short_path(path)}:{frame.f_lineno}"
        if not _is_toolkits(path) and not path.endswith(OVERRIDES):
            return ""
        frame = frame.f_back
    return ""


def made_by_toolkit() -> bool:
    """Whether the running call comes from this toolkit itself, not from what it watches."""
    frame = inspect.currentframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if not _watches(path):
            return _is_toolkits(path)
        frame = frame.f_back
    return False


# By name of the file and cached: they are asked for every operation of a training.
@cache
def _is_toolkits(path: str) -> bool:
    return Path(path).is_relative_to(TOOLKIT)


@cache
def _watches(path: str) -> bool:
    return path.endswith((*OVERRIDES, *map("ris_diag/{}".format, MODES)))


def short_path(path: str) -> str:
    """The path relative to the working folder where it lies inside it."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path


@cache
def _calls_by_itself(filename: str) -> bool:
    """Whether a file is the toolkit's and no watcher."""
    path = Path(filename).resolve()
    return path.is_relative_to(TOOLKIT) and path.name not in WATCHERS


@cache
def is_users(filename: str) -> bool:
    """Whether a file is the user's own: outside of toolkit, Python and installed libraries."""
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    return not (
        path.is_relative_to(TOOLKIT)
        or path.is_relative_to(STANDARD)
        or LIBRARIES.intersection(path.parts)
    )


def covers(function: Any, place: str) -> bool:
    """Whether a file:line lies in the source of a function or class."""
    function = inspect.unwrap(getattr(function, "func", function))
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = getattr(function, "__func__", type(function))
    path, _, line = place.rpartition(":")
    try:
        source, first = inspect.getsourcelines(function)
        own = short_path(inspect.getfile(function))
    except (OSError, TypeError):
        return False
    return own == path and line.isdigit() and first <= int(line) < first + len(source)
