"""Annotations: commands to GitHub in the log, which show a message beside the line of the code."""

import os
from collections.abc import Iterator
from pathlib import Path

from ris_diag.ci.part import Part, SourceLine, first_source_line, source_line
from ris_diag.diagnosis import diagnose


def annotations(part: Part) -> Iterator[str]:
    """A line for each diagnosis, then for each failed check, that has a line of the user's code.

    The diagnosis comes first: GitHub shows ten of a step.
    """
    for named in diagnose(part.results).named:
        at = source_line(named.place)
        if at is not None:
            cause = named.cause
            seen = "; ".join(f"{e.check} {e.finding['cause']}" for e in named.evidence)
            text = f"{cause.title}.\nSeen: {seen}\nRepair: {cause.repair}"
            yield command(at, named.told, text)
    for result in part.red:
        at = first_source_line(result)
        if at is not None:
            yield command(at, result.name, f"{result.cause}\nTry: {result.next_step}")


def command(at: SourceLine, title: str, message: str) -> str:
    """One annotation as GitHub's runner reads it."""
    place = f"file={_value(from_root(at.file))},line={at.line}"
    return f"::error {place},title={_value(title)}::{_message(message)}"


def from_root(path: str) -> str:
    """A path as seen from the repository, where the job works in a folder below it."""
    root = os.environ.get("GITHUB_WORKSPACE")
    full = Path.cwd() / path
    if root and full.is_relative_to(root):
        return full.relative_to(root).as_posix()
    return path


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _value(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
