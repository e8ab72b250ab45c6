"""Where two recorded runs part: the first numbers that differ by more than rounding explains."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.recorded import OUTSIDE, Part, RecordedRun

LIKELY = 8.0  # lambda of the bound
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
    them, then those of the parameters, then the losses of the steps. The limit of a part is

        2 * lambda * sqrt(n) * max(u, d)

    - u, the unit roundoff: half of `torch.finfo(dtype).eps` of the coarsest dtype so far.
    - n, roundings in a row: the sum of `Part.length` up to this part. A backward pass makes the
      sums of the forward pass twice more, and so does every further step with all of them.
    - lambda = 8: a sum of n terms is off by lambda sqrt(n) u of its terms at most, but for a
      probability of 2 n exp(-lambda^2 / 2) (Higham and Mary, A New Approach to Probabilistic
      Rounding Error Analysis, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4).
    - d, the change of this part if every weight and input changes by its last digit. The error of
      a result is the condition number times that of its data (Higham, Accuracy and Stability of
      Numerical Algorithms, 2nd ed., section 1.6): d is the condition, measured in units of u.
    - 2, as both runs round.

    Args:
        first: on the CPU.
        second: the same weights and batch on another device.
        nudged: as the first, with every weight and input changed by its last digit.
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
        floor = SMALL * max(map(_largest, ours.values()), default=0.0) if "gradient" in what else 0
        for (path, number), part in ours.items():
            other, near = theirs.get((path, number)), moved.get((path, number))
            values = [*part.values, *(other.values if other else ())]
            unit = max([unit, *(torch.finfo(value.dtype).eps / 2 for value in values)])
            count = count + part.length if what != "gradient" else 3 * total
            change = _difference(part, near, floor)
            yield Parting(
                what=what,
                path=path,
                difference=_difference(part, other, floor),
                limit=_limit(count, unit, change),
            )
    for step, value in enumerate(first.losses):
        part, other, near = (_loss(run, step) for run in (first, second, nudged))
        unit = max(unit, torch.finfo(value.dtype).eps / 2)
        yield Parting(
            what="loss",
            path=f"step {step + 1}",
            difference=_difference(part, other),
            limit=_limit((1 + 3 * step) * total, unit, _difference(part, near)),
        )


KINDS = {"output": "outputs", "gradient of the output": "slopes", "gradient": "gradients"}


def _numbered(parts: list[Part]) -> dict[tuple[str, int], Part]:
    """Parts by their path and how often it was there before, in their order."""
    seen: Counter[str] = Counter()
    found = {}
    for part in parts:
        found[part.path, seen[part.path]] = part
        seen[part.path] += 1
    return found


def _limit(count: int, unit: float, change: float) -> float:
    return 2 * LIKELY * math.sqrt(max(1, count)) * max(unit, change)


def _loss(run: RecordedRun, step: int) -> Part:
    return Part(path="", length=1, values=run.losses[step : step + 1])


def _largest(part: Part) -> float:
    sizes = [value[value.isfinite()].abs().double() for value in part.values]
    return max((float(size.max()) for size in sizes if size.numel()), default=0.0)


def _difference(first: Part, second: Part | None, floor: float = 0.0) -> float:
    """The largest of the part's tensors; inf where shapes differ, or only one is finite."""
    if second is None or [v.shape for v in first.values] != [v.shape for v in second.values]:
        return math.inf
    pairs = zip(first.values, second.values, strict=True)
    return max((_of_tensors(a, b, floor) for a, b in pairs), default=0.0)


def _of_tensors(first: Tensor, second: Tensor, floor: float) -> float:
    finite = first.isfinite()
    if not torch.equal(finite, second.isfinite()):
        return math.inf
    wide = torch.complex128 if first.is_complex() or second.is_complex() else torch.float64
    a, b = first[finite].to(wide), second[finite].to(wide)
    difference = float((a - b).abs().max()) if a.numel() else 0.0
    if difference == 0:
        return 0.0
    scale = max(float(a.abs().max()), floor)
    return difference / scale if scale > 0 else math.inf
