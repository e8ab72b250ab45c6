"""Results that stand together: those of one case on one device."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from ris_diag.result import Report, Result
from ris_diag.verdict import verdict_on

RED = ("fail", "error")
# A place in a source file, as `ris_diag.places` writes it: `train.py:12` or `train.py:12, in step`.
_SOURCE_LINE = re.compile(r"(?P<file>\S[^:]*\.py):(?P<line>\d+)(?:, in .*)?")


class SourceLine(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """Results of one case on one device.

    Attributes:
        device: as it was asked for.
        verdict: one line.
    """

    case: str
    device: str
    results: list[Result]
    verdict: str

    @property
    def red(self) -> list[Result]:
        """The checks that failed, and those that raised."""
        return [result for result in self.results if result.status in RED]

    @property
    def seconds(self) -> float:
        """Time that the checks took."""
        return sum(result.seconds for result in self.results)


def part_of(report: Report, gate: str = "") -> Part:
    """The part that a report of one case on one device is; the gate has its own verdict."""
    return Part(
        case=report.case,
        device=report.device,
        results=report.results,
        verdict=verdict_on(report.results, complete=report.complete, gate=gate).text,
    )


def source_line(place: str) -> SourceLine | None:
    """file:line of a place in a Python file; None for the name of a parameter, a split, a key."""
    found = _SOURCE_LINE.fullmatch(place)
    return SourceLine(found["file"], int(found["line"])) if found else None


def first_source_line(result: Result) -> SourceLine | None:
    """file:line of the first finding that has one."""
    places = (source_line(finding["place"]) for finding in result.findings)
    return next(filter(None, places), None)
