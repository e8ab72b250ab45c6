"""Several ranks: do they draw random numbers of their own? B1."""

from ris_diag.check import Threshold, check
from ris_diag.checks.ranks import NEEDS, replicas_or_say
from ris_diag.context import Context
from ris_diag.places import where


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
