"""Gathers what tests recorded, and tells it: at the end, or where the session is stopped."""

import re
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from pytest_ris import devices
from pytest_ris.ci import made_readable, publish
from pytest_ris.session import RisSession

REFUSAL = "ris_refusal"
STOPPED = 130  # as a shell tells a program that Ctrl-C ended
# What the id of a test ends with that runs one check: `[mlp-L001-one-batch-learns-cpu]`.
CHECK = re.compile(r"\[((?:.*-)?[A-Z]\d{3}-[a-z0-9-]+)\]$")


class Collector:
    """Lives in the process that reports: hears of its own tests, or of those of xdist's workers."""

    def __init__(self, ris: RisSession) -> None:
        self.ris = ris
        self.planned: set[str] = set()
        self.at_work: dict[str, None] = {}
        self.interrupted = False
        self._signalled = self._stops_here = False
        self._before: Any = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep which tests run a check."""
        self._plan(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """The same, where workers collect; this process then does nothing but wait for them."""
        self._stops_here = True
        self._plan(ids)

    def _plan(self, ids: Iterable[str]) -> None:
        self.planned |= {name for name in ids if CHECK.search(name)}
        here = threading.current_thread() is threading.main_thread()
        if self.planned and here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C: stops a test at once, else the next in front of it; the second ends the process.

        pytest's own work isn't cut in two: a report half made or half written is none.
        """
        if self._signalled:
            from ris_diag.stopping import end_at_once

            end_at_once(number, frame)
        self._signalled = True
        if self._stops_here:
            raise KeyboardInterrupt

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None]:
        """Fixtures can be stopped."""
        with self._stopping_here():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None]:
        """A test can be stopped."""
        with self._stopping_here():
            return (yield)

    @contextmanager
    def _stopping_here(self) -> Iterator[None]:
        self._stops_here = True
        try:
            yield
        finally:
            self._stops_here = False

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Keep what is at work."""
        if self._signalled:
            raise KeyboardInterrupt
        self.at_work[nodeid] = None

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """It came to its end."""
        self.at_work.pop(nodeid, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the results that a test recorded; count the tests for CUDA that didn't run."""
        self.ris.skipped_for_cuda += devices.skipped_for_cuda(report)
        records = made_readable(report)
        if report.when == "teardown":  # holds what setup and call recorded
            self.ris.records += records

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C in a run of checks: one more ends the process at once."""
        # pytest's own reasons to end a session are kinds of KeyboardInterrupt, too.
        self.interrupted = excinfo.type is KeyboardInterrupt and self.has_checks
        self._signalled |= self.interrupted

    @property
    def has_checks(self) -> bool:
        """Whether checks ran, or would have."""
        return bool(self.ris.records or self.planned)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the section of the checks, if there is anything to say."""
        if self.ris.records or self.ris.skipped_for_cuda or self.interrupted:
            from pytest_ris.terminal import write_summary

            stopped = self._stopped() if self.interrupted else ""
            write_summary(terminalreporter, self.ris.records, self.ris.skipped_for_cuda, stopped)

    def _stopped(self) -> str:
        from ris_diag.summary import stopped_at

        found = [CHECK.search(name) or name for name in self.at_work]
        names = [name if isinstance(name, str) else name.group(1) for name in found]
        doing = f"in {' and '.join(names)}" if names else ""
        return stopped_at(len(self.ris.records), len(self.planned), doing)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Refuse the run if a worker of xdist found that its checks have no case."""
        refusal = getattr(node, "workeroutput", {}).get(REFUSAL)
        if refusal is not None:
            raise pytest.UsageError(refusal)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None]:
        """Write the files asked for, after the summary: an error must not hide it."""
        self._stops_here = False
        yield
        self.ris.leave()
        complete = exitstatus != pytest.ExitCode.INTERRUPTED
        self.ris.write_json(complete=complete)
        self.ris.write_page(complete=complete)
        publish(self.ris, complete=complete)
        if self._signalled:
            session.exitstatus = STOPPED

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Leave Ctrl-C as it was."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


@contextmanager
def refused_at_interrupt(ris: RisSession) -> Iterator[None]:
    """What pytest tells nobody of: Ctrl-C while the case of --ris-case is loaded."""
    try:
        yield
    except KeyboardInterrupt:
        ris.write_json(complete=False)
        pytest.exit("interrupted while the case was loaded", returncode=STOPPED)
