"""Several ranks: do they hold one model, step by step? B1."""

from typing import Any

from ris_diag.check import Threshold, check
from ris_diag.checks.ranks import NEEDS, replicas_or_say
from ris_diag.context import Context
from ris_diag.marks import differing
from ris_diag.measure import listed
from ris_diag.places import where
from ris_diag.replica import Replica

EQUAL = Threshold(
    name="max_difference",
    value=1e-5,
    unit="of the norm",
    why="equal devices that do the same are equal bit by bit; devices of two kinds round apart",
)


@check(
    "L061",
    "replicas-stay-equal",
    title="The ranks begin with equal weights and step with equal gradients",
    what="Compares weights and gradients of all ranks when the model is called first and at every "
    "optimiser step: gradients that differ although the wrapper is there, was called and "
    "synchronises, or one of which isn't so; weights that differ from the beginning; equal "
    "gradients behind which weights differ.",
    why="Every rank trains a model of its own on its share of the data, the losses fall, and the "
    "checkpoint is that of rank 0.",
    sources=("B1",),
    signs=(
        "not-wrapped",
        "wrapper-bypassed",
        "synchronising-off",
        "gradients-differ",
        "outside-of-wrapper",
        "replicas-start-apart",
        "replicas-step-apart",
    ),
    needs=NEEDS,
    thresholds=(EQUAL,),
)
def replicas_stay_equal(context: Context) -> None:
    replicas = replicas_or_say(context)
    if not replicas:
        return
    limit, case = context.limit("max_difference"), context.subject.case
    begun = differing((replica.start for replica in replicas), limit)
    shared = min(len(replica.steps) for replica in replicas)
    steps = [[replica.steps[k] for replica in replicas] for k in range(shared)]
    if not steps:
        context.say("not judged: no optimiser step was seen")
        return
    apart = [differing((one["gradients"] for one in step), limit) for step in steps]
    worst = {name: value for step in reversed(apart) for name, value in step.items()}
    context.measure(steps=shared, start_apart=begun, gradients_apart=worst)
    first = next((k for k, step in enumerate(apart) if step), None)
    if first is not None:
        _unsynchronised(context, replicas, steps[first], apart[first])
    if begun and first is None:
        context.problem(
            f"{len(begun)} of {len(replicas[0].start)} parameters differ between the ranks when "
            f"the model is called first: {_amounts(begun)} (limit {limit:g})",
            sign="replicas-start-apart",
            place=where(case.distributed),
            next_step="let DistributedDataParallel send out the weights: change them before the "
            "model is wrapped, or on every rank alike",
        )
        return
    if first is None:
        _stepped_apart(context, steps)


def _amounts(apart: dict[str, float]) -> str:
    """`a by 0.3, b by 0.1 of its norm`."""
    return listed([f"{name} by {value:.2g} of its norm" for name, value in apart.items()])


def _unsynchronised(
    context: Context, replicas: list[Replica], step: list[Any], apart: dict[str, float]
) -> None:
    """Gradients differ between the ranks: why."""
    subject, limit = context.subject, context.limit("max_difference")
    gradients = [g for g in step[0]["gradients"].values() if g is not None]
    text = (
        f"the gradients of {len(apart)} of {len(gradients)} parameters differ between the ranks "
        f"at a step: {_amounts(apart)} (limit {limit:g})"
    )
    sign, place = "gradients-differ", step[0]["place"]
    reason, todo = "", "look for what changes gradients between backward() and step()"
    if not any(replica.wrapped for replica in replicas):
        sign, place = "not-wrapped", where(subject.case.distributed)
        reason = "; there is no DistributedDataParallel in the model that the loop gets"
        todo = "wrap it: DistributedDataParallel(model)"
    elif any(replica.entered == 0 for replica in replicas):
        sign, reason = "wrapper-bypassed", _calls(replicas)
        todo = "call the wrapped model, not its .module: only its forward prepares the exchange"
    elif any(not one["synced"] for one in step):
        sign, reason = "synchronising-off", "; the forward pass in front of it ran under no_sync()"
        todo = "leave no_sync() before the last forward and backward pass in front of step()"
    elif len(apart) < len(gradients):
        sign, place = "outside-of-wrapper", ", ".join(apart)
        reason = "; those of the others are equal"
        todo = "register every parameter before the model is wrapped, and wrap the whole of it"
    context.problem(text + reason, sign=sign, place=place, next_step=todo)


def _calls(replicas: list[Replica]) -> str:
    return (
        f"; the wrapper was called {replicas[0].entered} times, what it wraps "
        f"{replicas[0].inside} times"
    )


def _stepped_apart(context: Context, steps: list[list[Any]]) -> None:
    limit = context.limit("max_difference")
    for number, step in enumerate(steps, 1):
        apart = differing((one["weights"] for one in step), limit)
        if apart:
            context.problem(
                f"behind step {number} {len(apart)} of {len(step[0]['weights'])} parameters differ "
                f"between the ranks although they got equal gradients: {_amounts(apart)} "
                f"(limit {limit:g})",
                sign="replicas-step-apart",
                place=step[0]["place"],
                next_step="give the optimiser the same settings and state on every rank; clip and "
                "skip by numbers that all ranks share",
            )
            return


@check(
    "L063",
    "buffers-stay-equal",
    title="Buffers are equal on all ranks whenever the model is called",
    what="Compares the buffers of all ranks, and the tensors that modules hold beside parameters "
    "and buffers, at every call of the wrapped model in training, behind what its wrapper sends "
    "out in front of it.",
    why="Running statistics of one rank's share are what validation and the checkpoint use, and "
    "every rank judges another model.",
    sources=("B1",),
    signs=("buffer-parts",),
    needs=NEEDS,
    thresholds=(EQUAL,),
)
def buffers_stay_equal(context: Context) -> None:
    replicas = replicas_or_say(context)
    if not replicas:
        return
    limit = context.limit("max_difference")
    shared = min(len(replica.buffers) for replica in replicas)
    apart: dict[str, float] = {}
    first = 0
    for number in range(shared):
        found = differing((replica.buffers[number] for replica in replicas), limit)
        first = first or (number + 1 if found else 0)
        apart = {**found, **apart}
    context.measure(calls=shared, buffers=len(replicas[0].buffers[0]) if shared else 0, apart=apart)
    if apart:
        context.problem(
            f"{len(apart)} buffers differ between the ranks from call {first} on: "
            f"{_amounts(apart)} (limit {limit:g})",
            sign="buffer-parts",
            place=", ".join(apart),
            next_step="leave broadcast_buffers=True, use SyncBatchNorm, register own tensors as "
            "buffers, or update them by numbers that were reduced over the ranks",
        )
