"""Progress of what takes longer than a blink: silent, as plain lines, or as bars."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LATE = 1.0  # seconds after which a bar inside of another shows: what is quick doesn't flicker


class Advance(Protocol):
    """Called with a short status text once a unit of work; `step=0` changes the text alone."""

    def __call__(self, status: str, step: int = 1) -> None:
        """Show it."""


ProgressFactory = Callable[[str, int | None], AbstractContextManager[Advance]]
"""(description, total or None where it isn't known) -> a context, its value called once a unit."""


@contextmanager
def silent(description: str, total: int | None) -> Iterator[Advance]:
    """Shows nothing."""
    yield lambda status, step=1: None


def plain_lines(write: Callable[[str], None]) -> ProgressFactory:
    """A line at every tenth of the work, through `write`."""

    @contextmanager
    def progress(description: str, total: int | None) -> Iterator[Advance]:
        done = 0
        if total is None:
            write(description)

        def advance(status: str, step: int = 1) -> None:
            nonlocal done
            before, done = done, done + step
            if total and done * 10 // total > before * 10 // total:
                write(f"{description}: {done}/{total}  {status}".rstrip())

        yield advance

    return progress


def bar(file: TextIO, *, begin: Callable[[], object] | None = None) -> ProgressFactory:
    """A bar with the time left, removed when done; what is begun inside of another stands below.

    Args:
        begin: called in front of a bar, which then shows for what takes over a second alone.
    """
    at_work: list[Progress] = []

    @contextmanager
    def progress(description: str, total: int | None) -> Iterator[Advance]:
        # What has no units, as the loading of a case, says once that it is at work.
        late = time.monotonic() + (LATE if total and (at_work or begin) else 0.0)
        shown: Progress | None = None
        task: TaskID
        done = 0
        with ExitStack() as stack:

            def advance(status: str, step: int = 1) -> None:
                nonlocal shown, task, done
                done += step
                if shown is None and time.monotonic() >= late:
                    if not at_work:
                        if begin:
                            begin()
                        at_work.append(stack.enter_context(_bars(file)))
                        stack.callback(at_work.clear)
                    shown = at_work[0]
                    task = shown.add_task(description, total=total, status="", count="")
                    stack.callback(shown.remove_task, task)
                if shown is not None:
                    count = f"{done}/{total}" if total else ""
                    shown.update(task, completed=done, count=count, status=status)

            advance("", step=0)
            yield advance

    return progress


def _bars(file: TextIO) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True)),
        console=Console(file=file, color_system="standard"),  # readable on light and dark
        transient=True,
        redirect_stdout=False,  # what a training prints is kept from the screen elsewhere
        redirect_stderr=False,
    )


def for_stream(
    file: TextIO | None = None,
    *,
    quiet: bool = False,
    begin: Callable[[], object] | None = None,
) -> ProgressFactory:
    """Bars on a terminal, plain lines on one that can't move its cursor, nothing elsewhere.

    Nothing either with `quiet`, nor where CI is set: a log keeps every state of a bar.

    Args:
        file: standard error if not given.
        begin: as of `bar`.
    """
    file = sys.stderr if file is None else file
    if quiet or not file.isatty() or os.environ.get("CI"):
        return silent
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return plain_lines(lambda line: print(line, file=file, flush=True))
    return bar(file, begin=begin)
