"""The table of gradients, updates and zeros by module: the worst first, what is usual folded."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ris_diag.check import get_check
from ris_diag.result import Result

MOST = 8  # rows that a person reads in passing
FAR = 1000.0  # a gradient this much smaller or larger than most is worth a look
EMPTY = 0.5  # share of zeros; half is what a ReLU leaves
WORST = math.inf


@dataclass(frozen=True, kw_only=True)
class Row:
    """A module's medians over the steps; None where there was nothing."""

    module: str
    gradient: float | None
    update: float | None
    zeros: float | None


def module_lines(results: Iterable[Result], *, unfolded: bool) -> list[str]:
    """The table of the first check that measured it; nothing without one."""
    results = list(results)
    if not any("modules" in result.measurements for result in results):
        return []
    from ris_diag.flow import flow_in  # imports torch

    rows = [
        Row(
            module=name,
            gradient=_median(measured["gradient_norm"]),
            update=_median(measured["update_to_weight"]),
            zeros=_median(measured["zero_gradients"]),
        )
        for name, measured in flow_in(results)[1].items()
    ]
    return table(rows, unfolded=unfolded)


def table(rows: list[Row], *, unfolded: bool) -> list[str]:
    """Lines of the table: rows that stand out, or all of them, and what the others have."""
    usual = [row.gradient for row in rows if row.gradient and math.isfinite(row.gradient)]
    typical = statistics.median(usual) if usual else 0.0
    # A sort keeps the order of the model where two are equally odd.
    ranked = sorted(rows, key=lambda row: -oddness(row, typical))
    odd = [row for row in ranked if oddness(row, typical) >= 1]
    shown = ranked if unfolded else odd[:MOST]
    rest = [row for row in ranked if row not in shown]
    lines = [f"{'gradient':>8}  {'update/weight':>13}  {'zeros':>5}  module"] if shown else []
    lines += [
        f"{_number(row.gradient):>8}  {_number(row.update):>13}  {_share(row.zeros):>5}  "
        f"{row.module}"
        for row in shown
    ]
    if rest:
        count = f"and {len(rest)} more" if shown else f"{len(rest)} modules"
        odd_left = len(odd) - len(shown)
        kind = f"{odd_left} of them as odd" if odd_left > 0 else "unremarkable"
        lines.append(f"{count}, {kind}{_range(rest)}")
    return lines


def oddness(row: Row, typical: float) -> float:
    """How far a module is from what is usual; from 1 upwards it is worth a look.

    Args:
        typical: gradient norm of the module in the middle.
    """
    values = (row.gradient, row.update, row.zeros)
    if not row.gradient or not all(math.isfinite(v) for v in values if v is not None):
        return WORST
    limits = {limit.name: limit.value for limit in get_check("L018").thresholds}
    far = abs(math.log(row.gradient / typical)) / math.log(FAR) if typical else 0.0
    zeros, update = row.zeros or 0.0, row.update
    outside = update is not None and not limits["min_update"] <= update <= limits["max_update"]
    return max(far, 2.0 * outside, zeros / EMPTY if zeros > EMPTY else 0.0)


def _median(values: list[Any]) -> float | None:
    """Of what is there; what isn't finite comes first."""
    there = [float(value) for value in values if value is not None]
    bad = [value for value in there if not math.isfinite(value)]
    if bad:
        return bad[0]
    return statistics.median(there) if there else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _range(rows: list[Row]) -> str:
    """`: gradient 0.02 to 0.5, update/weight 0.03 to 0.4`."""
    parts = []
    for name, key in (("gradient", "gradient"), ("update/weight", "update")):
        values = [value for row in rows if (value := getattr(row, key)) is not None]
        if values:
            parts.append(f"{name} {min(values):.2g} to {max(values):.2g}")
    return f": {', '.join(parts)}" if parts else ""
