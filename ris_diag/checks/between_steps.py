"""What happens to weights, rates and loss from step to step. B1."""

from itertools import pairwise
from statistics import fmean

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import FIT_EPOCHS, listed
from ris_diag.watched import place_of_training, steps_or_problem, watch


@check(
    "L037",
    "weights-stay-as-stepped",
    title="Nothing puts the weights back",
    what="Compares the weights in front of every step with those behind the step before: where "
    "something changed them in between, how much of the way since the last step, or since the "
    "first, is taken back.",
    why="load_state_dict of an old state in the loop undoes what was learnt; every single step is "
    "right.",
    sources=("B1",),
    signs=("weights-put-back",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_undone",
            value=0.6,
            unit="share of the way, in more than one step",
            why="a slow copy that takes the half-way point is a method; constraints and clipping "
            "of weights go elsewhere",
        ),
    ),
)
def weights_stay_as_stepped(context: Context) -> None:
    trace = watch(context.subject).trace
    limit = context.limit("max_undone")
    undone = {number: s.undone for number, s in enumerate(trace.steps, 1) if s.undone > limit}
    context.measure(undone=undone)
    if len(undone) > 1:
        first = next(iter(undone))
        context.problem(
            f"in front of {len(undone)} of {len(trace.steps)} steps the weights were put back: "
            f"{undone[first]:.0%} of the way was gone in front of step {first} (limit {limit:.0%})",
            sign="weights-put-back",
            place=place_of_training(context.subject, trace),
            next_step="look for load_state_dict(), copies of the best or of averaged weights "
            "inside the loop",
        )


@check(
    "L038",
    "schedule-lasts",
    title="The learning rate lasts for the training",
    what="Reads the learning rates of every group over the watched steps: one that has fallen to "
    "a hundredth of its peak by the middle, or falls to a twentieth and climbs again, was made "
    "for fewer steps.",
    why="A schedule made for epochs and stepped by batch is over in the first epoch.",
    sources=("B1",),
    signs=("rate-collapses",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="min_share",
            value=0.05,
            unit="of the peak, at half of the watched steps",
            why="a decay to the end of a run this short is at half its way",
        ),
        Threshold(
            name="min_valley",
            value=0.05,
            unit="of the peak, before the rate climbs to half of it again",
            why="cosine schedules turn back when their period is over",
        ),
    ),
)
def schedule_lasts(context: Context) -> None:
    subject, trace = context.subject, watch(context.subject).trace
    if not steps_or_problem(context, trace):
        return
    if subject.case.declared is not None and subject.case.declared.learning_rate is not None:
        context.say("not judged: the rate is declared, see L017")
        return
    gone: dict[str, str] = {}
    for number in range(len(trace.optimizers)):
        steps = trace.steps_of(number)
        for k in range(len(steps[0].rates)):
            rates = [step.rates[k] for step in steps if k < len(step.rates)]
            text = _collapse(context, rates)
            if text:
                gone[f"optimiser {number} group {k}"] = text
    context.measure(collapsed=gone)
    if gone:
        shown = listed([f"{name}: {text}" for name, text in gone.items()])
        context.problem(
            f"the learning rate is over too early ({shown})",
            place=trace.schedule_place or place_of_training(subject, trace),
            next_step="call scheduler.step() once an epoch, or give the schedule the number of "
            "batches times epochs",
        )


def _collapse(context: Context, rates: list[float]) -> str:
    if len(rates) < 6 or not max(rates) > 0:
        return ""
    peak = max(range(len(rates)), key=rates.__getitem__)
    middle = len(rates) // 2
    if peak < middle and rates[middle] < context.limit("min_share") * rates[peak]:
        return (
            f"{rates[middle]:.2g} in step {middle + 1}, {rates[peak]:.2g} in step {peak + 1} "
            f"(limit {context.limit('min_share'):.0%})"
        )
    for k in range(1, len(rates) - 1):
        before, low, behind = max(rates[:k]), rates[k], max(rates[k + 1 :])
        if low < context.limit("min_valley") * before and behind >= 0.5 * before:
            return (
                f"falls to {low:.2g} in step {k + 1} and climbs again to {behind:.2g} (limit "
                f"{context.limit('min_valley'):.0%} of {before:.2g})"
            )
    return ""


@check(
    "L039",
    "loss-begins-anew",
    title="The loss of a step doesn't hold those of earlier steps",
    what="Looks for operations of an earlier batch in the graph of the loss at every backward pass "
    "of the watched steps.",
    why="A running sum on which backward() is called, or a state that is carried on without "
    "detach(), trains on old batches again and again, more slowly each time.",
    sources=("B1",),
    signs=("loss-carried-over",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_passes", value=1, unit="backward passes", why="two networks may share one"
        ),
    ),
)
def loss_begins_anew(context: Context) -> None:
    trace = watch(context.subject).trace
    carried = [number for number, passes in enumerate(trace.backward, 1) if passes.carried]
    context.measure(carried=carried)
    if len(carried) > context.limit("max_passes"):
        context.problem(
            f"the graph of the loss holds operations of earlier batches in {len(carried)} of "
            f"{len(trace.backward)} backward passes, the first is pass {carried[0]}",
            sign="loss-carried-over",
            place=trace.backward[carried[0] - 1].place or place_of_training(context.subject, trace),
            next_step="call backward() on this batch's loss alone, and detach() what is carried "
            "from step to step; add up loss.item()",
        )


@check(
    "L044",
    "watched-loss-falls",
    title="The loss does not climb from epoch to epoch",
    what="Compares the mean loss of the four watched epochs, where every batch has one backward "
    "pass, as it has where nothing plays against it: it must not rise in each of them by more than "
    "half in all.",
    why="A loop that hands out no loss of its own can be judged by what it shows alone.",
    sources=("S13", "B1"),
    signs=("watched-loss-climbs",),
    needs=("model", "batch", "loop"),
    thresholds=(
        Threshold(
            name="max_rise",
            value=0.5,
            unit="share of the first epoch's mean loss",
            why="noise and a warm-up raise it a little, not epoch by epoch",
        ),
    ),
)
def watched_loss_falls(context: Context) -> None:
    trace = watch(context.subject).trace
    batches = trace.batches
    losses = [b.value for b in trace.backward if b.phase != "validation" and not b.inside_step]
    if not batches or len(losses) != batches or batches % FIT_EPOCHS:
        context.say("not judged: not one backward pass a batch")
        return
    count = batches // FIT_EPOCHS
    means = [
        fmean(float(value) for value in losses[k * count : (k + 1) * count])
        for k in range(FIT_EPOCHS)
    ]
    context.measure(means=means)
    rise = (means[-1] - means[0]) / means[0] if means[0] > 0 else 0.0
    climbs = all(later > earlier for earlier, later in pairwise(means))
    if climbs and rise > context.limit("max_rise"):
        context.problem(
            f"the mean loss climbs from epoch to epoch: {', '.join(f'{m:.4g}' for m in means)} "
            f"({rise:+.0%}, limit {context.limit('max_rise'):+.0%})",
            place=place_of_training(context.subject, trace),
            next_step="look at the sign of the update and of the loss, then at the learning rate",
        )
