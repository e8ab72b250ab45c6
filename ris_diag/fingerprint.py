"""What a verdict was given for: the code of a case, its configuration, the versions beneath it."""

import hashlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import fields
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from ris_diag.case import Case
from ris_diag.devices import numbered
from ris_diag.places import is_users, short_path, where
from ris_diag.result import plain
from ris_diag.target import load_case
from ris_diag.versions import versions

COMPARED = ("sources", "configuration", "versions")


def fingerprint(target: str, *, device: str = "cpu") -> dict[str, Any]:
    """All that the verdict on a case rests on, plain data.

    Returns:
        sources: path of every file of the project that the case is made of to its SHA-256;
        configuration: what the case declares; versions: of torch, numpy, Python and this toolkit;
        device: with its number; git: commit, and whether there were changes on top of it.

    Raises:
        CaseError: the target gives no case.
    """
    case = load_case(target)
    return {
        "sources": {short_path(path): _digest(path) for path in source_files(target)},
        "configuration": configuration(case),
        "versions": versions(),
        "device": numbered(device),
        "git": commit(),
    }


def source_files(target: str) -> list[str]:
    """Files of the user's own that a target imports, directly and through others, by path.

    They are found in the code without running it, imports inside of functions included; a module
    that is imported by a computed name isn't.
    """
    finder = ModuleFinder(path=[os.getcwd(), *_folders()])
    if target.endswith(".py"):
        finder.run_script(target)
    else:
        name = target.partition(":")[0]
        finder.import_hook(name)
    files = [getattr(module, "__file__", None) for module in finder.modules.values()]
    found = {str(Path(file).resolve()) for file in files if file}
    return sorted(path for path in found if is_users(path) or _is_ours(path))


def _folders() -> list[str]:
    """Where the user's own modules are imported from, besides the working folder."""
    return [path for path in sys.path if path and is_users(str(Path(path) / "module.py"))]


def _is_ours(path: str) -> bool:
    """Whether it is this toolkit's, where it stands in the project itself."""
    spec = importlib.util.find_spec("ris_diag")
    folder = Path(spec.origin or "").resolve().parent if spec is not None else Path()
    return folder.is_relative_to(Path.cwd()) and Path(path).is_relative_to(folder)


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def configuration(case: Case) -> dict[str, Any]:
    """What a case declares, plain data; functions by their place."""
    declared = case.declared
    values = (
        {}
        if declared is None
        else {f.name: _shown(getattr(declared, f.name)) for f in fields(declared)}
    )
    thresholds = {name: [o.value, o.reason] for name, o in case.thresholds.items()}
    found = {
        "name": case.name,
        "declared": values,
        "thresholds": thresholds,
        "exempt": dict(case.exempt),
        "expected_failures": dict(case.expected_failures),
    }
    kept: dict[str, Any] = plain(found)
    return kept


def _shown(value: Any) -> Any:
    return where(value) if callable(value) else value


def commit() -> dict[str, Any]:
    """The commit that is checked out, and whether files differ from it; empty without git."""
    try:
        head, status = (
            subprocess.run(  # noqa: S603  # words of this file
                ["git", *words],  # noqa: S607  # wherever it is installed
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": head.strip(), "dirty": bool(status.strip())}
