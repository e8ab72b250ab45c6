"""The number by which validation judges: of these weights, repeatable, harmless. B7."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.graph import map_leaves, tensors_in
from ris_diag.measure import listed, nudged_model, shake
from ris_diag.norms import hash_of
from ris_diag.places import where

SIZE = 7  # samples; a length that few other axes have
SIZES = (SIZE, 67)  # of many a metric drops what doesn't fill its batches of 4, 8, 16 or 32
ROLLS = (1, 2, 3, 5)
MOST_NUMBERS = 2**16
MANY = 32  # so that a share of right answers has steps
EXTREMES = (0.0, 1.0, -1.0, 100.0, -100.0)  # no answer right, or all of them
SPREADS = (0.1, 0.3, 1.0, 1.0, 1.0)  # of a weight's own spread
NEEDS = ("model", "batch", "metric")
EQUAL = Threshold(
    name="max_difference",
    value=1e-4,
    unit="relative",
    why="parallel sums, and sums in another order, round at 1e-6",
)


def metric_of(context: Context, model: nn.Module, batch: Batch, key: str = "metric") -> float:
    """The case's metric, without gradient, from a seed of its own."""
    metric = context.subject.case.metric
    if metric is None:
        raise LookupError("no metric")
    with torch.no_grad(), context.subject.seeded(key):
        value = metric(model, batch)
    return float(value.detach() if isinstance(value, Tensor) else value)


def difference(a: float, b: float) -> float:
    """Relative difference of two numbers; 0 where both are NaN."""
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) / max(abs(a), abs(b)) if math.isfinite(a) and math.isfinite(b) else math.inf


def seen_by(context: Context, *checks: str) -> bool:
    """Whether another check has found what would show here as well; says so."""
    found = [name for name in checks if context.result_of(name).findings]
    if found:
        context.say(f"not judged: it would show what {' and '.join(found)} found of the metric")
    return bool(found)


def judged_by(context: Context) -> str:
    """Where the metric is defined."""
    return where(context.subject.case.metric)


@check(
    "L050",
    "metric-follows-weights",
    title="The metric changes with the model's weights",
    what="Computes the metric, then changes the weights in place, more and more, and computes it "
    "again. A share that stays at none or at all, while the outputs that it is made of change, as "
    "that of sentences without any error, says nothing.",
    why="A copy made at the start, a value in a cache or a reloaded checkpoint gives a number that "
    "looks like any other and has nothing to do with the training.",
    sources=("B7",),
    signs=("metric-ignores-weights",),
    needs=NEEDS,
    thresholds=(
        Threshold(
            name="min_change",
            value=0.0,
            unit="in five changes of the weights",
            why="any change will do: a share of right answers moves in steps",
        ),
    ),
)
def metric_follows_weights(context: Context) -> None:
    model = nudged_model(context.subject).eval()
    batch = context.subject.batch("validation", MANY)
    first = metric_of(context, model, batch)
    values = [first]
    outputs = [_outputs_of(context, model, batch)]
    for spread in SPREADS:
        shake(model, spread)
        values.append(metric_of(context, model, batch))
        if abs(values[-1] - first) > context.limit("min_change"):
            break
        outputs.append(_outputs_of(context, model, batch))
    context.measure(values=values)
    if not math.isfinite(first):
        context.say(f"not judged: the metric is {first:g}")
    elif first in EXTREMES and len(set(outputs)) == len(values):
        context.say(f"not judged: a share of {first:g} stays, while what it is made of changes")
    elif len(values) > len(SPREADS) and difference(values[-1], first) == 0.0:
        context.problem(
            f"the metric stays at {first:.6g} while every weight of the model is changed in place "
            f"{len(SPREADS)} times, by up to its own spread (limit: any change)",
            place=judged_by(context),
            next_step="compute it from the model that is handed over, without a copy, a cache or "
            "a checkpoint",
        )


def _outputs_of(context: Context, model: nn.Module, batch: Batch) -> tuple[int, ...]:
    """Hashes of what the model and its parts give while the metric is computed."""
    seen: list[int] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if not torch._C._are_functorch_transforms_active():  # their tensors hold no numbers
            seen.extend(hash_of(tensor) for tensor in tensors_in(output))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        metric_of(context, model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(seen)


@check(
    "L051",
    "metric-repeats",
    title="The metric of one model and one batch is one number",
    what="Computes the metric twice, from different random states.",
    why="The best epoch is then the luckiest one, and two runs can't be compared.",
    sources=("B7",),
    signs=("metric-random",),
    needs=NEEDS,
    thresholds=(EQUAL,),
    requires=("L053", "L054"),
)
def metric_repeats(context: Context) -> None:
    if seen_by(context, *context.check.requires):
        return
    first, second = _twice(context)
    off = difference(first, second)
    context.measure(first=first, second=second, difference=off)
    if not off <= context.limit("max_difference"):
        context.problem(
            f"the metric of the same model and batch is {first:.6g} and then {second:.6g}: they "
            f"differ by {off:.2g} (limit {context.limit('max_difference'):g})",
            place=judged_by(context),
            next_step="draw no noise, sample nothing and keep no sums from call to call; leave the "
            "model in eval mode",
        )


def _twice(context: Context) -> tuple[float, float]:
    """The metric of one model and batch, from two random states."""
    model = nudged_model(context.subject).eval()
    batch = context.subject.batch("validation", SIZE)
    return metric_of(context, model, batch), metric_of(context, model.eval(), batch, "again")


@check(
    "L052",
    "metric-ignores-order",
    title="The metric does not depend on the order of the samples",
    what="Computes the metric of a batch and of the same samples in other orders, so that others "
    "are the first and the last ones; of 7 samples and, where they are small, of 67.",
    why="A sample that is dropped, counted double or compared with its neighbour's label shows "
    "only if the order changes, and a loader's order never does.",
    sources=("B7",),
    signs=("metric-depends-on-order",),
    needs=NEEDS,
    thresholds=(EQUAL,),
    requires=("L051", "L053", "L054"),
)
def metric_ignores_order(context: Context) -> None:
    if seen_by(context, *context.check.requires):
        return
    judged = False
    for size in SIZES:
        batch = context.subject.batch("validation", size)
        numbers = sum(tensor.numel() for tensor in tensors_in(batch))
        if not in_rows(batch, size) or (judged and numbers > MOST_NUMBERS):
            continue
        judged = True
        if _depends_on_order(context, batch, size):
            return
    if not judged:
        context.say("not judged: not every part of the batch has one row for each sample")


def _depends_on_order(context: Context, batch: Batch, size: int) -> bool:
    model = nudged_model(context.subject).eval()
    plain = metric_of(context, model, batch)
    rows = torch.arange(size)
    orders = {"reversed": rows.flip(0)} | {f"rolled by {k}": rows.roll(k) for k in ROLLS}
    others = {
        name: metric_of(context, model.eval(), map_leaves(batch, partial(_in_order, order=order)))
        for name, order in orders.items()
    }
    off = {name: difference(plain, value) for name, value in others.items()}
    context.measure(**{f"of {size}": {"plain": plain, **others}})
    worst = max(off, key=lambda name: off[name])
    if off[worst] <= context.limit("max_difference"):
        return False
    context.problem(
        f"the metric is {plain:.6g}, and {others[worst]:.6g} of the same {size} samples "
        f"{worst}: they differ by {off[worst]:.2g} "
        f"(limit {context.limit('max_difference'):g})",
        place=judged_by(context),
        next_step="average over all samples, each with its own label; look for [:-1], [:n], a "
        "shuffle of one side alone and weights by position",
    )
    return True


def _in_order(leaf: Any, order: Tensor) -> Any:
    return leaf[order.to(leaf.device)] if isinstance(leaf, Tensor) and leaf.ndim else leaf


def in_rows(batch: Batch, size: int = SIZE) -> bool:
    """Whether each part of a batch has one row for each sample, and no second axis of them."""

    def strange(value: Any) -> bool:
        if isinstance(value, Tensor):
            shape = list(value.shape)
            return bool(shape) and (shape[0] != size or shape.count(size) > 1)
        if isinstance(value, Mapping):
            return any(map(strange, value.values()))
        if isinstance(value, Sequence) and not isinstance(value, str):
            return len(value) == size or any(map(strange, value))
        return not isinstance(value, str | int | float | bool | None)

    return bool(tensors_in(batch)) and not strange(batch)


@check(
    "L053",
    "metric-in-eval-mode",
    title="The metric runs the model in eval mode",
    what="Hands the model over in eval mode and looks at the mode of every module that the metric "
    "calls and for which it matters: dropout, norms with running statistics, modules that ask for "
    "`training`.",
    why="With dropout the number is too bad and random; batch norm learns from validation data.",
    sources=("B7",),
    signs=("metric-in-train-mode",),
    needs=NEEDS,
    thresholds=(
        Threshold(name="max_training", value=0, unit="modules", why="each changes the number"),
    ),
)
def metric_in_eval_mode(context: Context) -> None:
    model = nudged_model(context.subject).eval()
    names = {module: name for name, module in model.named_modules()}
    seen: list[str] = []

    def before(module: nn.Module, args: Any) -> None:
        if module in names and module.training and asks_for_mode(module):
            seen.append(names[module] or type(module).__name__)

    hook = register_module_forward_pre_hook(before)
    try:
        metric_of(context, model, context.subject.batch("validation", SIZE))
    finally:
        hook.remove()
    found = list(dict.fromkeys(seen))
    context.measure(training=found)
    if len(found) > context.limit("max_training"):
        context.problem(
            f"the metric calls {len(found)} modules in train mode ({listed(found)}; limit 0)",
            place=judged_by(context),
            next_step="call model.eval() in front and put the old mode back behind",
        )


def asks_for_mode(module: nn.Module) -> bool:
    """Whether a module computes something else in train mode."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, _NormBase):
        return module.track_running_stats
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return float(module.dropout) > 0
    code = getattr(type(module).forward, "__code__", None)
    library = type(module).__module__.startswith("torch.")
    return not library and code is not None and "training" in code.co_names


@check(
    "L054",
    "metric-leaves-model",
    title="The metric leaves the model as it was",
    what="Compares parameters, buffers, gradients, flags and modes in front of the metric with "
    "those behind it.",
    why="Validation that steps, loads or freezes spoils the training that goes on behind it.",
    sources=("B7",),
    signs=("metric-changes-model",),
    needs=NEEDS,
    thresholds=(
        Threshold(name="max_changed", value=0, unit="tensors, flags and modes", why="none may"),
    ),
    requires=("L053",),
)
def metric_leaves_model(context: Context) -> None:
    subject = context.subject
    batch = subject.batch("validation", SIZE)
    model = nudged_model(subject)
    modes = {name: module.training for name, module in model.named_modules()}
    changed: list[dict[str, str]] = []
    # Many put eval() in front and train() behind: only what neither call leaves as it was counts.
    for evaluating in (True, False):
        for name, module in model.named_modules():
            module.training = modes[name] and not evaluating
        with _compared(model) as found:
            metric_of(context, model, batch)
        changed.append(found)
    both = {
        name: what
        for name, what in changed[0].items()
        if what != "mode" or changed[1].get(name) == "mode"
    }
    of_the_mode = [name for name, what in both.items() if what in ("mode", "buffer")]
    if of_the_mode and seen_by(context, *context.check.requires):
        both = {name: what for name, what in both.items() if name not in of_the_mode}
    context.measure(changed=both)
    if len(both) > context.limit("max_changed"):
        named = [f"{name}: {what}" for name, what in both.items()]
        context.problem(
            f"the metric changes the model ({listed(named)}; limit 0)",
            place=judged_by(context),
            next_step="no backward(), step(), load_state_dict() or requires_grad_() in the "
            "metric; no_grad and eval mode around it",
        )


@contextmanager
def _compared(model: nn.Module) -> Iterator[dict[str, str]]:
    """What is another one at the end of the `with`: name to kind."""
    found: dict[str, str] = {}
    numbers = {
        name: tensor.detach().clone()
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if tensor.is_floating_point() or tensor.is_complex()
    }
    gradients = {
        name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    yield found
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    for name, module in model.named_modules():
        if module.training != modes.get(name, module.training):
            found[name or type(module).__name__] = "mode"
    for name, before in numbers.items():
        now = parameters.get(name, buffers.get(name))
        if now is None or not _same(before, now):
            found[name] = "weights" if name in parameters else "buffer"
    for name, parameter in parameters.items():
        if flags.get(name) != parameter.requires_grad:
            found[name] = "requires_grad"
        elif not _same(gradients.get(name), parameter.grad):
            found[name] = "gradient"


def _same(before: Tensor | None, now: Tensor | None) -> bool:
    if before is None or now is None:
        # A gradient of zeros in place of none is no change.
        return not any(t is not None and bool((t != 0).any()) for t in (before, now))
    return before.shape == now.shape and bool(torch.equal(before, now.detach()))
