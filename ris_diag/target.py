"""Finds a case by its target: `pkg.mod:factory`, or a training that knows nothing of it."""

import importlib
import inspect
import os
import runpy
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

from ris_diag.case import Case
from ris_diag.errors import CaseError, nearest
from ris_diag.places import place_of

EXAMPLE = """\
name the training under test:
    ris-diag check --case my_package.my_module:my_case   (or --case train.py)
    pytest --ris-case my_package.my_module:my_case
or once in pyproject.toml: [tool.ris-diag] case = "my_package.my_module:my_case\""""


def load_case(target: str) -> Case:
    """The case of a target; the working folder is importable.

    Args:
        target: `pkg.mod:factory`, which is called for its case; or a training as it stands, for a
            case with this `main`, which nobody has run yet: `train.py` or `pkg.mod:main`.

    Raises:
        CaseError: the target doesn't parse or import, isn't callable, raises or gives no `Case`;
            the script can't be read or isn't Python.
    """
    if target.endswith(".py"):
        return _case_of_script(target)
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        name = module_name or "train"
        raise CaseError(
            f"case target {target!r}: expected a module and a function, {name}:my_case, or a "
            f"script, {name}.py"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        itself = absent is not None and f"{module_name}.".startswith(f"{absent}.")
        hint = f"; the working folder is {Path.cwd()}" if itself else _at(error)
        raise CaseError(
            f"case target {target!r}: {module_name} does not import "
            f"({type(error).__name__}: {error}){hint}"
        ) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        offered = [name for name in functions if name.endswith("case") or name == "reference"]
        meant = nearest(attribute, functions) or (offered and f"it has {', '.join(offered)}")
        hint = f"; {meant}" if meant else ""
        raise CaseError(f"case target {target!r}: {module_name} has no {attribute!r}{hint}")
    if isinstance(factory, Case):
        return factory
    if not callable(factory):
        raise CaseError(
            f"case target {target!r}: {attribute} is {_a(type(factory).__name__)}, not a function "
            "that returns a ris_diag.Case"
        )
    returned = getattr(factory, "__annotations__", {}).get("return")
    if attribute == "main" and returned not in (Case, "Case", "ris_diag.Case"):
        return _case_of_main(target, str(module.__file__), factory)
    try:
        case = factory()
    except CaseError:
        raise
    except (Exception, SystemExit) as error:
        raise CaseError(
            f"case target {target!r}: {attribute}() raised {type(error).__name__}: {error}"
            f"{_at(error)}"
        ) from error
    if not isinstance(case, Case):
        raise CaseError(
            f"case target {target!r}: {attribute}() returned {type(case).__name__} "
            f"({case!r:.60}), not a ris_diag.Case"
        )
    return case


def _at(error: BaseException) -> str:
    place = place_of(error)
    return f" ({place})" if place else ""


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _case_of_script(target: str) -> Case:
    """A case whose `main` does what `python target` does."""
    path = Path(target).resolve()
    try:
        with warnings.catch_warnings(action="ignore"):  # they show when the script runs
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except OSError as error:
        scripts = sorted(other.name for other in path.parent.glob("*.py") if other.is_file())
        hint = f"; {path.parent.name} has {', '.join(scripts[:5])}" if scripts else ""
        raise CaseError(f"case target {target!r}: {error.strerror}{hint}") from error
    except (SyntaxError, ValueError) as error:
        raise CaseError(
            f"case target {target!r}: not a Python script ({type(error).__name__}: {error})"
        ) from error

    def main() -> None:
        with _as_program(str(path)), _importable(path.parent):
            runpy.run_path(str(path), run_name="__main__")

    main.__wrapped__ = FunctionType(code, {})  # type: ignore[attr-defined]  # whose place a report names
    return Case(name=path.name, main=main)


def _case_of_main(target: str, path: str, function: Callable[..., Any]) -> Case:
    """A case whose `main` calls a function as a program would, without arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise CaseError(
            f"case target {target!r}: main can't be called without arguments ({error}); name a "
            "function that returns ris_diag.Case(name=..., main=lambda: main(...))"
        ) from error
    except ValueError:
        pass  # it has no signature, as some builtins

    @wraps(function)
    def main() -> None:
        with _as_program(path):
            function()

    return Case(name=target, main=main)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of a script's folder can be imported; another script finds its own of a name."""
    path, loaded = sys.path[:], set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in sys.modules.keys() - loaded:
            top = folder / name.partition(".")[0]
            file = Path(getattr(sys.modules[name], "__file__", None) or "")
            if file == top.with_suffix(".py") or file.is_relative_to(top):
                del sys.modules[name]


@contextmanager
def _as_program(name: str) -> Iterator[None]:
    """What a program finds when it is started by itself; all of it is put back.

    A `sys.exit()` that tells of no error ends the program and nothing else.
    """
    argv, module, working_folder = sys.argv, sys.modules["__main__"], Path.cwd()
    sys.argv = [name]
    try:
        yield
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
    finally:
        sys.argv, sys.modules["__main__"] = argv, module
        os.chdir(working_folder)


def configured_target(folder: Path | None = None) -> str | None:
    """`case` of `[tool.ris-diag]` in the nearest pyproject.toml from `folder` upwards, if any.

    Raises:
        CaseError: the file isn't valid TOML, or the entry isn't a text.
    """
    folder = (folder or Path.cwd()).resolve()
    for parent in (folder, *folder.parents):
        path = parent / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise CaseError(f"{path}: {error}") from error
        target = table.get("tool", {}).get("ris-diag", {}).get("case")
        if target is None:
            return None
        if not isinstance(target, str):
            raise CaseError(f"{path}: [tool.ris-diag] case = {target!r}: expected pkg.mod:factory")
        if str(parent) not in sys.path:
            sys.path.insert(0, str(parent))  # importable from every folder below, too
        return os.path.relpath(parent / target) if target.endswith(".py") else target
    return None
