"""Every parameter: registered, held by an optimiser, reached, moving or frozen, tied. B1."""

from collections import Counter
from fnmatch import fnmatchcase
from itertools import combinations, groupby

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.flow import MOST_STEPS, flow_of
from ris_diag.measure import Fitted, listed
from ris_diag.trace import Step, Trace
from ris_diag.watched import (
    class_of,
    cut_in_front_of,
    dissected,
    frozen_by_declaration,
    largest_of,
    named_parameters,
    place_of_model,
    place_of_optimiser,
    place_of_training,
    steps_or_problem,
    watch,
)

SOURCES = ("B1",)
ROUNDED = 0.5  # share of the entries
EACH = Threshold(name="max_offenders", value=0, unit="parameters", why="each is to be trained")


@check(
    "L013",
    "optimiser-holds-parameters",
    title="Every trainable parameter is in exactly one optimiser",
    what="Compares the trainable parameters of the model with those that the optimisers hold at "
    "the time of their steps. A model, or a part of it, built after the optimiser isn't held.",
    why="A parameter that no optimiser holds keeps its initial value for ever; one that two hold "
    "is pulled in two directions.",
    sources=SOURCES,
    signs=(
        "none-in-optimiser",
        "not-in-optimiser",
        "optimiser-idle",
        "optimiser-rebuilt",
        "held-twice",
    ),
    needs=("run",),
    thresholds=(EACH,),
)
def optimiser_holds_parameters(context: Context) -> None:
    subject, fitted = context.subject, watch(context.subject)
    if not steps_or_problem(context, fitted.trace):
        return
    rebuilt = max((_rebuilt(fitted.trace, steps) for steps in fitted.trace.groups), default=1)
    counted = [set(map(id, held_by(fitted.trace, group))) for group in fitted.trace.groups]
    held = Counter({key for group in counted for key in group})
    held.update(_held_twice(fitted.trace))
    trainable = {
        name: id(p)
        for name, p in named_parameters(fitted).items()
        if p.requires_grad and not frozen_by_declaration(subject.case.declared, name)
    }
    trainable |= _unheld(fitted)
    absent = [name for name, key in trainable.items() if key not in held]
    idle = {id(p) for o in fitted.trace.made for g in o.param_groups for p in g["params"]}
    waiting = [name for name in absent if trainable[name] in idle]
    absent = [name for name in absent if name not in waiting]
    twice = [name for name, key in trainable.items() if held[key] > 1]
    context.measure(trainable=len(trainable), held=len(held), absent=absent, twice=twice)
    place = place_of_optimiser(subject, fitted.trace)
    limit = context.limit("max_offenders")
    if len(absent) > limit:
        every = not any(id(p) in held for p in named_parameters(fitted).values())
        context.problem(
            f"{len(absent)} of {len(trainable)} trainable parameters are in no optimiser "
            f"({listed(absent)}), limit {limit:g}",
            sign="none-in-optimiser" if every else "not-in-optimiser",
            place=place,
            next_step="build the optimiser of this very model, after it is complete"
            if every
            else "pass model.parameters() to the optimiser, or declare these as frozen: "
            "Declared(frozen=[...])",
        )
    if len(waiting) > limit:
        context.problem(
            f"{len(waiting)} of {len(trainable)} trainable parameters are in an optimiser that "
            f"never steps ({listed(waiting)}), limit {limit:g}",
            sign="optimiser-idle",
            place=place_of_training(subject, fitted.trace),
            next_step="call step() of every optimiser, or leave out the one that has no task",
        )
    if rebuilt > 1:
        context.problem(
            f"the optimiser was built {rebuilt} times in {len(fitted.trace.steps)} steps: its "
            "moments and its schedule start anew each time",
            sign="optimiser-rebuilt",
            place=place,
            next_step="build it once, in front of the loop over epochs",
        )
    if len(twice) > limit:
        context.problem(
            f"{len(twice)} parameters are held twice ({listed(twice)})",
            sign="held-twice",
            place=place,
            next_step="give each parameter to one group of one optimiser",
        )


def _unheld(fitted: Fitted) -> dict[str, int]:
    """Ids of parameters to which a script's loss leads, of modules that no optimiser knows."""
    if fitted.epochs or any(fitted.steps):
        return {}
    trace = fitted.trace
    reached = {id(trace.parameters[n]) for passes in trace.backward for n in passes.reached}
    known = {id(p) for root in fitted.roots for p in root.parameters()}
    return {
        f"{type(call.module).__name__}.{name}": id(p)
        for call in trace.calls
        for name, p in call.module.named_parameters()
        if id(p) in reached and id(p) not in known and p.requires_grad
    }


def held_by(trace: Trace, steps: list[Step]) -> list[Tensor]:
    """The parameters that these steps move."""
    return [trace.parameters[number] for number in steps[0].numbers]


def _rebuilt(trace: Trace, steps: list[Step]) -> int:
    """How many optimisers of one kind took these steps one behind the other; 1 if by turns.

    One of another kind is a second stage, as L-BFGS behind Adam.
    """
    turns = _turns(steps)
    if len(turns) != len(set(turns)):
        return 1
    return max(Counter(type(trace.optimizers[number]) for number in turns).values())


def _turns(steps: list[Step]) -> list[int]:
    """The optimisers that took these steps, each once for those that it took in a row."""
    return [number for number, _ in groupby(step.optimizer for step in steps)]


def _at_one_time(trace: Trace, one: list[Step], other: list[Step]) -> bool:
    """Whether steps of both come in between each other: a stage of a training follows another."""
    order = {id(step): number for number, step in enumerate(trace.steps)}
    first, second = ([order[id(step)] for step in steps] for steps in (one, other))
    return min(first) < max(second) and min(second) < max(first)


def _held_twice(trace: Trace) -> list[int]:
    """Ids that one optimiser holds twice, or two that take turns over the same parameters."""
    twice = [
        id(p)
        for one, other in combinations(trace.groups, 2)
        if _at_one_time(trace, one, other)
        for p in held_by(trace, one)
        if any(p is q for q in held_by(trace, other))
    ]
    for steps in trace.groups:
        parameters = held_by(trace, steps)
        turns = _turns(steps)
        several = len(turns) != len(set(turns))
        twice += [
            id(p)
            for k, p in enumerate(parameters)
            if several or any(p is q for q in parameters[:k])
        ]
    return twice


@check(
    "L014",
    "parameters-get-gradient",
    title="Every trainable parameter is reached by a gradient",
    what="Looks at the gradient of every trainable parameter behind every backward pass: at least "
    "one must be there and not exactly zero. Keeps `losses` and, by module, `gradient_norm`, "
    "`update_to_weight` and `zero_gradients` (the share of exactly zero entries) of every step.",
    why="A detach(), an argmax or a branch that is never taken leaves a part of the model at its "
    "initial weights, and the loss falls on the rest.",
    sources=("B1", "S12"),
    signs=(
        "graph-cut",
        "no-gradient",
        "zero-gradient",
        "layer-input-zero",
        "sampled-without-path",
        "flat-operation",
    ),
    needs=("run",),
    thresholds=(EACH,),
)
def parameters_get_gradient(context: Context) -> None:
    subject, fitted = context.subject, watch(context.subject)
    trace = fitted.trace
    if not steps_or_problem(context, trace):
        return
    largest = largest_of(trace.steps, "gradients", len(trace.names))
    for passes in trace.backward:
        size = len(passes.after)
        largest[:size] = torch.maximum(largest[:size], passes.after)
    trainable = {n: p for n, p in named_parameters(fitted).items() if p.requires_grad}
    # A layer that starts at zero lets a gradient through once it has moved.
    held = {id(trace.parameters[n]) for n in _moving(trace)}
    moves = any(id(p) in held for p in trainable.values())
    arrives = {
        name.rpartition(".")[0]
        for name, parameter in trainable.items()
        for number in [trace.number(parameter)]
        if number is not None and largest[number] > 0
    }
    none: list[str] = []
    zero: list[str] = []
    starved: list[str] = []
    for name, parameter in trainable.items():
        number = trace.number(parameter)
        value = -1.0 if number is None else float(largest[number])
        if frozen_by_declaration(subject.case.declared, name):
            continue
        if value == 0 and moves and not (parameter.ndim < 2 and name.rpartition(".")[0] in arrives):
            # A bias alone may cancel out, as in the difference of two outputs; where it gets a
            # gradient and the weight beside it none, what enters the layer is zero.
            beside = parameter.ndim > 1 and name.rpartition(".")[0] in arrives
            (starved if beside else zero).append(name)
        elif value < 0 and not (parameter.ndim < 2 and name.rpartition(".")[0] in arrives):
            none.append(name)  # a derivative by the input has lost the last bias, too
    context.measure(trainable=len(trainable), none=none, zero=zero, starved=starved)
    context.measure(losses=trace.losses[:MOST_STEPS], modules=flow_of(trace))
    limit = context.limit("max_offenders")
    sampled = {called.place: called for called in dissected(subject).sampled}
    if sampled:
        context.problem(
            f"{len(sampled)} random draws cut the graph between their distribution and the module "
            "that they enter: sample() has no gradient",
            sign="sampled-without-path",
            place=", ".join(sampled),
            next_step="call rsample(), or mean + spread * noise",
        )
    if len(none) > limit:
        cut = cut_in_front_of(subject, none)
        context.problem(
            f"{len(none)} of {len(trainable)} trainable parameters get no gradient "
            f"({listed(none)}), limit {limit:g}" + (f"; cut by {cut.name}" if cut else ""),
            sign="graph-cut" if cut else "no-gradient",
            place=cut.place if cut and cut.place else class_of(subject, fitted.roots, none[0]),
            next_step="take the cut out, or freeze what is behind it: Declared(frozen=[...])"
            if cut
            else "look for modules that forward() never calls, and for parameters that were "
            "replaced behind the optimiser's back",
        )
    if len(starved) > limit:
        context.problem(
            f"{len(starved)} of {len(trainable)} weights get a gradient of exactly 0 in all "
            f"{len(trace.backward)} backward passes, and the biases beside them don't "
            f"({listed(starved)}): what enters these layers is zero",
            sign="layer-input-zero",
            place=class_of(subject, fitted.roots, starved[0]),
            next_step="look what is handed to the layer: an input that is overwritten, a mask of "
            "zero, whole numbers divided as such",
        )
    flat = {called.place: called.name for called in dissected(subject).flat}
    if len(zero) > limit and flat:
        context.problem(
            f"{len(zero)} of {len(trainable)} trainable parameters get a gradient of exactly 0 "
            f"({listed(zero)}); {', '.join(f'{name}()' for name in flat.values())} has no slope",
            sign="flat-operation",
            place=", ".join(flat),
            next_step="take it out, or let the gradient pass by: x + (round(x) - x).detach()",
        )
    elif len(zero) > limit:
        context.problem(
            f"{len(zero)} of {len(trainable)} trainable parameters get a gradient of exactly 0 in "
            f"all {len(trace.backward)} backward passes ({listed(zero)})",
            sign="zero-gradient",
            place=class_of(subject, fitted.roots, zero[0]),
            next_step="look for a weight or mask of 0, dead activations, or a term that doesn't "
            "depend on them",
        )


@check(
    "L015",
    "parameters-move",
    title="Every parameter with a gradient moves",
    what="Compares every parameter in front of and behind each optimiser step.",
    why="An optimiser of another model, a learning rate of 0 in one group or an update below the "
    "precision of the dtype: gradients everywhere, and nothing learns.",
    sources=SOURCES,
    signs=("parameters-move", "updates-rounded-away"),
    needs=("run",),
    thresholds=(
        EACH,
        Threshold(
            name="min_gradient",
            value=1e-6,
            unit="of the largest gradient norm",
            why="the bias in front of a batch norm has a gradient that is rounding alone",
        ),
    ),
)
def parameters_move(context: Context) -> None:
    subject, fitted = context.subject, watch(context.subject)
    trace = fitted.trace
    if not steps_or_problem(context, trace):
        return
    gradients, moved = (
        largest_of(trace.steps, values, len(trace.names)) for values in ("gradients", "moved")
    )
    floor = context.limit("min_gradient") * float(gradients.nan_to_num(posinf=0).max())
    names = {id(p): name for name, p in named_parameters(fitted).items()}
    stuck = [
        names.get(id(trace.parameters[n]), trace.names[n])
        for n in ((gradients > max(floor, 0.0)) & (moved == 0)).nonzero().flatten().tolist()
    ]
    rounded = [step.rounded for step in trace.steps if step.rounded > ROUNDED]
    context.measure(held=int((moved >= 0).sum()), stuck=stuck, rounded=rounded)
    if len(rounded) > len(trace.steps) / 2:
        context.problem(
            f"in {len(rounded)} of {len(trace.steps)} steps up to {max(rounded):.0%} of the "
            f"half-precision weights that have a gradient stay as they are (limit {ROUNDED:.0%}): "
            "the update is below their precision",
            sign="updates-rounded-away",
            place=place_of_model(fitted.roots[0], subject) if fitted.roots else "",
            next_step="keep the weights in float32, and use autocast for the computation alone",
        )
    if len(stuck) > context.limit("max_offenders"):
        context.problem(
            f"{len(stuck)} of {int((gradients > 0).sum())} parameters with a gradient don't move "
            f"in {len(trace.steps)} steps ({listed(stuck)}), limit 0",
            sign="parameters-move",
            place=place_of_training(subject, trace),
            next_step=f"look at the learning rates {trace.learning_rates}, at what restores old "
            "weights, and at half precision weights",
        )


@check(
    "L016",
    "frozen-as-declared",
    title="What is declared frozen doesn't move, and nothing else is frozen",
    what="Compares the parameters that require no gradient, and those that moved, with the names "
    "in Declared.frozen.",
    why="A backbone that should be frozen and drifts, or a part that a forgotten "
    "requires_grad_(False) keeps from learning, both look like bad hyper-parameters.",
    sources=("B1", "S10"),
    signs=("frozen-pattern-idle", "frozen-drifts", "frozen-undeclared"),
    needs=("run",),
    thresholds=(EACH,),
)
def frozen_as_declared(context: Context) -> None:
    subject, fitted = context.subject, watch(context.subject)
    trace, declared = fitted.trace, subject.case.declared
    if not steps_or_problem(context, trace):
        return
    moved = largest_of(trace.steps, "moved", len(trace.names))
    drifting, undeclared = [], []
    for name, parameter in named_parameters(fitted).items():
        number = trace.number(parameter)
        if frozen_by_declaration(declared, name):
            if number is not None and moved[number] > 0:
                drifting.append(name)
        elif not parameter.requires_grad:
            undeclared.append(name)
    patterns = () if declared is None else declared.frozen
    names = list(named_parameters(fitted))
    idle = [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
    context.measure(drifting=drifting, undeclared=undeclared, idle_patterns=idle)
    limit = context.limit("max_offenders")
    if idle:
        context.problem(
            f"no parameter fits Declared.frozen {listed(idle)}",
            sign="frozen-pattern-idle",
            place=class_of(subject, fitted.roots, names[0] if names else ""),
            next_step=f"names are {listed(names)}; patterns match them whole, as in 'backbone.*'",
        )
    if len(drifting) > limit:
        context.problem(
            f"{len(drifting)} parameters that are declared frozen move ({listed(drifting)})",
            sign="frozen-drifts",
            place=place_of_training(subject, trace),
            next_step="call requires_grad_(False) on them and leave them out of the optimiser",
        )
    if len(undeclared) > limit:
        context.problem(
            f"{len(undeclared)} parameters are frozen and not declared so ({listed(undeclared)})",
            sign="frozen-undeclared",
            place=class_of(subject, fitted.roots, undeclared[0]),
            next_step="remove requires_grad_(False), or declare them: Declared(frozen=[...])",
        )


def _moving(trace: Trace) -> list[int]:
    """Numbers of the parameters that moved."""
    moved = largest_of(trace.steps, "moved", len(trace.names))
    return (moved > 0).nonzero().flatten().tolist()
