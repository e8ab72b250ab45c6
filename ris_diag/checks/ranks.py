"""Several ranks: do they go in step, stay replicas, and draw numbers of their own? B1."""

import math
from collections.abc import Iterable
from typing import Any

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.places import where
from ris_diag.replica import Replica
from ris_diag.replicas import Launched, launched
from ris_diag.watched import class_of

NEEDS = ("distributed", "ranks", "model", "batch", "loop")
EQUAL = Threshold(
    name="max_difference",
    value=1e-5,
    unit="of the norm",
    why="equal devices that do the same are equal bit by bit; devices of two kinds round apart",
)
UNUSED_RAISED = "finished reduction in the prior iteration"


@check(
    "L060",
    "ranks-go-in-step",
    title="Every rank gets through the wrapped loop",
    what="Runs the loop on every rank with the model as Case.distributed wraps it, on the batches "
    "that the rank gets: no rank may raise, or wait in a collective to which the others don't "
    "come. In front of that the loop runs on each rank alone: a parameter without gradient, on "
    "one rank or on all, lets a DistributedDataParallel wait or raise that wasn't told of it.",
    why="A rank that waits waits for half an hour, and then says nothing about the other ranks.",
    sources=("B1",),
    signs=("rank-waits", "uneven-batches", "unused-parameter", "rank-raises"),
    needs=NEEDS,
    thresholds=(
        Threshold(name="max_offenders", value=0, unit="parameters", why="one stops all ranks"),
    ),
)
def ranks_go_in_step(context: Context) -> None:
    seen = launched(context.subject)
    context.measure(batches=seen.batches, unused=seen.unused, seconds=seen.seconds)
    names = list(dict.fromkeys(name for each in seen.unused for name in each))
    told = [outcome.raised for outcome in seen.outcomes]
    if (len(names) > context.limit("max_offenders") and not seen.allowed) or any(
        UNUSED_RAISED in text for text in told
    ):
        _unused(context, seen, names)
        return
    waiting = {rank: outcome for rank, outcome in enumerate(seen.outcomes) if outcome.waited}
    raised = {r: o for r, o in enumerate(seen.outcomes) if o.raised and r not in waiting}
    stands = "; ".join(
        f"rank {rank} waited {seen.seconds:.0f} s in {outcome.waited}"
        for rank, outcome in waiting.items()
    )
    if waiting and not raised:
        _waited(context, seen, stands, next(iter(waiting.values())).place)
    for rank, outcome in raised.items():
        context.problem(
            f"rank {rank}: {outcome.raised}" + (f"; {stands}" if stands else ""),
            sign="rank-raises",
            place=outcome.place,
            next_step="mend what the message names; the other ranks wait for this one",
        )


def _unused(context: Context, seen: Launched, names: list[str]) -> None:
    subject = context.subject
    wrapper = where(subject.case.distributed)
    on = "; ".join(f"rank {r}: {listed(each)}" for r, each in enumerate(seen.unused) if each)
    raised = next((outcome for outcome in seen.outcomes if outcome.raised), None)
    context.problem(
        f"{len(names)} parameters get no gradient in some step, and DistributedDataParallel waits "
        f"for each ({on}; limit {context.limit('max_offenders'):g})"
        if raised is None
        else f"DistributedDataParallel waits for parameters that get no gradient: {raised.raised}",
        sign="unused-parameter",
        place=f"{class_of(subject, [subject.model()], names[0])}, wrapped by {wrapper}"
        if names
        else wrapper,
        next_step="take them out of the model, freeze them before it is wrapped, or wrap it with "
        "find_unused_parameters=True",
    )


def _waited(context: Context, seen: Launched, stands: str, place: str) -> None:
    """Some ranks waited until their time was up; the others had finished."""
    done = [str(rank) for rank, outcome in enumerate(seen.outcomes) if not outcome.raised]
    uneven = len(set(seen.batches)) > 1
    counts = ", ".join(map(str, seen.batches))
    context.problem(
        stands
        + (f"; rank {', '.join(done)} had finished its loop" if done else "")
        + (f"; the ranks get {counts} batches in an epoch" if uneven else ""),
        sign="uneven-batches" if uneven else "rank-waits",
        place=place,
        next_step="give every rank as many batches (drop_last, DistributedSampler), or go through "
        "them inside of torch.distributed.algorithms.Join"
        if uneven
        else "let every rank come to the same collectives in the same order: look for a condition "
        "on the rank, or on its data, around one",
    )


def replicas_or_say(context: Context) -> list[Replica]:
    """What each rank saw; empty, and said so, where they didn't get through."""
    replicas = launched(context.subject).replicas
    if not replicas:
        context.say("not judged: the ranks did not get through the loop, see L060")
    return replicas


def differing(marks: Iterable[dict[str, Any]], limit: float) -> dict[str, float]:
    """Name to the largest difference between ranks, of the norm, where it is above the limit.

    Args:
        marks: by rank, name to mark; a name that some rank lacks, or None, differs infinitely.
    """
    ranks = list(marks)
    names = dict.fromkeys(name for each in ranks for name in each)
    found = {name: _difference([each.get(name) for each in ranks]) for name in names}
    return {name: value for name, value in found.items() if value > limit}


def _difference(marks: list[Any]) -> float:
    if all(mark is None for mark in marks):
        return 0.0
    if any(mark is None for mark in marks):
        return math.inf
    if any(isinstance(number, str) for mark in marks for number in mark):  # NaN, infinities
        return 0.0 if all(mark == marks[0] for mark in marks) else math.inf
    scale = max(mark[0] for mark in marks)
    spread = max(max(mark[k] for mark in marks) - min(mark[k] for mark in marks) for k in range(2))
    return spread / scale if scale else 0.0


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


@check(
    "L065",
    "ranks-draw-apart",
    title="Every rank draws random numbers of its own",
    what="Starts the random numbers of every rank from a seed of its own, and compares their "
    "states whenever a step of the loop, or a batch behind the first, draws from them: equal "
    "states give equal dropout and equal augmentation on all ranks.",
    why="One seed for all is set for equal initial weights, and halves the randomness that the "
    "training was to have.",
    sources=("B1",),
    signs=("ranks-draw-the-same",),
    needs=NEEDS,
    thresholds=(
        Threshold(name="max_equal", value=0, unit="draws", why="seeds of their own never meet"),
    ),
)
def ranks_draw_apart(context: Context) -> None:
    replicas = replicas_or_say(context)
    if not replicas:
        return
    draws = min(len(replica.drawn) for replica in replicas)
    equal: dict[str, int] = {}
    for number in range(draws):
        states = [replica.drawn[number] for replica in replicas]
        for kind in set.intersection(*map(set, states)):
            equal[kind] = equal.get(kind, 0) + (len({each[kind] for each in states}) == 1)
    equal = {kind: count for kind, count in equal.items() if count}
    context.measure(draws=draws, equal=equal)
    if not draws:
        context.say("not judged: neither loop nor loader draws random numbers")
    elif max(equal.values(), default=0) > context.limit("max_equal"):
        shown = ", ".join(f"{count} times from {kind}" for kind, count in equal.items())
        context.problem(
            f"in {draws} draws the ranks drew equal numbers {shown} (limit "
            f"{context.limit('max_equal'):g})",
            sign="ranks-draw-the-same",
            place=next(
                (replicas[0].seeded[kind] for kind in equal if replicas[0].seeded.get(kind)),
                where(context.subject.case.distributed),
            ),
            next_step="seed with the rank added, behind what must be equal: "
            "torch.manual_seed(seed + rank)",
        )
