"""Gradients, updates and zeros of a training by module: plain data for tables and figures."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ris_diag.result import Result
from ris_diag.trace import Step, Trace

MOST_MODULES = 48  # more rows than that nobody reads, and a report has to stay small
MOST_STEPS = 50  # what comes later looks alike
SHOWN_BY = ("L001", "L014")  # the checks that carry it, the one to be shown first
Flow = dict[str, dict[str, list[float | None]]]


def flow_of(trace: Trace) -> Flow:
    """What every module got and did in each of the first steps, in the order of the parameters.

    A module is the path of its parameters without their own names; where there are too many,
    paths are cut to their upper parts, and what is still left over is one row, "and N more".

    Returns:
        module to `gradient_norm`, of all its parameters together as the step sees it;
        `update_to_weight`, norm of the update over norm of the weights in front of it;
        `zero_gradients`, share of the entries of its gradients that are exactly zero. Each is a
        list with a number for every step, None where there is none: no gradient, no weight, another
        optimiser's step. Without an optimiser there are the norms behind every backward pass; empty
        where nothing was trained.
    """
    if not trace.steps and not trace.backward:
        return {}
    members = _members(trace)
    rows: Sequence[Step | Tensor] = trace.steps or [b.after for b in trace.backward]
    rows = rows[:MOST_STEPS]
    count = len(trace.names)
    sizes = torch.tensor([p.numel() for p in trace.parameters], dtype=torch.float64)
    found: Flow = {
        module: {"gradient_norm": [], "update_to_weight": [], "zero_gradients": []}
        for module in members
    }
    for row in rows:
        gradients, moved, weights, zeros = _by_parameter(row, count)
        for module, numbers in members.items():
            there = torch.tensor(numbers)[gradients[numbers] >= 0]
            values = found[module]
            values["gradient_norm"].append(_norm(gradients[there]))
            weight, update = _norm(_given(weights[numbers])), _norm(_given(moved[numbers]))
            ratio = None if update is None or not weight else update / weight
            values["update_to_weight"].append(_short(ratio))
            counted = there[zeros[there] >= 0]
            share = float((zeros[counted] * sizes[counted]).sum() / sizes[counted].sum().clamp(1))
            values["zero_gradients"].append(_short(share) if len(counted) else None)
    return found


def flow_in(results: Iterable[Result]) -> tuple[str, Mapping[str, Any]]:
    """ID of the check whose measurements are to be shown, and its `modules`; empty without any.

    Behind JSON, a number that isn't finite is a text: "NaN", "Infinity".
    """
    held = {result.id: result.measurements.get("modules") for result in results}
    for name in SHOWN_BY:
        modules = held.get(name)
        if modules:
            return name, modules
    return "", {}


def _by_parameter(row: Step | Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients, moved, weights, zeros of every parameter, float64 [P]; -1 where there is none."""
    spread = [torch.full((count,), -1.0, dtype=torch.float64) for _ in range(4)]
    if isinstance(row, Tensor):
        spread[0][: len(row)] = row
    else:
        values = (row.gradients, row.moved, row.weights, row.zeros)
        for whole, part in zip(spread, values, strict=True):
            whole[row.numbers] = part
    return spread[0], spread[1], spread[2], spread[3]


def _members(trace: Trace) -> dict[str, list[int]]:
    """Module to the numbers of its parameters."""
    root = next((type(call.module).__name__ for call in trace.calls), "model")
    # A parameter that belongs to no module has a description in place of a path.
    paths = [[name] if " " in name else (name.split(".")[:-1] or [root]) for name in trace.names]
    depth = max(map(len, paths), default=1)
    while depth > 1 and len({tuple(path[:depth]) for path in paths}) > MOST_MODULES:
        depth -= 1
    found: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        found.setdefault(".".join(path[:depth]), []).append(number)
    rest = list(found)[MOST_MODULES - 1 :]
    if len(rest) > 1:
        found[f"and {len(rest)} more"] = [n for module in rest for n in found.pop(module)]
    return found


def _given(values: Tensor) -> Tensor:
    """Those that are there; what isn't finite is."""
    return values[~(values < 0)]


def _norm(norms: Tensor) -> float | None:
    """Norm of all from the norms of each; None without any."""
    return _short(float(torch.linalg.vector_norm(norms))) if len(norms) else None


def _short(value: float | None) -> float | None:
    """Four digits: more can't be seen, and would make a report long."""
    return None if value is None else float(f"{value:.4g}")
