"""Source files of a case: its own and what they import from the project, without running them."""

import ast
import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from ris_diag.places import is_users

# Files of settings. Not .json: a training writes those, too, and no receipt would stay valid.
SETTINGS = (".toml", ".yaml", ".yml", ".ini", ".cfg")


def source_files(target: str) -> list[Path]:
    """Files of the user that a case reads, imports inside of functions included.

    They are found in the text of the files. A module that is imported by a computed name isn't
    found; a file of settings is, where its name stands in the code: "settings.toml". A target that
    doesn't import has none, and loading it says why.

    Args:
        target: `pkg.mod:factory`, `pkg.mod:main` or `train.py`.
    """
    importlib.invalidate_caches()  # a file may be new since the last import
    script = target.endswith(".py")
    folder = Path(target).resolve().parent if script else Path.cwd()
    path = [str(folder), *sys.path]
    found: set[Path] = set()
    names: set[str] = set()
    waiting = [(Path(target).resolve(), "")] if script else _files(target.split(":")[0], path)
    while waiting:
        file, package = waiting.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        tree = _parsed(file)
        found.update(_settings(tree, file.parent))
        for name in _imported(tree, package):
            if name not in names:
                names.add(name)
                waiting += _files(name, path)
    return sorted(found)


def _files(name: str, path: list[str]) -> list[tuple[Path, str]]:
    """The user's files that are run to import `a.b.c`, each with its package."""
    files = []
    locations: list[str] | None = path
    parts = name.split(".")
    for number in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:number]), locations)
        if spec is None:
            break
        if spec.origin and not (spec.has_location and is_users(spec.origin)):
            break  # a library
        if spec.origin:
            inside = spec.submodule_search_locations is not None
            files.append((Path(spec.origin).resolve(), spec.name if inside else spec.parent or ""))
        locations = list(spec.submodule_search_locations or [])
    return files


def _spec(name: str, locations: list[str] | None) -> ModuleSpec | None:
    """Where a module lies, also by the word of other finders, as those of editable installs."""
    finders = sorted(sys.meta_path, key=lambda finder: finder is not PathFinder)  # it first
    asked = (finder.find_spec(name, locations) for finder in finders)
    return next((spec for spec in asked if spec is not None), None)


def _parsed(file: Path) -> ast.AST:
    """The code of a file; of one that isn't Python nothing."""
    nothing = ast.Module(body=[], type_ignores=[])
    if file.suffix != ".py":
        return nothing
    try:
        with warnings.catch_warnings(action="ignore"):  # they show when it is imported
            return ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError):
        return nothing  # its hash counts all the same


def _settings(tree: ast.AST, folder: Path) -> Iterable[Path]:
    """Files of settings that the code names, beside it or in the working folder."""
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    named = {text for text in constants if isinstance(text, str) and text.endswith(SETTINGS)}
    places = [Path(os.path.abspath(base / text)) for text in named for base in (folder, Path.cwd())]
    return [place for place in places if os.path.isfile(place)]  # False also of an odd name


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names of modules that code may import; those of what it takes out of a module, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*filter(None, above), *filter(None, [base])])
            yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)
