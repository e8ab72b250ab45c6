"""Curves and tables of what was measured: the loss, the estimators, the modules."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ris_diag.module_table import module_lines
from ris_diag.result import Result
from ris_diag.screen import SPARKS

LONGEST = 24  # signs of a curve: with its name and its ends it fits 40 columns
# Check to its curves: name to the measurement that holds it.
CURVES = {
    "L001": {"loss": "losses"},
    "O002": {"train": "train_losses", "val": "validation_losses"},
}
# Their last line is what a person asks for first.
CONCLUDING = ("L001", "O001", "O002", "O003")


def family_lines(results: Sequence[Result], verbosity: int) -> list[str]:
    """Curves of a family's checks; with folded checks their conclusions and the estimators, too."""
    lines: list[str] = []
    for result in results:
        for name, key in CURVES.get(result.id, {}).items():
            values = numbers(result.measurements.get(key))
            if len(values) > 1:
                lines.append(f"{name:<5} {values[0]:.4g} {sparkline(values)} {values[-1]:.4g}")
        if verbosity <= 0:
            lines += _estimators(result.measurements)
            lines += result.lines[-1:] if result.id in CONCLUDING else []
    return lines + module_lines(results, unfolded=verbosity > 0)


def sparkline(values: Sequence[float]) -> str:
    """A sign a value, the lowest at the lowest; `!` where it isn't finite. Long ones are averaged.

    Args:
        values: at least one.
    """
    count = min(len(values), LONGEST)
    edges = [len(values) * k // count for k in range(count + 1)]
    means = [statistics.fmean(values[a:b]) for a, b in itertools.pairwise(edges)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = (high - low) / (len(SPARKS) - 1) or 1.0
    return "".join(SPARKS[round((m - low) / step)] if math.isfinite(m) else "!" for m in means)


def numbers(values: Any) -> list[float]:
    """A measured list as numbers, those that JSON holds as text, too; [] where there is none."""
    return [float("nan" if v is None else v) for v in values] if isinstance(values, list) else []


def _estimators(measured: Mapping[str, Any]) -> list[str]:
    if "nmse" not in measured or "beta" not in measured:
        return []
    errors = measured["nmse_standard_error"]
    means = {name: (float(m), float(errors[name])) for name, m in measured["nmse"].items()}
    return estimator_table(means, float(measured["beta"]))


def estimator_table(means: Mapping[str, tuple[float, float]], beta: float) -> list[str]:
    """Lines of the estimator table, mean NMSE and standard error."""
    notes = {
        "R_pred": "the network alone",
        "R_blend": f"what inference hands out, beta {beta:.2f}",
        "R_samp": "the sample covariance",
        "blend floor": f"R_blend if R_pred were perfect, beta {beta:.2f}",
    }
    width = max(map(len, means))
    header = f"{'NMSE on fresh scenes':<{width}}   mean   +-se"
    rows = [
        f"{name:<{width}}  {mean:.4f}  {error:.4f}  {notes.get(name, 'classical')}"
        for name, (mean, error) in means.items()
    ]
    return [header, *rows]
