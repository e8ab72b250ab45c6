"""What a verdict was given for: the code of a case, its configuration, the versions beneath it."""

import hashlib
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ris_diag.case import Case
from ris_diag.configuration import configuration
from ris_diag.devices import numbered
from ris_diag.imports import source_files
from ris_diag.measure import listed
from ris_diag.places import TOOLKIT
from ris_diag.result import plain
from ris_diag.target import load_case
from ris_diag.versions import versions

COMPARED = ("sources", "configuration", "versions")


def fingerprint(target: str, *, device: str = "cpu", case: Case | None = None) -> dict[str, Any]:
    """All that the verdict on a case rests on, plain data.

    Args:
        case: what the target gave, where it was loaded already.

    Returns:
        target; sources: path of every file of the project that the case is made of, relative to
        the project, to its SHA-256; configuration: what the case declares, and the values that its
        functions hold; versions: of torch, numpy, Python and this toolkit, with the SHA-256 of its
        files; device: with its number; git: commit, and whether there were changes on top of it.

    Raises:
        CaseError: the target gives no case.
    """
    case = case or load_case(target)
    return {
        "target": _relative(target) if target.endswith(".py") else target,
        "sources": hashes(target),  # behind the import, which can make others importable
        "configuration": plain(configuration(case)),
        "versions": {**versions(), "ris_diag's files": _toolkit()},
        "device": numbered(device),
        "git": commit(),
    }


def hashes(target: str) -> dict[str, str]:
    """Every source file of a target, relative to the project, to its SHA-256."""
    return {_relative(str(path)): _digest(path) for path in source_files(target)}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is other than it was, part by part; the commit alone isn't, where no file differs."""
    found = []
    for part in COMPARED:
        before, after = (_flat(side.get(part, {})) for side in (then, now))
        changed = [name for name in before if name in after and before[name] != after[name]]
        words = {
            "changed": [_changed(part, name, before[name], after[name]) for name in changed],
            "gone": [name for name in before if name not in after],
            "new": [name for name in after if name not in before],
        }
        said = [f"{word}: {listed(sorted(names), 5)}" for word, names in words.items() if names]
        if said:
            found.append(f"other {part} ({'; '.join(said)})")
    return found + [
        f"other {part} (made for {then.get(part)}, asked for {now[part]})"
        for part in ("target", "device")
        if then.get(part) != now[part]
    ]


def other_commit(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What a reader wants to know of git and what closes nothing; "" where nothing differs."""
    before, after = (_state(side.get("git") or {}) for side in (then, now))
    return "" if before == after else f"made at {before}, now at {after}"


def project_root() -> Path:
    """The nearest folder upwards with a pyproject.toml or a repository, else the working folder."""
    here = Path.cwd()
    marked = (
        parent
        for parent in (here, *here.parents)
        if (parent / "pyproject.toml").is_file() or (parent / ".git").exists()
    )
    return next(marked, here)


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


def _state(git: Mapping[str, Any]) -> str:
    if not git:
        return "no commit"
    return f"commit {str(git.get('commit'))[:12]}{' with changes' if git.get('dirty') else ''}"


def _relative(path: str) -> str:
    return Path(os.path.relpath(path, project_root())).as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _toolkit() -> str:
    """The checks themselves: others may find what these didn't."""
    whole = hashlib.sha256()
    for file in sorted(TOOLKIT.rglob("*.py")):
        whole.update(f"{file.relative_to(TOOLKIT).as_posix()} {_digest(file)}\n".encode())
    return whole.hexdigest()


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, keys joined by dots."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    inner = (_flat(value, f"{prefix}.{key}".strip(".")) for key, value in content.items())
    return {name: value for part in inner for name, value in part.items()}


def _changed(part: str, name: str, before: Any, after: Any) -> str:
    """A file by its name; a value as it was and as it is."""
    if part == "sources" or name.endswith("files"):
        return name
    return f"{name}, {before!r:.60} then, {after!r:.60} now"
