"""Mixed precision: a loss in float32, nothing out of float16's range, weights with digits. B1."""

import torch
from torch import Tensor

from ris_diag.anatomy import Called
from ris_diag.case import Plan
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.graph import tensors_in
from ris_diag.measure import LITMUS_BATCH, LITMUS_EPOCHS, accumulation, listed, run_fit
from ris_diag.underflow import Lost, losing
from ris_diag.watched import (
    DISSECTED,
    dissected,
    place_of_loss,
    place_of_optimiser,
    place_of_training,
    steps_or_problem,
    watch,
)

SOURCES = ("B1", "B2")
LARGEST = 65504.0  # of float16


@check(
    "L070",
    "loss-stays-in-single",
    title="The loss is summed up in float32",
    what="Watches the losses and the sums over samples in three steps of the real loop or script, "
    "outside of the network's layers: none may give half precision, not even if it is cast to "
    "float32 behind it.",
    why="bfloat16 keeps two to three digits and float16 ends at 65504: the sum of a batch loses "
    "what single samples say, under autocast without a word.",
    sources=SOURCES,
    signs=("loss-summed-in-half",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_calls", value=0, unit="calls", why="autocast itself keeps losses in float32"
        ),
    ),
)
def loss_stays_in_single(context: Context) -> None:
    found = {(c.place, c.name): c for c in dissected(context.subject).reduced}
    context.measure(calls=[_shown(called) for called in found.values()])
    if len(found) > context.limit("max_calls"):
        places = dict.fromkeys(c.place or place_of_loss(context.subject) for c in found.values())
        context.problem(
            f"{len(found)} sums of the loss are in half precision, which keeps two to three digits "
            f"({listed([_shown(called) for called in found.values()])}; limit float32)",
            place=", ".join(places),
            next_step="cast prediction and label to float32 in front of the loss: .float()",
        )


def _shown(called: Called) -> str:
    """`mean() of [16, 1] in torch.bfloat16`."""
    (first, *_) = tensors_in(list(called.args.values()))
    return f"{called.name}() of {list(first.shape)} in {called.output.dtype}"


@check(
    "L071",
    "half-stays-in-range",
    title="Nothing in the forward pass leaves the range of float16",
    what="Watches every operation in three steps of the real loop or script: the first one with "
    "finite numbers at its input and a float16 output that isn't finite. Sums that give minus "
    "infinity alone are masks and don't count.",
    why="float16 ends at 65504. An infinity in a denominator makes a zero, which trains silently; "
    "one in the loss makes a GradScaler skip every step.",
    sources=SOURCES,
    signs=("half-overflows",),
    needs=("run",),
    thresholds=(
        Threshold(name="max_calls", value=0, unit="calls", why="what is infinite has no gradient"),
    ),
)
def half_stays_in_range(context: Context) -> None:
    found = [called for called in dissected(context.subject).broken if _overflows(called)]
    places = {called.place or place_of_loss(context.subject): called for called in reversed(found)}
    context.measure(places=list(reversed(places)))
    if len(places) > context.limit("max_calls"):
        first = found[0]
        inside = f" in {first.module}" if first.module else ""
        others = f", {len(places) - 1} more places behind it" if len(places) > 1 else ""
        context.problem(
            f"{first.name}(){inside} gives infinity in torch.float16 for input of up to "
            f"{_largest_input(first):.3g} (float16 ends at {LARGEST:g}){others}",
            place=first.place or place_of_loss(context.subject),
            next_step="compute this operation in float32 (.float() and "
            "torch.autocast(..., enabled=False) around it), make its input smaller, or take "
            "bfloat16, which ends where float32 does",
        )


def _overflows(called: Called) -> bool:
    output = called.output
    if not isinstance(output, Tensor) or output.dtype != torch.float16:
        return False
    mask = called.name in ("add", "iadd", "radd", "sub", "baddbmm", "where")
    return not mask or bool((output.isnan() | (output == torch.inf)).any())


def _largest_input(called: Called) -> float:
    sizes = [
        float(t.detach().abs().max())
        for t in tensors_in(list(called.args.values()))
        if t.is_floating_point() and t.numel()
    ]
    return max(sizes, default=0.0)


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
    if not passes:
        context.say("not judged: no backward pass has a finite gradient")
        return
    last, limit = passes[-1], context.limit("max_lost")
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


def _compared_passes(subject: Subject) -> tuple[list[Lost], list[float]]:
    """The compared passes of three steps, and the GradScaler's factor at every pass."""
    model, count = subject.model(), accumulation(subject)
    batches = [subject.batch("train", LITMUS_BATCH, offset=k) for k in range(count)]
    plan = Plan(epochs=LITMUS_EPOCHS, train=batches)
    with losing(model) as seen:
        fitted = run_fit(subject, subject.fit, model, plan, stop_after=DISSECTED, planned=DISSECTED)
    return seen, [passes.scale for passes in fitted.trace.backward]


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
