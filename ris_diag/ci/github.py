"""What GitHub Actions gets of a run, wherever it says by its variables that it listens."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ris_diag.ci.part import Part

ROOM = 2**20  # bytes that GitHub takes as the summary of one step
SUMMARY, ACTIONS = "GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"


def listens() -> bool:
    """Whether GitHub wants a summary or annotations."""
    return bool(os.environ.get(SUMMARY)) or os.environ.get(ACTIONS) == "true"


def publish(parts: Sequence[Part], say: Callable[[str], None]) -> None:
    """Append the job summary, and say the annotations; nothing where GitHub doesn't listen.

    A summary that can't be written is said and changes no verdict: nobody asked for it by name.

    Args:
        say: prints a line to the log.
    """
    path = os.environ.get(SUMMARY)
    if path:
        try:
            _append(Path(path), parts)
        except OSError as error:
            say(f"no job summary: {SUMMARY} {path}: {error.strerror}")
    if os.environ.get(ACTIONS) == "true":
        from ris_diag.ci.annotations import annotations

        for part in parts:
            for line in annotations(part):
                say(line)


def _append(path: Path, parts: Sequence[Part]) -> None:
    """Behind what the step has written already, in the room that is left.

    Raises:
        OSError: the file can't be written, or is full.
    """
    from ris_diag.ci.markdown import summary

    text = summary(parts, ROOM - (path.stat().st_size if path.exists() else 0))
    if not text:
        raise OSError(0, "the 1 MiB of this step are full")
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
