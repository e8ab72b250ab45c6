"""What is other in one report than in another."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ris_diag.result import Result
from ris_diag.saved import Group, Saved

GONE = ""  # the status of a check that isn't there
RANK = {"pass": 0, "xfail": 1, "skip": 1, GONE: 1, "fail": 2, "error": 2}
# Noise: what another number of threads or another library may bring about.
NOISE = 0.05  # share of the larger of two measurements
TINY = 1e-6  # what is smaller in both reports is rounding


class Checked(NamedTuple):
    """A check with its status in two reports, "" where it isn't there, and the cause in the second.

    Attributes:
        seconds: in both reports.
    """

    group: Group
    name: str
    before: str
    after: str
    cause: str
    seconds: tuple[float, float]

    @property
    def worse(self) -> bool:
        """It passed and doesn't, it is red and wasn't, or it is gone."""
        return self.after == GONE or RANK[self.after] > RANK[self.before]

    @property
    def word(self) -> str:
        """What has become of it."""
        if self.after == GONE:
            return "gone"
        if self.worse:
            return "worse"
        if self.before == GONE:
            return "new"
        return "better" if RANK[self.after] < RANK[self.before] else "other"


class Measured(NamedTuple):
    """A measurement with its value in two reports.

    Attributes:
        change: share of what it was, with its sign; None where that is 0 or one is no number.
    """

    group: Group
    name: str
    before: Any
    after: Any
    change: float | None


class Caused(NamedTuple):
    """A cause that the diagnosis names in one of two reports, with its place."""

    group: Group
    name: str
    came: bool
    certainty: float
    place: str


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is other in the second of two reports.

    Attributes:
        checks: all of both; `changed` are those of another status, the worst first.
        causes: that came or went.
        measurements: beyond noise, what changed most first.
        versions: seed and versions that differ, before and after.
        stopped: whether the second run was interrupted and the first wasn't.
    """

    checks: list[Checked]
    causes: list[Caused]
    measurements: list[Measured]
    versions: dict[str, tuple[str, str]]
    stopped: bool

    @property
    def changed(self) -> list[Checked]:
        """The checks of another status, those that got worse first."""
        found = [check for check in self.checks if check.before != check.after]
        return sorted(found, key=lambda check: not check.worse)

    @property
    def worse(self) -> bool:
        """Whether anything got worse."""
        return self.stopped or any(check.worse for check in self.checks)


def changes(before: Saved, after: Saved) -> Changes:
    """Compare two reports check by check: those of one case, or one group alone with another."""
    checks: list[Checked] = []
    causes: list[Caused] = []
    measurements: list[Measured] = []
    for one, other in _pairs(before, after):
        old, new = before.results.get(one, {}), after.results.get(other, {})
        names = sorted({*old, *new})
        checks += [_checked(other, old.get(name), new.get(name)) for name in names]
        for name in sorted(old.keys() & new.keys()):
            measurements += _measured(other, old[name], new[name])
        causes += _caused(other, before.causes.get(one, {}), after.causes.get(other, {}))
    about = sorted({*before.about, *after.about})
    pairs = {name: (before.about.get(name, "-"), after.about.get(name, "-")) for name in about}
    return Changes(
        checks=checks,
        causes=causes,
        measurements=sorted(measurements, key=lambda found: (-_size(found), found.name)),
        versions={name: pair for name, pair in pairs.items() if pair[0] != pair[1]},
        stopped=before.complete and not after.complete,
    )


def _pairs(before: Saved, after: Saved) -> list[tuple[Group, Group]]:
    """Groups to compare: of one case and device; where both reports have a single one, those."""
    if len(before.results) == len(after.results) == 1:
        return list(zip(before.results, after.results, strict=True))
    return [(group, group) for group in sorted({*before.results, *after.results})]


def _checked(group: Group, old: Result | None, new: Result | None) -> Checked:
    either = new or old
    return Checked(
        group=group,
        name=either.name if either else "",
        before=old.shown_status if old else GONE,
        after=new.shown_status if new else GONE,
        cause=new.cause if new else "",
        seconds=(old.seconds if old else 0.0, new.seconds if new else 0.0),
    )


def _caused(
    group: Group, old: Mapping[str, tuple[float, str]], new: Mapping[str, tuple[float, str]]
) -> list[Caused]:
    came = [Caused(group, name, True, *new[name]) for name in new if name not in old]
    return came + [Caused(group, name, False, *old[name]) for name in old if name not in new]


def _measured(group: Group, old: Result, new: Result) -> Iterator[Measured]:
    """What differs by more than noise; of a list, the entry that differs most."""
    before, after = dict(_leaves(old.measurements)), dict(_leaves(new.measurements))
    largest: dict[tuple[str, ...], Measured] = {}
    for path in before.keys() & after.keys():
        found = _compared(group, f"{new.id} {'.'.join(path)}", before[path], after[path])
        key = tuple(part for part in path if not part.isdigit())
        if found and (key not in largest or _size(found) > _size(largest[key])):
            largest[key] = found
    yield from largest.values()


def _compared(group: Group, name: str, before: Any, after: Any) -> Measured | None:
    if not (_is_number(before) and _is_number(after)):
        return Measured(group, name, before, after, None) if before != after else None
    larger = max(abs(before), abs(after))
    if larger <= TINY or abs(after - before) <= NOISE * larger:
        return None
    return Measured(group, name, before, after, (after - before) / abs(before) if before else None)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value with its path: names, and numbers of the entries of a list."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, (*path, str(name)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, (*path, str(number)))
    else:
        yield path, value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _size(measured: Measured) -> float:
    """How much it changed; what can't be said as a share comes first."""
    return math.inf if measured.change is None else abs(measured.change)
