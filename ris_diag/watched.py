"""The watched run that the checks of the loop's mechanics read, and names in it."""

from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from unittest.mock import patch

import torch
from torch import Tensor, nn

from ris_diag.anatomy import Anatomy, dissect
from ris_diag.case import Declared
from ris_diag.context import Context, Subject
from ris_diag.derivatives import Derivatives
from ris_diag.errors import CaseError
from ris_diag.functions import Applied, applied
from ris_diag.measure import (
    FIT_BATCHES,
    FIT_EPOCHS,
    LITMUS_BATCH,
    LITMUS_EPOCHS,
    Fitted,
    accumulation,
    captured_output,
    run_fit,
    short_fit,
)
from ris_diag.observer import observe
from ris_diag.operations import Operation, Operations
from ris_diag.places import covers, where
from ris_diag.plan import Plan
from ris_diag.trace import Step, Trace

SCRIPT_STEPS = FIT_EPOCHS * FIT_BATCHES
DISSECTED, ODD_BATCH = 3, 11  # a length that few other axes have


def watch(subject: Subject) -> Fitted:
    """A few epochs of the case's loop, or the first steps of its script; measured once."""
    return short_fit(subject) if subject.case.offers("loop") else subject.once("script", _script)


def run_script(subject: Subject, steps: int) -> tuple[Trace, list[str], str]:
    """The first steps of the script: what was seen, logged and printed."""
    main = subject.case.main
    if main is None:
        raise LookupError("neither a loop nor a script")
    with (
        captured_output() as (log, printed),
        patch.object(torch, "save", _not_saved),  # a few steps must not replace a checkpoint
        observe(stop_after=steps) as trace,
    ):
        try:
            main()
        except SystemExit as ended:
            if ended.code not in (None, 0):
                raise
    return trace, log, printed.getvalue()


def _script(subject: Subject) -> Fitted:
    trace, log, printed = run_script(subject, SCRIPT_STEPS)
    held = {id(p) for o in trace.optimizers for g in o.param_groups for p in g["params"]}
    roots = [
        module
        for module in dict.fromkeys(call.module for call in trace.calls)
        if any(id(p) in held for p in module.parameters())
    ]
    return Fitted(
        roots=roots,
        trace=trace,
        ties=set(),
        alike=set(),
        steps=[],
        epochs=[],
        planned=SCRIPT_STEPS,
        log=log,
        printed=printed,
    )


def dissected(subject: Subject) -> Anatomy:
    """Every operation of the first steps of the loop or the script; measured once."""
    return _dissected(subject)[0]


def functions_of(subject: Subject) -> list[Applied]:
    """The user's own autograd functions in the same steps."""
    return _dissected(subject)[1]


def derivatives_of(subject: Subject) -> Derivatives:
    """The gradients that the loss itself takes in the same steps."""
    return _dissected(subject)[2]


def _dissected(subject: Subject) -> tuple[Anatomy, list[Applied], Derivatives]:
    def measure(subject: Subject) -> tuple[Anatomy, list[Applied], Derivatives]:
        derivatives = Derivatives()
        if not subject.case.offers("loop"):
            with derivatives, applied() as functions, dissect(steps=DISSECTED) as seen:
                run_script(subject, DISSECTED)
            return seen, functions, derivatives
        model = subject.model()
        count = DISSECTED * accumulation(subject)
        batches = [subject.batch("train", ODD_BATCH, offset=k) for k in range(count)]
        with derivatives, applied() as functions, dissect(model, steps=DISSECTED) as seen:
            run_fit(
                subject,
                subject.fit,
                model,
                Plan(epochs=LITMUS_EPOCHS, train=batches),
                stop_after=DISSECTED,
                planned=DISSECTED,
            )
        return seen, functions, derivatives

    return subject.once("dissected", measure)


def cut_in_front_of(subject: Subject, names: list[str]) -> Operation | None:
    """Where the graph from these parameters to the loss is cut, seen in one more step.

    Args:
        names: of parameters of the case's model that got no gradient.
    """
    if not subject.case.offers("loop"):
        return None
    model, seen = subject.model(), Operations()
    unreached = {id(p) for name, p in model.named_parameters() if name in names}
    with seen, suppress(CaseError):
        run_fit(
            subject,
            subject.fit,
            model,
            Plan(epochs=LITMUS_EPOCHS, train=[subject.batch("train", LITMUS_BATCH)]),
            stop_after=1,
            planned=1,
        )
    return next((cut for cut in seen.cuts if cut.behind & unreached), None)


def _not_saved(*args: object, **kwargs: object) -> None:
    """In place of torch.save while a script is watched."""


def place_of_training(subject: Subject, trace: Trace) -> str:
    """Where the first step was taken, else where the training is defined."""
    door = subject.case.fit or subject.case.step or subject.case.main or subject.case.loss
    steps = trace.step_place
    if not steps or door is None:
        return where(door)
    # A loop whose steps are taken by a helper: what is wrong may be in either.
    return steps if covers(door, steps) else f"{where(door)}, steps at {steps}"


def place_of_model(model: nn.Module, subject: Subject) -> str:
    """Where a model is built, and its class where that is another place."""
    built = where(subject.case.model) if subject.case.model is not None else ""
    kind = where(type(model))
    if not built or built == kind or ":" not in kind:
        return built or kind
    return f"{kind}, built at {built}" if ":" in built else kind


def place_of_loss(subject: Subject) -> str:
    """Where the training loss is defined, else the training."""
    case = subject.case
    return where(case.loss or case.step or case.fit or case.main)


def place_of_optimiser(subject: Subject, trace: Trace, number: int = 0) -> str:
    """Where an optimiser was built, else where it comes from, else where it steps."""
    built = trace.place_of(number)
    if built or subject.case.optimizer is None:
        return built or place_of_training(subject, trace)
    return f"{where(subject.case.optimizer)} (optimiser)"


def place_of_prediction(model: nn.Module, subject: Subject) -> str:
    """Where a prediction is made: Case.predict or what stands for it, and the model."""
    given = subject.case.predict is not None or subject.case.offers("covariance.predict")
    source = where(subject.predict) if given else place_of_loss(subject)
    return f"{source}, model at {place_of_model(model, subject)}"


def models_place(context: Context) -> str:
    """The same of the model that was trained; "" where none was seen."""
    roots = watch(context.subject).roots
    return place_of_model(roots[0], context.subject) if roots else ""


def steps_or_problem(context: Context, trace: Trace) -> bool:
    """Whether optimiser steps were seen; a check that reads them can't pass without any."""
    if trace.without_optimiser:
        context.say("not judged: weights are updated without an optimiser")
    elif not trace.steps:
        context.problem(
            "no optimiser step was seen",
            sign="no-steps",
            place=place_of_training(context.subject, trace),
            next_step="look whether the script reaches its loop and calls optimizer.step()"
            if context.subject.case.main is not None
            else "run L009: it counts steps and backward passes",
        )
    return bool(trace.steps)


def set_by_hand(context: Context, trace: Trace) -> bool:
    """Whether gradients were set without `backward`: then there is nothing to say about passes."""
    if trace.by_hand:
        context.say("not judged: gradients are set without calling backward()")
    return trace.by_hand


def named_parameters(fitted: Fitted) -> dict[str, nn.Parameter]:
    """Parameters of the trained modules by name, tied ones once."""
    found: dict[str, nn.Parameter] = {}
    for prefix, root in _prefixed(fitted.roots):
        for name, parameter in root.named_parameters():
            found[prefix + name] = parameter
    return found


def named_modules(fitted: Fitted) -> dict[str, nn.Module]:
    """The trained modules and all that they hold, by name."""
    found: dict[str, nn.Module] = {}
    for prefix, root in _prefixed(fitted.roots):
        for name, module in root.named_modules():
            found[prefix + name or type(root).__name__] = module
    return found


def _prefixed(roots: list[nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for number, root in enumerate(roots, start=1):
        yield ("" if len(roots) == 1 else f"{type(root).__name__} {number}.", root)


def frozen_by_declaration(declared: Declared | None, name: str) -> bool:
    """Whether a parameter's name fits one of the declared patterns."""
    patterns = () if declared is None else declared.frozen
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def largest_of(steps: list[Step], values: str, count: int) -> Tensor:
    """The largest of a step's values ("gradients", "moved", "weights") by parameter, float64 [P].

    -1 for parameters that no optimiser holds.
    """
    largest = torch.full((count,), -1.0, dtype=torch.float64)
    for step in steps:
        held: Tensor = getattr(step, values)
        largest[step.numbers] = torch.maximum(largest[step.numbers], held)
    return largest


def class_of(subject: Subject, roots: list[nn.Module], name: str) -> str:
    """file:line of the class that holds a parameter, as far down as it is the user's own."""
    place = place_of_model(roots[0], subject) if roots else ""
    module = roots[0] if roots else None
    for part in name.split(".")[:-1]:
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            break
        if not type(module).__module__.startswith("torch."):
            place = where(type(module))
    return f"{place} ({name})"
