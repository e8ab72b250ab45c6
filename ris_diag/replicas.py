"""The author's loop as it runs on several ranks: what each rank's replica is at every step."""

import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from torch import nn

from ris_diag.case import Batch
from ris_diag.context import Subject, to_device
from ris_diag.errors import CaseError
from ris_diag.loop import as_losses
from ris_diag.measure import accumulation, captured_output, run_fit
from ris_diag.places import where
from ris_diag.plan import Plan
from ris_diag.ranks import Outcome, Ranks
from ris_diag.replica import Portion, Replica, ReplicaWatch, seeding
from ris_diag.samples import served
from ris_diag.wrapped import plain_names, wrappers

EPOCHS, STEPS = 2, 4
BATCH = 8
SLOWER = 20  # times as long as alone is the wrapped loop given
SETTLING = 1 / 3  # of the ranks' patience, on top: for what is set up once


@dataclass(frozen=True, kw_only=True)
class Launched:
    """The loop on all ranks.

    Attributes:
        outcomes: of the wrapped loop, or of what raised in front of it, by rank; empty where it
            wasn't run.
        seconds: how long a rank waits in a collective.
        batches: how many each rank is given in an epoch, by rank.
        unused: names of parameters that get no gradient although a wrapper waits for it, by rank.
    """

    outcomes: list[Outcome]
    seconds: float
    batches: list[int] = field(default_factory=list)
    unused: list[list[str]] = field(default_factory=list)

    @property
    def replicas(self) -> list[Replica]:
        """What each rank saw; empty where one of them didn't get through."""
        if not self.outcomes or _raised(self.outcomes):
            return []
        return [Replica(**outcome.value) for outcome in self.outcomes]


def ranks_of(subject: Subject) -> Ranks:
    """The ranks, for a check that needs them."""
    if subject.ranks is None:
        raise CaseError("a check asked for the ranks without declaring that it needs them")
    return subject.ranks


def wrap(subject: Subject, model: nn.Module) -> nn.Module:
    """The model as the author's script wraps it.

    Raises:
        CaseError: it is no module.
    """
    distributed = subject.case.distributed
    wrapped = None if distributed is None else distributed(model)
    if not isinstance(wrapped, nn.Module):
        raise CaseError(
            f"Case.distributed ({where(distributed)}) gave {wrapped!r:.60}: expected the wrapped "
            "model, as DistributedDataParallel(model)"
        )
    return wrapped


def own_seed(subject: Subject, key: str) -> Any:
    """Scope with random numbers of this rank's own, as in processes that nobody seeds."""
    return subject.seeded(f"{key}, rank {ranks_of(subject).rank}")


def most_batches(subject: Subject) -> int:
    """Batches of an epoch that are looked at."""
    return STEPS * accumulation(subject)


def own_batches(subject: Subject) -> list[Batch]:
    """The first batches of an epoch that this rank gets, on the device.

    Without a loader, other samples on each rank. Must be called inside of `Ranks.together`.
    """
    count = most_batches(subject)
    with own_seed(subject, "batches of a rank"), served(subject) as batches:
        if batches is not None:
            return [to_device(batch, subject.device) for batch in islice(batches, count)]
    first = 1 + count * ranks_of(subject).rank
    return [subject.batch("train", BATCH, offset=first + k) for k in range(count)]


def launched(subject: Subject) -> Launched:
    """The wrapped loop on all ranks, measured once."""
    return subject.once("launched", _launched)


def _launched(subject: Subject) -> Launched:
    ranks = ranks_of(subject)
    with ranks.together():
        given = ranks.each("the first batches", lambda: len(own_batches_once(subject)))
    if _raised(given):
        return Launched(outcomes=given, seconds=ranks.patience)
    with ranks.alone():
        alone = ranks.each("the loop of one rank", lambda: _alone(subject))
    if _raised(alone):
        return Launched(outcomes=alone, seconds=ranks.patience)
    longest = max(outcome.value["seconds"] for outcome in alone)
    seconds = SETTLING * ranks.patience + SLOWER * longest
    ranks.patience = max(ranks.patience, 2 * seconds)  # who waited tells so when it is up
    with ranks.together(seconds):
        wrapped = ranks.each("the wrapper", lambda: _waits_for(subject))
    if _raised(wrapped):
        return Launched(outcomes=wrapped, seconds=seconds)
    waits = {name for outcome in wrapped for name in outcome.value}
    found = Launched(
        batches=[outcome.value for outcome in given],
        unused=[[n for n in outcome.value["unused"] if n in waits] for outcome in alone],
        outcomes=[],
        seconds=seconds,
    )
    if any(found.unused):
        return found
    with ranks.together(seconds):
        outcomes = ranks.each("the wrapped loop", lambda: vars(_watched(subject)))
    return replace(found, outcomes=outcomes)


def _raised(outcomes: list[Outcome]) -> bool:
    return any(outcome.raised for outcome in outcomes)


class RanksRaisedError(Exception):
    """The case's code raised on some rank; told on all."""


def refuse_what_raised(outcomes: Iterable[Outcome]) -> None:
    """Raise on every rank what was raised on any.

    Raises:
        RanksRaisedError: with rank, error and place of each.
    """
    told = [
        f"rank {rank}: {outcome.raised}{f' at {outcome.place}' * bool(outcome.place)}"
        for rank, outcome in enumerate(outcomes)
        if outcome.raised
    ]
    if told:
        raise RanksRaisedError("; ".join(told))


def own_batches_once(subject: Subject) -> list[Batch]:
    """`own_batches`, asked for once."""
    return subject.once("own batches", own_batches)


def _alone(subject: Subject) -> dict[str, Any]:
    """The loop without wrapper and other ranks: its seconds, and which parameters it leaves out."""
    batches = own_batches_once(subject)
    begun: list[float] = []

    def note(number: int, batch: Batch) -> None:
        begun.extend([time.perf_counter()] if number == 0 else [])

    with own_seed(subject, "wrapped loop"):
        model = subject.model()
        train = Portion(batches, len(batches), subject.device, note)
        plan = Plan(epochs=EPOCHS, train=train)
        trace = run_fit(subject, subject.fit, model, plan, planned=0).trace
    # The first epoch loads and compiles what is used for the first time.
    seconds = EPOCHS * (time.perf_counter() - begun[-1]) if begun else 0.0
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    unused: set[str] = set()
    first = 0
    for step in trace.steps:
        passes = trace.backward[first : step.backward]
        reached = {id(trace.parameters[n]) for each in passes for n in each.reached}
        unused |= {name for key, name in names.items() if passes and key not in reached}
        first = step.backward
    order = list(names.values())
    return {"seconds": seconds, "unused": sorted(unused, key=order.index)}


def _waits_for(subject: Subject) -> list[str]:
    """Parameters for whose gradient a wrapper waits, as it isn't told that some get none."""
    with own_seed(subject, "wrapped loop"):
        wrapped = wrap(subject, subject.model())
    strict = [w for w in wrappers(wrapped) if not (w.find_unused_parameters or w.static_graph)]
    held = {id(p) for wrapper in strict for p in wrapper.parameters()}
    names = [name for name, p in plain_names(wrapped).items() if id(p) in held]
    del wrapped, strict
    let_go(subject)
    return names


def let_go(subject: Subject) -> None:
    """End the wrappers that are gone: their hooks on the parameters live as long as they do."""

    def lends(subject: Subject) -> bool:
        one, other = (set(subject.model().parameters()) for _ in range(2))
        return bool(one & other)

    if subject.once("parameters are lent", lends):
        gc.collect()


def _watched(subject: Subject) -> Replica:
    """The author's loop with the wrapped model, watched on this rank."""
    seen = Replica()
    loader = subject.case.loader
    own = own_batches_once(subject)
    with own_seed(subject, "wrapped loop"), seeding(seen):
        batches = own if loader is None else loader("train", subject.seed)
        wrapped = wrap(subject, subject.model())
        watch = ReplicaWatch(seen, wrapped)
        plan = Plan(
            epochs=EPOCHS,
            train=Portion(batches, most_batches(subject), subject.device, watch.serving),
            on_step=lambda epoch, losses: _shown(subject, losses),
        )
        with captured_output(), watch.watching():
            subject.fit(wrapped, plan)
    del wrapped, watch
    let_go(subject)
    return seen


def _shown(subject: Subject, losses: Any) -> None:
    as_losses(losses, f"plan.on_step in {where(subject.fit)}")
