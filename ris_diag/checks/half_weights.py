"""What float16 leaves of gradients and weights: scale, eps, master weights. B1."""

import torch

from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.measure import LITMUS_BATCH, LITMUS_EPOCHS, accumulation, listed, run_fit
from ris_diag.plan import Plan
from ris_diag.underflow import Passes, losing
from ris_diag.watched import (
    DISSECTED,
    dissected,
    place_of_loss,
    place_of_optimiser,
    place_of_training,
    steps_or_problem,
    watch,
)

SOURCES = ("B1",)


@check(
    "L072",
    "gradient-survives-half",
    title="The gradient is large enough for float16",
    what="Where something is computed in float16: takes the backward passes of three steps once "
    "more with a loss up to a million times as large, and divides the gradient by the factor "
    "again. With the scale in use it must be the same.",
    why="What is below 6e-8 is zero in float16. Without a GradScaler, or with a scale that stays "
    "too small, layers far from the loss get part of their gradient or none.",
    sources=SOURCES,
    signs=("gradient-underflows",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_lost",
            value=0.1,
            unit="share of a parameter's gradient",
            why="float16 rounds at 5e-4; at a good scale a thousandth is lost",
        ),
    ),
)
def gradient_survives_half(context: Context) -> None:
    subject = context.subject
    if torch.float16 not in dissected(subject).halves:
        context.say("not judged: nothing is computed in float16")
        return
    if not subject.case.offers("loop"):
        context.say("not judged: a script can't be run with another loss")
        return
    passes, scales = subject.once("underflow", _compared_passes)
    if passes.refused:
        context.say(f"not judged: the gradient can't be taken twice ({passes.refused})")
        return
    if not passes.seen:
        context.say("not judged: no backward pass has a finite gradient")
        return
    last, limit = passes.seen[-1], context.limit("max_lost")
    scale = scales[last.number]
    lost = {name: share for name, share in last.shares.items() if share > limit}
    context.measure(lost=lost, scale=scale)
    if lost:
        shown = listed([f"{name}: by {share:.0%}" for name, share in lost.items()])
        context.problem(
            f"float16 changes the gradient of {len(lost)} of {len(last.shares)} parameters with "
            f"{'no scale' if scale == 1 else f'a scale of {scale:g}'} of the loss ({shown}; limit "
            f"{limit:.0%})",
            place=last.place or place_of_loss(subject),
            next_step="scale the loss: torch.amp.GradScaler as it is by default, "
            "scaler.scale(loss).backward(), scaler.step(optimizer), scaler.update(); or take "
            "bfloat16",
        )


def _compared_passes(subject: Subject) -> tuple[Passes, list[float]]:
    """The compared passes of three steps, and the GradScaler's factor at every pass."""
    model, count = subject.model(), accumulation(subject)
    batches = [subject.batch("train", LITMUS_BATCH, offset=k) for k in range(count)]
    plan = Plan(epochs=LITMUS_EPOCHS, train=batches)
    with losing(model) as compared:
        fitted = run_fit(subject, subject.fit, model, plan, stop_after=DISSECTED, planned=DISSECTED)
    return compared, [passes.scale for passes in fitted.trace.backward]


@check(
    "L073",
    "weights-keep-their-digits",
    title="Weights and moments keep the digits that steps need",
    what="Looks at the constant `eps` of every optimiser in the precision of its weights, and "
    "whether float32 weights were rounded to half precision between two steps.",
    why="1e-8 is zero in float16: where the second moment vanishes the step is divided by zero. "
    "Master weights that are rounded before every step lose what the step before changed.",
    sources=SOURCES,
    signs=("epsilon-vanishes", "master-weights-rounded"),
    needs=("run",),
    thresholds=(
        Threshold(name="max_steps", value=1, unit="steps", why="weights may be loaded once"),
    ),
)
def weights_keep_their_digits(context: Context) -> None:
    subject, trace = context.subject, watch(context.subject).trace
    if not steps_or_problem(context, trace):
        return
    for number, optimizer in enumerate(trace.optimizers):
        gone = {
            (group["eps"], p.dtype)
            for group in optimizer.param_groups
            for p in group["params"]
            if group.get("eps") and not torch.tensor(group["eps"]).to(p.dtype)
        }
        for eps, dtype in gone:
            context.problem(
                f"eps={eps:g} is 0 in {dtype}, in which {type(optimizer).__name__} keeps weights "
                f"and moments (limit {_smallest(dtype):.1g})",
                sign="epsilon-vanishes",
                place=place_of_optimiser(subject, trace, number),
                next_step="keep the weights in float32 and use autocast for the computation "
                "alone, or give an eps that the weights' dtype holds, eps=1e-4",
            )
    rounded = [(n, step.halved) for n, step in enumerate(trace.steps, 1) if step.halved]
    context.measure(rounded=[number for number, _ in rounded])
    if len(rounded) > context.limit("max_steps"):
        context.problem(
            f"in front of {len(rounded)} of {len(trace.steps)} steps, the first is step "
            f"{rounded[0][0]}, the weights were rounded to {rounded[0][1]}: smaller changes of "
            f"the step before are gone (limit {context.limit('max_steps'):g})",
            sign="master-weights-rounded",
            place=place_of_training(subject, trace),
            next_step="leave the weights of the optimiser in float32: use autocast, or compute "
            "with a copy in half precision; look for .half(), .bfloat16(), .to(dtype) in the loop",
        )


def _smallest(dtype: torch.dtype) -> float:
    """The smallest number above zero, a subnormal one."""
    return torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
