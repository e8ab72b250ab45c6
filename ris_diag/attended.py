"""A run of checks that a person attends: it is reported at its end, or where it is stopped."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ris_diag.stopping import Stop, stoppable

if TYPE_CHECKING:
    from ris_diag.result import Report, Result
    from ris_diag.runner import Runner


@dataclass
class Attended:
    """A run so far.

    Attributes:
        device, seed: as asked for.
        hand_out: what to do with this run and its report; the text says where it was stopped, ""
            if it came to its end.
        doing: what is at work before a check is, "while train.py was loaded".
        planned: number of checks.
        verdict: that of a gate, which knows more than its results.
        notes: what a person is told behind the report.
        made_for: fingerprint of what a gate judged.
    """

    device: str
    seed: int
    hand_out: "HandOut"
    stop: Stop
    doing: str = "while PyTorch was imported"
    planned: int = 0
    runner: "Runner | None" = None
    results: list["Result"] = field(default_factory=list)
    verdict: str = ""
    notes: list[str] = field(default_factory=list)
    made_for: Mapping[str, Any] | None = None
    ended: bool = False

    def took(self, result: "Result") -> None:
        """Keep a result, unless it comes of a check that was told to stop and went on."""
        self.stop.look()
        self.results.append(result)

    def end(self, report: "Report") -> None:
        """Hand out the whole report; a signal waits until it is written."""
        self.stop.held = self.ended = True
        self.hand_out(self, report, "")

    def break_off(self) -> None:
        """Hand out what was found so far."""
        from ris_diag.summary import stopped_at

        self.stop.held = self.ended = True
        report = self._empty() if self.runner is None else self.runner.report(self.results)
        if self.runner is not None and self.runner.doing:
            self.doing = f"in {self.runner.doing}"
        stopped = stopped_at(len(self.results), self.planned, self.doing)
        self.hand_out(self, replace(report, complete=False), stopped)

    def _empty(self) -> "Report":
        from ris_diag.result import Report
        from ris_diag.versions import versions

        return Report(case="", device=self.device, seed=self.seed, versions=versions(), results=[])


HandOut = Callable[[Attended, "Report", str], None]


@contextmanager
def attended(hand_out: HandOut, *, device: str, seed: int) -> Iterator[Attended]:
    """A run that Ctrl-C and SIGTERM end with a report of what was found so far.

    Raises:
        SystemExit: with 130 or 143, behind that report; or behind the whole one, where the signal
            came when it was being written.
    """
    with stoppable() as stop:
        run = Attended(device, seed, hand_out, stop)
        try:
            yield run
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and stop.signal is None:
                stop.signal = signal.SIGINT  # raised by the code under test
            if stop.signal is None:
                raise
            # Whatever it was turned into: an import that is ended may say that it failed.
        if stop.signal is not None:
            if not run.ended:
                run.break_off()
            raise SystemExit(stop.status)
