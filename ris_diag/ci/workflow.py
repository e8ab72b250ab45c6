"""Workflows for the user's own project: a template for each CI, and what has to be filled in."""

import re
import shlex
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from ris_diag.errors import RisDiagError

TEMPLATES = {"github": "github.yml", "gitlab": "gitlab.yml", "pre-commit": "pre-commit.yaml"}
PIP = "python -m pip install"
OUT = "--receipt ris-diag-receipt.json --json ris-diag-report.json --junit ris-diag-junit.xml"
_OURS = re.compile(r"(?<![\w.-])ris[-_.]diag(?!\w)", re.IGNORECASE)
_COMMENT = re.compile(r"(^|\s)#.*", re.MULTILINE)


def workflow(kind: str, case: str | None, folder: Path) -> str:
    """The text of a workflow.

    Args:
        kind: one of `TEMPLATES`.
        case: the target that was given; None where pyproject.toml names it.
        folder: of the project: pyproject.toml and requirements.txt say what to install.

    Raises:
        RisDiagError: pyproject.toml isn't valid.
    """
    option = f" --case {shlex.quote(case)}" if case else ""
    text = files("ris_diag.ci").joinpath(TEMPLATES[kind]).read_text(encoding="utf-8")
    parts = {
        "PYTHON": lambda: ["{}.{}".format(*sys.version_info)],
        "INSTALL": lambda: [install_command(folder)],
        "GATE": lambda: [f"ris-diag gate{option} {OUT}"],
        "CHECK": lambda: [f"ris-diag check{option} --select guard,law,data,litmus"],
    }

    def filled(found: re.Match[str]) -> str:
        """The lines in place of a name, each as far to the right as the first."""
        return found[1] + found[2] + f"\n{found[1]}".join(parts[found[3]]())

    return re.sub(r"^( *)(.*)@([A-Z]+)@", filled, text, flags=re.MULTILINE)


def install_command(folder: Path) -> str:
    """The command that installs what a project says it needs, this toolkit among it.

    Raises:
        RisDiagError: nothing says where this toolkit comes from, or pyproject.toml isn't valid.
    """
    table, requirements = _pyproject(folder), folder / "requirements.txt"
    project: dict[str, Any] = table.get("project", {})
    extras: dict[str, list[str]] = project.get("optional-dependencies", {})
    own = [name for name, lines in extras.items() if _names_us(lines)]
    groups = [
        name for name, lines in table.get("dependency-groups", {}).items() if _names_us(lines)
    ]
    parts, named = [], _names_us(table)
    if requirements.is_file():
        parts.append("-r requirements.txt")
        named = named or _names_us(_COMMENT.sub("", requirements.read_text(encoding="utf-8")))
    if "build-system" in table:
        parts.append("-e " + shlex.quote(f".[{','.join(own)}]" if own else "."))
    else:  # files that run where they lie
        needed = [
            *project.get("dependencies", []),
            *(line for name in own for line in extras[name]),
        ]
        parts += map(shlex.quote, needed)
    parts += [f"--group {shlex.quote(name)}" for name in groups]
    if not named:
        raise RisDiagError(
            "neither requirements.txt nor pyproject.toml here names ris-diag: write into one of "
            "them where the CI gets it from, a folder, a wheel or ris-diag[laws] @ git+https://..."
        )
    return " ".join([PIP, *parts])


def _names_us(requirements: Any) -> bool:
    """Whether this toolkit is named in a text, or somewhere in lists and tables of such."""
    return _OURS.search(str(requirements)) is not None


def _pyproject(folder: Path) -> dict[str, Any]:
    """pyproject.toml without the table that configures this toolkit."""
    path = folder / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RisDiagError(f"{path}: {error}") from error
    table.get("tool", {}).pop("ris-diag", None)
    return table
