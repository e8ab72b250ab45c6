"""Where two recorded runs part: the first numbers that differ by more than rounding explains."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from ris_diag.recorded import RecordedRun
from ris_diag.recorder import OUTSIDE, Part
from ris_diag.rounding import difference, largest_of, limit_of, unit_of

SMALL = 1e-2  # of the largest gradient: a smaller one may be nothing but rounding


@dataclass(frozen=True, kw_only=True)
class Parting:
    """One part of two runs.

    Attributes:
        what: "output", "gradient of the output", "gradient", "loss".
        path: of the module or the parameter; "step 1" of a loss.
        difference: largest difference of an entry, over the largest entry of the first run.
        limit: what rounding explains, in the same unit; inf where that can't be told.
    """

    what: str
    path: str
    difference: float
    limit: float

    @property
    def share(self) -> float:
        """The difference over its limit: above 1 rounding doesn't explain it."""
        if self.difference == 0 or math.isinf(self.limit):
            return 0.0
        return self.difference / self.limit if self.limit > 0 else math.inf


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison found.

    Attributes:
        parts: those compared, in order; the last one is where the runs part, if they do.
        random: the module from which on nothing is compared, as it draws random numbers that are
            the device's own; "" without one.
    """

    parts: list[Parting]
    random: str

    @property
    def parting(self) -> Parting | None:
        """Where the runs part."""
        return self.parts[-1] if self.parts and self.parts[-1].share > 1 else None


def compare(first: RecordedRun, second: RecordedRun, nudged: RecordedRun) -> Comparison:
    """Compare a run with one on another device, part by part, up to the first that differs.

    Outputs of modules come first, in order of execution, then their gradients as backward made
    them, then those of the parameters, then the losses of the steps. The limit of a part is that
    of `ris_diag.rounding.limit_of`, 2 lambda sqrt(n) max(u, d), where n is the sum of
    `Part.length` up to this part: a backward pass makes the sums of the forward pass twice more,
    a further step all of them again.

    Args:
        first: on the CPU.
        second: the same weights and batch on another device.
        nudged: as the first, with every weight and input changed by its last digit: d.
    """
    random = next((path for path in first.draws if path not in second.draws), "")
    parts: list[Parting] = []
    for part in () if random == OUTSIDE else _all_parts(first, second, nudged):
        if random and (part.what != "output" or part.path == random):
            break
        parts.append(part)
        if part.share > 1:
            break
    return Comparison(parts=parts, random=random)


def _all_parts(first: RecordedRun, second: RecordedRun, nudged: RecordedRun) -> Iterator[Parting]:
    total = sum(part.length for part in first.outputs)
    unit, count = 0.0, 0
    for what, name in KINDS.items():
        ours, theirs, moved = (_numbered(getattr(run, name)) for run in (first, second, nudged))
        largest = max((largest_of(part.values) for part in ours.values()), default=0.0)
        floor = SMALL * largest if "gradient" in what else 0.0
        for key, part in ours.items():
            count = count + part.length if what != "gradient" else 3 * total
            others, near = (run[key].values if key in run else None for run in (theirs, moved))
            unit = max(unit, unit_of([*part.values, *(others or ())]))
            yield _parting(what, key[0], (part.values, others, near), floor, count, unit)
    for step in range(len(first.losses)):
        loss, others, near = (run.losses[step : step + 1] for run in (first, second, nudged))
        unit, count = max(unit, unit_of(loss)), (1 + 3 * step) * total
        yield _parting("loss", f"step {step + 1}", (loss, others, near), 0.0, count, unit)


KINDS = {"output": "outputs", "gradient of the output": "slopes", "gradient": "gradients"}
Values = list[Tensor]


def _parting(
    what: str,
    path: str,
    values: tuple[Values, Values | None, Values | None],
    floor: float,
    count: int,
    unit: float,
) -> Parting:
    """Of the values of the first run, the second, the nudged one; None where it has none."""
    apart, change = (
        math.inf if other is None else difference(values[0], other, floor) for other in values[1:]
    )
    return Parting(what=what, path=path, difference=apart, limit=limit_of(count, unit, change))


def _numbered(parts: list[Part]) -> dict[tuple[str, int], Part]:
    """Parts by their path and how often it was there before, in their order."""
    seen: Counter[str] = Counter()
    found = {}
    for part in parts:
        found[part.path, seen[part.path]] = part
        seen[part.path] += 1
    return found
