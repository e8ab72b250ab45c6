"""Finds a case by its target, `pkg.mod:factory`."""

import importlib
import os
import sys
import tomllib
from pathlib import Path

from ris_diag.case import Case
from ris_diag.errors import CaseError

EXAMPLE = """\
name the training under test:
    ris-diag check --case my_package.my_module:my_case
    pytest --ris-case my_package.my_module:my_case
or once in pyproject.toml: [tool.ris-diag] case = "my_package.my_module:my_case\""""


def load_case(target: str) -> Case:
    """Import the module, call the factory and return its case. The working folder is importable.

    Raises:
        CaseError: the target doesn't parse or import, isn't callable, raises or gives no `Case`.
    """
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise CaseError(f"case target {target!r}: expected pkg.mod:factory")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise CaseError(
            f"case target {target!r}: {module_name} does not import "
            f"({type(error).__name__}: {error})"
        ) from error
    factory = getattr(module, attribute, None)
    if factory is None:
        offered = [name for name in dir(module) if name.endswith("case") or name == "reference"]
        hint = f"; it has {', '.join(offered)}" if offered else ""
        raise CaseError(f"case target {target!r}: {module_name} has no {attribute!r}{hint}")
    if isinstance(factory, Case):
        return factory
    if not callable(factory):
        raise CaseError(
            f"case target {target!r}: {attribute} is a {type(factory).__name__}, not a function "
            "that returns a ris_diag.Case"
        )
    try:
        case = factory()
    except CaseError:
        raise
    except (Exception, SystemExit) as error:
        raise CaseError(
            f"case target {target!r}: {attribute}() raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(case, Case):
        raise CaseError(
            f"case target {target!r}: {attribute}() returned {type(case).__name__} "
            f"({case!r:.60}), not a ris_diag.Case"
        )
    return case


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
        return target
    return None
