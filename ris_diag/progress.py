"""Progress of what takes longer than a blink: silent, as plain lines, or as a bar."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

Advance = Callable[[str], None]
"""Called once a unit of work with a short status text."""

ProgressFactory = Callable[[str, int], AbstractContextManager[Advance]]
"""(description, total) -> a context whose value is called once a unit."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda status: None


def plain_lines(write: Callable[[str], None]) -> ProgressFactory:
    """A line at every tenth of the work, through `write`."""

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Advance]:
        done = 0

        def advance(status: str) -> None:
            nonlocal done
            done += 1
            if done * 10 // total > (done - 1) * 10 // total:
                write(f"{description}: {done}/{total}  {status}")

        yield advance

    return progress


def bar(file: TextIO) -> ProgressFactory:
    """A rich progress bar with the time left, removed when done."""

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
        )
        with Progress(*columns, console=Console(file=file), transient=True) as shown:
            task = shown.add_task(description, total=total, status="")
            yield lambda status: shown.update(task, advance=1, status=status)

    return progress


def for_stream(file: TextIO | None = None, *, quiet: bool = False) -> ProgressFactory:
    """A bar on a terminal; plain lines with `quiet`, NO_COLOR, TERM=dumb, or elsewhere."""
    file = sys.stderr if file is None else file
    plain = quiet or os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown")
    if file.isatty() and not plain:
        return bar(file)
    return plain_lines(lambda line: print(line, file=file, flush=True))
