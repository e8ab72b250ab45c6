"""Every module: called, in the right mode, batch norm at work, alive at the start. B1."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ris_diag.check import Threshold, check
from ris_diag.checks.evaluation import asks_for_mode
from ris_diag.context import Context, Subject
from ris_diag.measure import FIT_BATCH, alike, listed, nudged_model
from ris_diag.trace import Call, Trace
from ris_diag.watched import (
    dissected,
    named_modules,
    place_of_model,
    place_of_training,
    steps_or_problem,
    watch,
)

SOURCES = ("B1",)
NONE_ALLOWED = Threshold(name="max_offenders", value=0, unit="modules", why="each is meant to work")
INITIAL_BATCH = 16
SATURATING: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: lambda y: y == 0,
    nn.Tanh: lambda y: y.abs() > 0.99,
    nn.Sigmoid: lambda y: (y < 0.01) | (y > 0.99),
    nn.Hardtanh: lambda y: y.abs() >= 1,
}


@check(
    "L023",
    "modules-are-called",
    title="Every module with trainable parameters is used",
    what="Looks for modules that forward() never called and whose parameters no gradient reached.",
    why="A layer that is built and forgotten makes the model smaller than its description.",
    sources=SOURCES,
    needs=("run",),
    thresholds=(NONE_ALLOWED,),
)
def modules_are_called(context: Context) -> None:
    fitted = watch(context.subject)
    trace = fitted.trace
    if not steps_or_problem(context, trace):
        return
    reached = {id(trace.parameters[n]) for passes in trace.backward for n in passes.reached}
    idle = []
    for name, module in named_modules(fitted).items():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        used = module in trace.usage or any(id(p) in reached for p in own)
        if own and not used:
            idle.append(name)
    context.measure(called=len(trace.usage), idle=idle)
    if len(idle) > context.limit("max_offenders"):
        context.problem(
            f"{len(idle)} modules with trainable parameters are never called ({listed(idle)}), "
            "limit 0",
            place=place_of_model(fitted.roots[0], context.subject),
            next_step="call them in forward(), or remove them",
        )


@check(
    "L024",
    "modes-match-phase",
    title="Train mode while training, eval mode while validating",
    what="Reads the mode of the model at every call, while the loop goes through training and "
    "through validation batches, or sees one of them later, where it holds dropout or batch norm, "
    "or a module that asks for `training` and predicts something else by it; of a script, at every "
    "call with a gradient.",
    why="model.eval() without a way back switches dropout and batch norm off from the second epoch "
    "on; validation in train mode measures another model and moves its statistics.",
    sources=("B1", "B7"),
    signs=("eval-while-training", "train-while-validating"),
    needs=("run",),
    thresholds=(
        Threshold(name="max_calls", value=0, unit="calls", why="each is in the wrong mode"),
    ),
)
def modes_match_phase(context: Context) -> None:
    fitted = watch(context.subject)
    trace = fitted.trace
    named = named_modules(fitted)
    sensitive = [name for name, module in named.items() if _depends_on_mode(module)]
    if not context.subject.case.offers("loop"):
        _mode_of_a_script(context, trace, sensitive)
        return
    asking = [name for name, module in named.items() if asks_for_mode(module)]
    if not sensitive and asking and _predicts_by_mode(context):
        sensitive = asking
    judging = _validating(trace)
    wrong = {
        "training": [
            c
            for c in trace.calls
            if c.phase == "train" and c.gradient and not c.training and _learns(c.module)
        ],
        "validation": [
            c
            for c in judging
            if c.training and (_sensitive(c.module) or any(map(asks_for_mode, c.module.modules())))
        ],
    }
    context.measure(sensitive=sensitive, wrong={k: len(calls) for k, calls in wrong.items()})
    if not sensitive:
        return
    for phase, calls in wrong.items():
        if len(calls) > context.limit("max_calls"):
            total = len(judging) if phase == "validation" else sum(map(_is_training, trace.calls))
            mode, call = ("eval", "train") if phase == "training" else ("train", "eval")
            context.problem(
                f"{len(calls)} of {total} {phase} calls are in {mode} mode, and "
                f"{listed(sensitive)} depend on it",
                sign="eval-while-training" if phase == "training" else "train-while-validating",
                place=place_of_training(context.subject, trace),
                next_step=f"call model.{call}() in front of every pass of {phase}",
            )


def _is_training(call: Call) -> bool:
    return call.phase == "train"


def _validating(trace: Trace) -> list[Call]:
    """Calls while validation batches are gone through, or behind that, on one of them."""
    train = frozenset[int]().union(*trace.served)
    held = frozenset[int]().union(*trace.validated) - train
    return [
        call
        for call in trace.calls
        if call.phase == "validation"
        or (not call.phase and not call.gradient and call.input_hash in held)
    ]


def _predicts_by_mode(context: Context) -> bool:
    """Whether a prediction of the same numbers is another one in train mode."""
    subject = context.subject
    if not subject.case.offers("prediction"):
        return False
    model, batch = nudged_model(subject), subject.batch("validation", FIT_BATCH)
    found: list[Any] = []
    for training in (True, False):
        model.train(training)
        try:
            with torch.no_grad(), subject.seeded("by mode"):
                found.append(subject.predict(model, batch))
        except Exception:  # noqa: BLE001  # a mode may ask for labels, which inference has not
            return False
    # A detector gives losses in the one and boxes in the other: its validation may need train mode.
    if not all(isinstance(value, Tensor) for value in found):
        return False
    first, second = found
    return bool(first.shape == second.shape) and not torch.allclose(first, second)


def _mode_of_a_script(context: Context, trace: Trace, sensitive: list[str]) -> None:
    """No batches tell training from validation: what is wrong is a model that never trains."""
    calls = [c for c in trace.calls if c.gradient and _learns(c.module)]
    context.measure(sensitive=sensitive, calls=len(calls))
    if calls and not any(c.training for c in calls):
        context.problem(
            f"all {len(calls)} calls with a gradient are in eval mode, and {listed(sensitive)} "
            "depend on it",
            sign="eval-while-training",
            place=place_of_training(context.subject, trace),
            next_step="call model.train() in front of the training",
        )


def _learns(module: nn.Module) -> bool:
    """Whether a module that depends on its mode is there to be trained: a frozen part isn't."""
    return _sensitive(module) and any(p.requires_grad for p in module.parameters())


def _sensitive(module: nn.Module) -> bool:
    return any(map(_depends_on_mode, module.modules()))


def _depends_on_mode(module: nn.Module) -> bool:
    return (isinstance(module, _DropoutNd) and module.p > 0) or isinstance(module, _BatchNorm)


@check(
    "L025",
    "batch-norm-works",
    title="Batch norm sees enough values a channel, and its statistics move",
    what="Counts the values a channel of every batch norm in train mode and compares its running "
    "mean with that at its first call.",
    why="With two values a channel the output is +1 and -1 whatever the input; with statistics "
    "that don't move inference uses those of the initialisation.",
    sources=SOURCES,
    signs=("few-values-a-channel", "statistics-still"),
    needs=("run",),
    thresholds=(
        Threshold(
            name="min_values",
            value=4,
            unit="values a channel",
            why="of two values one always becomes +1 and the other -1, whatever they were",
        ),
    ),
)
def batch_norm_works(context: Context) -> None:
    fitted = watch(context.subject)
    few, still = [], []
    for name, module in named_modules(fitted).items():
        usage = fitted.trace.usage.get(module)
        if not isinstance(module, _BatchNorm) or usage is None or usage.smallest is None:
            continue
        if usage.smallest < context.limit("min_values"):
            few.append(f"{name}: {usage.smallest}")
        if usage.statistics is not None and not usage.moved:
            still.append(f"{name} (momentum {module.momentum:g})")
    context.measure(few=few, still=still)
    place = place_of_model(fitted.roots[0], context.subject) if fitted.roots else ""
    if few:
        context.problem(
            f"batch norm gets fewer than {context.limit('min_values'):g} values a channel "
            f"({listed(few)})",
            sign="few-values-a-channel",
            place=place,
            next_step="use larger batches, drop_last=True, or group norm",
        )
    if still:
        context.problem(
            f"the running statistics of {listed(still)} don't move while training",
            sign="statistics-still",
            place=place,
            next_step="give it a momentum above 0 and input that isn't constant",
        )


@check(
    "L028",
    "initialisation-is-alive",
    title="The initial weights are neither dead, saturated, symmetric nor all zero",
    what="Runs a fresh model on a batch and looks at the output of every activation, and looks for "
    "weight matrices with equal rows, in the fresh model and again behind some steps: a last "
    "layer that starts at zero is healthy.",
    why="Units that all start alike stay alike, dead and saturated ones have no gradient; the "
    "network is smaller than it looks, from the first step on.",
    sources=SOURCES,
    signs=("dead-at-start", "units-alike", "all-weights-zero"),
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(
            name="max_dead",
            value=0.95,
            unit="share of an activation's outputs",
            why="half of them are zero behind a ReLU at a good start, few are saturated",
        ),
        NONE_ALLOWED,
    ),
)
def initialisation_is_alive(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_dead")
    model = subject.model()
    shares = {}
    if subject.case.offers("prediction"):
        shares = _dead_shares(
            model, lambda: subject.predict(model, subject.batch("train", INITIAL_BATCH))
        )
    shares |= _dead_calls(subject)
    dead = [f"{name}: {share:.0%}" for name, share in shares.items() if share > limit]
    fitted = watch(subject)
    # What doesn't move at all can't part: L015 and L013 say why.
    moves = any(bool((step.moved > 0).any()) for step in fitted.trace.steps)
    stuck = alike(model) & fitted.alike if moves else set()
    constant = [
        name
        for name, module in model.named_modules()
        for weight in [getattr(module, "weight", None)]
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        and isinstance(weight, Tensor)
        and weight.numel() > 1
        and bool(weight.detach().any())
        and bool((weight.detach() == weight.detach().flatten()[0]).all())
    ]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    empty = bool(matrices) and all(not p.detach().any() for p in matrices)
    context.measure(dead_shares=shares, alike=sorted(stuck), all_zero=empty)
    place = place_of_model(model, subject)
    if dead:
        context.problem(
            f"at the start {len(dead)} activations are dead or saturated ({listed(dead)}; limit "
            f"{limit:.0%} of the outputs)",
            sign="dead-at-start",
            place=place,
            next_step="look at the scale of the input and of the weights, and at the biases",
        )
    if len(constant) > 1 and not stuck:
        context.problem(
            f"{len(constant)} layers start with one and the same number in all of their weights "
            f"({listed(constant)}; limit 1): only the biases tell their units apart",
            sign="units-alike",
            place=place,
            next_step="initialise weights at random: a constant gives all units one gradient",
        )
    if empty or len(stuck) > context.limit("max_offenders"):
        what = "all weight matrices are zero" if empty else "equal rows"
        context.problem(
            f"units that start alike and stay alike behind {len(fitted.trace.steps)} steps: {what}"
            + (f" in {listed(sorted(stuck))}" if stuck else ""),
            sign="all-weights-zero" if empty else "units-alike",
            place=place,
            next_step="initialise weights at random: a constant gives all units one gradient",
        )


def _dead_calls(subject: Subject) -> dict[str, float]:
    """The same for activations that are called as functions, in the first steps; the least."""
    seen = dissected(subject)
    answers = {id(output.value) for output in seen.outputs}
    kinds = {kind.__name__.lower(): dead for kind, dead in SATURATING.items()}
    shares: dict[str, float] = {}
    for called in seen.activations:
        own = called.module.endswith(tuple(f"({kind.__name__})" for kind in SATURATING))
        if own or called.name not in kinds or id(called.output) in answers or not called.place:
            continue
        name = f"{called.name}() at {called.place}"
        share = float(kinds[called.name](called.output).double().mean())
        shares[name] = min(share, shares.get(name, 1.0))
    return shares


def _dead_shares(model: nn.Module, run: Callable[[], Any]) -> dict[str, float]:
    """For every activation the share of outputs that carry no gradient, eval mode, no_grad."""
    shares: dict[str, float] = {}
    outputs: dict[str, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        for kind, dead in SATURATING.items():
            if type(module) is kind:

                def hook(
                    module: nn.Module,
                    args: Any,
                    output: Tensor,
                    name: str = name,
                    dead: Callable[[Tensor], Tensor] = dead,
                ) -> None:
                    shares[name], outputs[name] = float(dead(output).double().mean()), output

                hooks.append(module.register_forward_hook(hook))
    try:
        model.eval()
        with torch.no_grad():
            prediction = run()
    finally:
        for handle in hooks:
            handle.remove()
        model.train()
    # The last activation is the answer, and an answer may be certain.
    return {n: s for n, s in shares.items() if not _same(outputs[n], prediction)}


def _same(output: Tensor, prediction: Any) -> bool:
    return (
        isinstance(prediction, Tensor)
        and output.numel() == prediction.numel()
        and torch.equal(output.flatten(), prediction.flatten())
    )
