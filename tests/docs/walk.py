"""Does what a page says, in an empty folder, and compares what is printed.

A block of ```python or ```toml begins with a comment that names its file, and is written to it. A
block of ```console has commands, each behind `$ `, and what each prints to its standard output;
`...` stands for anything. A command that doesn't end with 0 is followed by `$ echo $?`.
"""

import os
import re
import subprocess
import sys
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, Example, OutputChecker
from pathlib import Path

import sybil
from sybil.parsers.markdown.codeblock import CodeBlockParser

LIMIT = 300  # seconds a command may take
FLAGS = ELLIPSIS | NORMALIZE_WHITESPACE
STATUS = "echo $?"


def walk(page: Path, folder: Path) -> int:
    """Go through all blocks of a page in their order; returns how many commands ran.

    Raises:
        SybilFailure: something else was printed, or a block is none of these; with its line.
    """
    document = READER.parse(page)
    document.namespace |= {"folder": folder, "ran": 0, "status": 0}
    for example in document.examples():
        example.evaluate()
    if unasked := document.namespace["status"]:
        raise AssertionError(f"{page.name}: the last command ended with {unasked}")
    return int(document.namespace["ran"])


def _written(example: sybil.Example) -> str | None:
    name = re.match(r"# ([\w/.\-]+\.(?:py|toml))\n", example.parsed)
    if name is None:
        return "the block doesn't begin with the name of a file, `# train.py`"
    path = example.namespace["folder"] / name.group(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(example.parsed, encoding="utf-8")
    return None


def _run(example: sybil.Example) -> str | None:
    first, *rest = re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)
    if first.strip() or not rest:
        return "the block doesn't begin with a command, `$ ris-diag list`"
    for part in rest:
        command, _, expected = part.partition("\n")
        problem = _one(example.namespace, command, expected)
        if problem:
            return problem
    return None


def _one(state: dict[str, object], command: str, expected: str) -> str | None:
    """What is wrong with what a command printed, or how it ended."""
    before = state["status"]
    if before and command != STATUS:
        return f"the command before ended with {before}, which the page doesn't show: `$ {STATUS}`"
    done = subprocess.run(
        ["bash", "-c", f"(exit {before}); {command}"],  # as in one shell, `$?` is that of the last
        cwd=str(state["folder"]),
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    state |= {"status": done.returncode, "ran": int(str(state["ran"])) + 1}
    checker = OutputChecker()
    if checker.check_output(expected, done.stdout, FLAGS):
        return None
    differs = checker.output_difference(Example(command, expected), done.stdout, FLAGS)
    return f"$ {command}\n{differs}{done.stderr[-2000:]}"


def _environment() -> dict[str, str]:
    """That of a user: the programs of this environment, and nothing of a running test."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    folders = [str(Path(sys.executable).parent), ours["PATH"]]
    return ours | {"PATH": os.pathsep.join(folders), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}


READER = sybil.Sybil(
    [
        CodeBlockParser("python", _written),
        CodeBlockParser("toml", _written),
        CodeBlockParser("console", _run),
    ]
)
