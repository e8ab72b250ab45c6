"""What the plugin shows: progress while a check works, the summary at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_ris.records import Record
    from ris_diag.progress import Advance, ProgressFactory
    from ris_diag.result import Result
    from ris_diag.screen import Line


def progress_for(config: pytest.Config) -> "ProgressFactory":
    """Progress on pytest's own terminal, past its capture; silent in xdist workers."""
    from ris_diag.progress import for_stream, silent

    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    if reporter is None or hasattr(config, "workerinput"):
        return silent
    quiet = config.get_verbosity() < 0
    show = for_stream(reporter._tw._file, quiet=quiet, begin=reporter.ensure_newline)

    @contextmanager
    def progress(description: str, total: int | None) -> Iterator["Advance"]:
        with capture.global_and_fixture_disabled(), show(description, total) as advance:
            yield advance

    return progress


def write_summary(
    reporter: pytest.TerminalReporter,
    records: list["Record"],
    skipped_for_cuda: int,
    stopped: str,
) -> None:
    """The section of the summary: what a person reads first.

    Args:
        records: what the tests recorded.
        skipped_for_cuda: number of tests.
        stopped: where the session was interrupted; "" where it wasn't.
    """
    from pytest_ris.records import cards_of, results_by_group, told_apart_by
    from ris_diag.screen import Line

    reporter.write_sep("=", "ris-diag")
    groups = results_by_group(records)
    fields = told_apart_by(groups)
    lines = [Line(stopped, "bold yellow")] if stopped and not groups else []
    for group, results in groups.items():
        names = {field: getattr(group, field) for field in fields}
        lines += _group(reporter, names, results, stopped)
    lines += [Line(str(card)) for card in cards_of(records)]
    if skipped_for_cuda:
        tests = f"{skipped_for_cuda} test{'s' * (skipped_for_cuda > 1)}"
        lines.append(Line(f"{tests} for CUDA skipped: no --gpu", "yellow"))
    _write(reporter, lines)


def _group(
    reporter: pytest.TerminalReporter,
    names: dict[str, str],
    results: list["Result"],
    stopped: str,
) -> list["Line"]:
    """What is said of a case on a device; its names where it isn't alone."""
    from ris_diag.screen import Line
    from ris_diag.summary import summary

    lines = summary(
        results,
        stopped=stopped,
        verbosity=reporter.config.get_verbosity(),
        messages=False,  # they stand among pytest's failures
    )
    if not names:
        return lines
    said = ", ".join(names.values())
    named = [Line(f"{said}: {text}", style) for text, style in lines]
    quiet = reporter.config.get_verbosity() < 0
    return named if quiet else [named[0], *lines[1:], Line("")]


def _write(reporter: pytest.TerminalReporter, lines: list["Line"]) -> None:
    """Lines on pytest's own terminal, with its word on colours."""
    from ris_diag.screen import fitted, width_of

    file = reporter._tw._file
    encoding = getattr(file, "encoding", None)  # a file of the user's own may have none
    for text, style in fitted(lines, width=width_of(file), encoding=encoding):
        reporter.write_line(text, **dict.fromkeys(style.split(), True))
