"""What each rank gets of the data: a share of its own, in another order every epoch. B1, B4."""

from collections import Counter
from itertools import islice
from typing import Any

from ris_diag.check import Threshold, check
from ris_diag.checks.ranks import NEEDS, replicas_or_say
from ris_diag.context import Context, Subject
from ris_diag.graph import tensors_in
from ris_diag.marks import digests
from ris_diag.places import where
from ris_diag.replicas import own_seed, ranks_of, refuse_what_raised
from ris_diag.samples import place_of_loader, served

MOST_BATCHES, MOST_ROWS, MOST_NUMBERS = 2**10, 2**14, 2**22
FEWEST_ROWS = 8
MORE = 4  # times the twins that one rank has by itself may be twins by chance


@check(
    "L062",
    "ranks-divide-the-data",
    title="Every rank gets samples of its own, in another order every epoch",
    what="Goes through an epoch of Case.loader on every rank, or its first part, and compares the "
    "samples: the same on all ranks, all of them on each, or many on two. Where the loop is the "
    "author's and the sampler shuffles by epochs, two epochs of it must come in two orders.",
    why="Two ranks that see the same samples compute one gradient twice; a sampler that isn't told "
    "the epoch deals the same batches for ever.",
    sources=("B1", "B4"),
    signs=("ranks-get-same-data", "rank-serves-everything", "ranks-overlap", "order-never-changes"),
    needs=NEEDS,
    thresholds=(
        Threshold(
            name="max_shared",
            value=0.05,
            unit="of a rank's samples",
            why="a sampler repeats at most one sample a rank, to deal equal shares",
        ),
    ),
)
def ranks_divide_the_data(context: Context) -> None:
    subject = context.subject
    ranks = ranks_of(subject)
    with ranks.together():
        outcomes = ranks.each("an epoch of the loader", lambda: _epoch(subject))
    refuse_what_raised(outcomes)
    epochs = [outcome.value for outcome in outcomes]
    fewest = min(len(epoch["rows"]) for epoch in epochs)
    if fewest < FEWEST_ROWS:
        context.say(f"not judged: {fewest} samples of a loader on a rank")
        return
    _divided(context, epochs)
    _reordered(context, epochs)


def _epoch(subject: Subject) -> dict[str, Any]:
    """What this rank gets: digests of samples, whether that is all, whether the order changes."""
    rows: list[int] = []
    numbers = 0
    whole = True
    with own_seed(subject, "an epoch of the loader"), served(subject) as batches:
        for batch in islice(batches or (), MOST_BATCHES + 1):
            if len(rows) >= MOST_ROWS or numbers >= MOST_NUMBERS:
                whole = False
                break
            rows += digests(batch)
            numbers += sum(tensor.numel() for tensor in tensors_in(batch))
    samplers = [getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)]
    samplers.append(getattr(samplers[1], "sampler", None))
    shuffles = any(hasattr(s, "set_epoch") and getattr(s, "shuffle", True) for s in samplers)
    return {"rows": rows, "whole": whole, "shuffles": shuffles}


def _divided(context: Context, epochs: list[dict[str, Any]]) -> None:
    """Samples that two ranks get."""
    rows = [epoch["rows"] for epoch in epochs]
    sets = [set(each) for each in rows]
    shared = max(len(a & b) for k, a in enumerate(sets) for b in sets[k + 1 :])
    smallest = min(map(len, sets))
    twins = max(sum(n > 1 for n in Counter(each).values()) / len(each) for each in rows)
    repeated = len(epochs) - 1  # by a sampler, so that all shares are equal
    share = max(0, shared - repeated) / smallest
    context.measure(samples=[len(each) for each in rows], shared=shared, twins=twins)
    limit = context.limit("max_shared")
    if share <= limit + MORE * twins:
        return
    same = all(each == rows[0] for each in rows)
    everything = all(epoch["whole"] for epoch in epochs) and all(s == sets[0] for s in sets)
    if same:
        sign, text = "ranks-get-same-data", "the ranks get the same samples in the same order"
    elif everything:
        sign, text = "rank-serves-everything", "each rank goes through all samples in an order"
    else:
        sign, text = "ranks-overlap", "ranks get samples of each other"
    context.problem(
        f"{text}: {shared} of {smallest} samples ({shared / smallest:.0%}, limit {limit:.0%})",
        sign=sign,
        place=place_of_loader(context.subject),
        next_step="give the sampler the same seed and shuffle on every rank: it deals by rank "
        "what it has shuffled for all"
        if sign == "ranks-overlap"
        else "sampler=DistributedSampler(dataset) in the loader, in place of shuffle=True",
    )


def _reordered(context: Context, epochs: list[dict[str, Any]]) -> None:
    """Two epochs of the author's loop come in two orders."""
    fit = context.subject.case.fit
    if fit is None or not all(epoch["shuffles"] for epoch in epochs):
        context.say("order of epochs not judged: no loop of one's own, or no sampler that shuffles")
        return
    replicas = replicas_or_say(context)
    seen = [replica.epochs[:2] for replica in replicas]
    if not seen or any(len(two) < 2 or not any(two[0]) for two in seen):
        return
    if all(first == second for first, second in seen):
        count = sum(map(len, seen[0][0]))
        context.problem(
            f"the first {count} samples come in the same order in two epochs, on every rank; "
            "the sampler shuffles by the number of the epoch",
            sign="order-never-changes",
            place=where(fit),
            next_step="call sampler.set_epoch(epoch) in front of every epoch",
        )
