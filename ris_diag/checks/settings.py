"""What the optimiser is set to, against what is usual and what is declared. B1, S10."""

import math
from collections.abc import Callable
from statistics import median
from typing import Any

from ris_diag.case import Declared
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.trace import Step, Trace
from ris_diag.watched import place_of_optimiser, place_of_training, steps_or_problem, watch

# What is odd in a parameter group: key to (is it odd, what is usual).
ODD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "betas": (
        lambda betas: betas[0] > betas[1] or betas[0] >= 0.995 or betas[1] < 0.5,
        "(0.9, 0.999), the first below the second",
    ),
    "eps": (lambda eps: eps > 0.1, "1e-8; a large one makes Adam a slow SGD"),
    "momentum": (lambda momentum: momentum > 0.995, "0.9"),
    "dampening": (lambda dampening: dampening >= 0.99, "0; at 1 momentum gets no new gradient"),
    "alpha": (lambda alpha: alpha >= 0.9999, "0.99"),
}


@check(
    "L036",
    "optimiser-settings-fit",
    title="The optimiser's settings are usable, and the declared ones",
    what="Reads betas, eps, momentum and the like of every parameter group at the first step, "
    "compares them with Declared.optimizer, and the gradient norm at each step with "
    "Declared.clip_norm.",
    why="Swapped betas, eps=1 or a momentum of 0.999 are valid numbers; a setting that is not "
    "passed is replaced by its default.",
    sources=("B1", "S10"),
    signs=("setting-odd", "setting-not-declared", "clip-not-declared"),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_relative_difference",
            value=1e-3,
            unit="relative, of a gradient norm from the declared limit",
            why="clip_grad_norm_ adds 1e-6 and rounds",
        ),
        Threshold(
            name="max_pull",
            value=3.0,
            unit="decay over gradient, median over the weights at the first step",
            why="decay that is part of the gradient (SGD, Adam) and three times as large leads",
        ),
    ),
)
def optimiser_settings_fit(context: Context) -> None:
    subject, trace = context.subject, watch(context.subject).trace
    if not steps_or_problem(context, trace):
        return
    place = place_of_optimiser(subject, trace)
    groups = {
        f"optimiser {number} group {k}": group
        for number, optimizer in enumerate(trace.optimizers)
        for k, group in enumerate(optimizer.param_groups)
    }
    odd = [
        f"{name}: {key}={group[key]!r}, usual is {usual}"
        for name, group in groups.items()
        for key, (is_odd, usual) in ODD.items()
        if key in group and not _unread(key, group) and is_odd(group[key])
    ]
    pull = _pull_of_decay(trace)
    context.measure(odd=odd, pull_of_decay=pull)
    if odd:
        context.problem(
            f"{len(odd)} settings are far from any useful one ({listed(odd)})",
            sign="setting-odd",
            place=f"{place} ({odd[0].split(': ')[1].split('=')[0]})",
            next_step="look at the order and the names of the optimiser's arguments",
        )
    if pull > context.limit("max_pull"):
        context.problem(
            f"at the first step weight decay is {pull:.2g} times as large as the gradient (median "
            f"over the weights, limit {context.limit('max_pull'):g})",
            sign="setting-odd",
            place=f"{place} (weight_decay)",
            next_step="lower weight_decay: here it is added to the gradient",
        )
    declared = subject.case.declared
    if declared is not None:
        _compare(context, declared, groups, place)
        _compare_clipping(context, declared, trace, place_of_training(subject, trace))


def _unread(key: str, group: dict[str, Any]) -> bool:
    """Whether a setting has no effect: dampening without momentum."""
    return key == "dampening" and not group.get("momentum")


def _pull_of_decay(trace: Trace) -> float:
    """Decay over gradient, where decay is a part of the gradient."""
    ratios = []
    for number, optimizer in enumerate(trace.optimizers):
        steps = trace.steps_of(number)
        decay = float(optimizer.param_groups[0].get("weight_decay") or 0)
        apart = optimizer.param_groups[0].get("decoupled_weight_decay", False)
        if not decay or apart or type(optimizer).__name__ == "AdamW" or not steps:
            continue
        first = steps[0]
        known = (first.gradients > 0) & (first.weights > 0)
        ratios += (decay * first.weights[known] / first.gradients[known]).tolist()
    return median(ratios) if ratios else 0.0


def _compare(
    context: Context, declared: Declared, groups: dict[str, dict[str, Any]], place: str
) -> None:
    off = [
        f"{name}: {key}={group.get(key, 'absent')!r}, declared {wanted!r}"
        for key, wanted in declared.optimizer.items()
        for name, group in groups.items()
        if key not in group or not _same(group[key], wanted)
    ]
    if off:
        context.problem(
            f"{len(off)} settings in effect are not the declared ones ({listed(off)})",
            sign="setting-not-declared",
            place=f"{place} (Declared.optimizer {', '.join(declared.optimizer)})",
            next_step="pass the configured setting, by its name, where the optimiser is built",
        )


def _same(seen: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | tuple) and isinstance(seen, list | tuple):
        return len(seen) == len(wanted) and all(map(_same, seen, wanted))
    if isinstance(wanted, bool) or isinstance(seen, bool):
        return bool(seen) == bool(wanted)
    if isinstance(wanted, int | float) and isinstance(seen, int | float):
        return math.isclose(float(seen), float(wanted), rel_tol=1e-6)
    return bool(seen == wanted)


def _compare_clipping(context: Context, declared: Declared, trace: Trace, place: str) -> None:
    limit = declared.clip_norm
    if limit is None:
        return
    slack = 1 + context.limit("max_relative_difference")
    norms = [
        (number, _norm(step), _norm_behind_backward(trace, step))
        for number, step in enumerate(trace.steps, 1)
    ]
    above = [f"step {number}: {norm:.4g}" for number, norm, _ in norms if norm > limit * slack]
    below = [
        f"step {number}: {norm:.4g} of {raw:.4g}"
        for number, norm, raw in norms
        if raw > limit * slack and norm < limit / slack
    ]
    for off, text in ((above, "larger than"), (below, "clipped below")):
        if off:
            context.problem(
                f"in {len(off)} of {len(norms)} steps the gradient is {text} the declared norm "
                f"{limit:g} ({listed(off)})",
                sign="clip-not-declared",
                place=f"{place} (Declared.clip_norm)",
                next_step="call clip_grad_norm_(model.parameters(), limit) with the configured "
                "limit between backward() and step()",
            )


def _norm(step: Step) -> float:
    return float(step.gradients.clamp(min=0).square().sum().sqrt())


def _norm_behind_backward(trace: Trace, step: Step) -> float:
    if not step.backward:
        return 0.0
    after = trace.backward[step.backward - 1].after
    held = after[[n for n in step.numbers if n < len(after)]]
    return float(held.clamp(min=0).square().sum().sqrt())
