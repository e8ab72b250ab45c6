"""Several ranks: does each of them get through the loop? B1."""

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.places import where
from ris_diag.replica import Replica
from ris_diag.replicas import Launched, launched
from ris_diag.watched import class_of

NEEDS = ("distributed", "ranks", "model", "batch", "loop")
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
    if len(names) > context.limit("max_offenders") or any(UNUSED_RAISED in t for t in told):
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
