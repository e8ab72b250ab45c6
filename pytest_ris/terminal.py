"""What the plugin shows: progress while a check works, the summary at the end."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_ris.records import Record
    from ris_diag.progress import Advance, ProgressFactory
    from ris_diag.result import Result

MARKUP = {"pass": {"green": True}, "skip": {"yellow": True}}
FAILED = {"red": True, "bold": True}


def progress_for(config: pytest.Config) -> "ProgressFactory":
    """Progress on pytest's own terminal, past its capture; silent in xdist workers."""
    from ris_diag.progress import for_stream, silent

    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    if reporter is None or hasattr(config, "workerinput"):
        return silent
    show = for_stream(reporter._tw._file, quiet=config.get_verbosity() < 0)

    @contextmanager
    def progress(description: str, total: int) -> Iterator["Advance"]:
        with capture.global_and_fixture_disabled():
            reporter.ensure_newline()
            with show(description, total) as advance:
                yield advance

    return progress


def write_summary(
    reporter: pytest.TerminalReporter, records: list["Record"], skipped_for_cuda: int
) -> None:
    """The section of the summary: what a person reads first.

    Args:
        records: what the tests recorded.
        skipped_for_cuda: number of tests.
    """
    from pytest_ris.records import cards_of, results_by_group, told_apart_by

    reporter.write_sep("=", "ris-diag")
    groups = results_by_group(records)
    fields = told_apart_by(groups)
    for group, results in groups.items():
        _write_group(reporter, {field: getattr(group, field) for field in fields}, results)
    for card in cards_of(records):
        reporter.write_line(str(card))
    if skipped_for_cuda:
        tests = f"{skipped_for_cuda} test{'s' * (skipped_for_cuda > 1)}"
        reporter.write_line(f"{tests} for CUDA skipped: no --gpu", yellow=True)


def _write_group(
    reporter: pytest.TerminalReporter, names: dict[str, str], results: list["Result"]
) -> None:
    """Lines and verdict of a case on a device; its names where it isn't alone."""
    from ris_diag.diagnosis import diagnose
    from ris_diag.gate import READY, reasons_against
    from ris_diag.render import diagnosis_lines, result_line

    said = f"{', '.join(names.values())}: " if names else ""
    diagnosis = diagnosis_lines(diagnose(results))
    if reporter.config.get_verbosity() >= 0:
        if names:
            reporter.write_line(", ".join(map(" ".join, names.items())), bold=True)
        for number, line in enumerate(diagnosis):
            reporter.write_line(line, **({} if number else FAILED))
        for result in results:
            reporter.write_line(result_line(result), **MARKUP.get(result.status, FAILED))
            for line in result.lines:
                reporter.write_line(f"      {line}")
    elif diagnosis:
        reporter.write_line(f"{said}{diagnosis[0]}", **FAILED)
    reasons = reasons_against(results)
    counts = Counter("xfail" if result.expected else result.status for result in results)
    if not reasons:
        reporter.write_line(f"{said}{READY}", green=True, bold=True)
    elif counts["fail"] or counts["error"]:
        reporter.write_line(f"{said}NOT READY: {'; '.join(reasons)}", **FAILED)
    else:
        shown = ", ".join(f"{number} {status}" for status, number in counts.items())
        reporter.write_line(f"{said}{shown}; no verdict: {'; '.join(reasons)}")
