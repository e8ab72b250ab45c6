"""Memorising one batch: whether the wiring works and the capacity is there. S7."""

import math

from torch import nn

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.covariance import OF_LOSS
from ris_diag.measure import accumulation, mean_nmse, run_fit
from ris_diag.places import where
from ris_diag.plain import compared, plain_error
from ris_diag.plan import Losses, Plan, Progress

MEMORISE_SAMPLES = 16
STANDS_STILL = 0.98  # of what lies above a floor below 0
MEMORISE_EPOCHS = 200
SHOWN = 50  # losses that a report draws


@check(
    "O001",
    "memorises",
    title="The network memorises one fixed batch down to the predicted floor",
    what="Trains 200 epochs on one fixed batch of 16 samples and compares the loss with "
    "that of the first weights and with its floor (Declared.floor, 0 if not declared). For "
    "covariances beta is held at 0, so that nothing stands beside the prediction, the floor is the "
    "loss with the truth in place of the prediction, and NMSE(R_pred) is what must come down. "
    "Keeps some `losses` and their `loss_steps`.",
    why="Whether the wiring works and the capacity is there is another question than whether it "
    "generalises; a loss that can't reach its floor here never will.",
    sources=("S7", "B6"),
    signs=(
        "moves-away",
        "starts-below-floor",
        "truth-loss-not-zero",
        "memorises-partly",
        "memorises-nothing",
    ),
    needs=("model", "batch", "loss", "loop"),
    thresholds=(
        Threshold(
            name="max_nmse",
            value=0.02,
            unit="mean NMSE(R_pred) above the floor",
            why="a tenth of NMSE(R_samp); a network that only shrinks the sample covariance stays "
            "above 0.1",
        ),
        Threshold(
            name="max_left",
            value=0.1,
            unit="share of the first loss above the floor, where there are no covariances",
            why="16 samples are few: a network that can express them is far below after 200 epochs",
        ),
        Threshold(
            name="max_rise",
            value=0.1,
            unit="of the error of the prediction, while the loss falls",
            why="what is memorised is nearer to the truth than it was, by any measure",
        ),
    ),
)
def memorises(context: Context) -> None:
    if all(map(context.subject.case.offers, ("declared", "distance", *OF_LOSS))):
        _memorises_covariances(context)
    else:
        _memorises_anything(context)


def _memorise(context: Context, model: nn.Module, batch: Batch, beta: float | None) -> float:
    """Train on one batch; the last loss seen, NaN without any. Some of them are kept."""
    subject = context.subject
    with subject.progress("memorising", MEMORISE_EPOCHS) as advance:

        def on_step(epoch: int, losses: Losses) -> None:
            advance(f"loss {float(losses.total.detach()):.4f}")

        served = [batch] * accumulation(subject)
        plan = Plan(epochs=MEMORISE_EPOCHS, train=served, on_step=on_step, beta=beta)
        fitted = run_fit(subject, subject.fit, model, plan, planned=MEMORISE_EPOCHS)
    losses = fitted.trace.losses
    last = len(losses) - 1
    kept = sorted({round(k * last / SHOWN) for k in range(SHOWN + 1)}) if losses else []
    context.measure(losses=[losses[k] for k in kept], loss_steps=[k + 1 for k in kept])
    return losses[-1] if losses else math.nan


def _memorises_anything(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_left")
    model, batch = subject.model(), subject.batch("train", MEMORISE_SAMPLES)
    declared = subject.case.declared
    floor = 0.0 if declared is None else declared.floor
    before = _loss_of(subject, model, batch)
    plain_before = plain_error(subject, model, batch)
    _memorise(context, model, batch, None)
    after = _loss_of(subject, model, batch)
    plain = compared(plain_before, plain_error(subject, model, batch))
    if plain is not None and after < before and plain.rise > context.limit("max_rise"):
        context.problem(
            f"the loss fell from {before:.4f} to {after:.4f}, and the error of the prediction, by "
            f"a measure of its own, rose by {plain.rise:.0%} (limit "
            f"{context.limit('max_rise'):.0%})",
            sign="moves-away",
            place=where(subject.case.loss),
            next_step="look for a sign: a minus in front of the loss or of a term, a similarity "
            "without 1 -, a likelihood without its minus",
        )
    if before <= floor:
        context.problem(
            f"the loss of the first weights is {before:.4f}, not above its floor {floor:g}",
            sign="starts-below-floor",
            place=where(subject.case.loss),
            next_step="look for a minus in front of the loss; if it may be negative, declare that "
            "of a perfect prediction: Declared(floor=...)",
        )
        return
    left = (after - floor) / (before - floor)
    context.measure(loss_first=before, loss_last=after, floor=floor, left=left)
    context.say(
        f"Memorising {MEMORISE_SAMPLES} samples: loss {before:.4f} -> {after:.4f}, floor "
        f"{floor:.4f}, {left:.1%} left"
    )
    of_what = f"what lies above the floor {floor:g}"
    if floor < 0 and limit < left < STANDS_STILL:
        # On a logarithm the last percent of the error is as long a way as the first.
        if plain is None or plain.classes or not plain.before > 0:
            context.say("not judged: how much is left, of a loss that goes below 0")
            return
        left, of_what = plain.behind / plain.before, "the squared error"
        context.measure(left=left)
        context.say(f"The loss goes below 0; of the squared error {left:.1%} is left")
    learns = left < 0.8
    if not left <= limit:
        context.problem(
            f"the loss on {MEMORISE_SAMPLES} fixed samples went from {before:.4f} to {after:.4f} "
            f"in {MEMORISE_EPOCHS} epochs: {left:.1%} of {of_what} is "
            f"left, limit {limit:.0%}: "
            + ("it learns, but not all of it" if learns else "it does not learn"),
            sign="memorises-partly" if learns else "memorises-nothing",
            place=where(subject.case.model if learns else subject.fit),
            next_step="declare the loss of a perfect prediction if it isn't 0, as with smoothed "
            "labels or a penalty: Declared(floor=...); else look at the learning rate, the "
            "capacity, noise in the labels, and an activation that can't reach them"
            if learns
            else "run the litmus family first: it names what keeps the weights from moving; where "
            "it is green, look at what the loss compares: shapes that broadcast, labels of other "
            "samples, an activation that can't reach them",
        )


def _loss_of(subject: Subject, model: nn.Module, batch: Batch) -> float:
    model.eval()
    progress = Progress(epoch=MEMORISE_EPOCHS, epochs=MEMORISE_EPOCHS)
    value = float(subject.loss(model, batch, progress).total.detach())
    model.train()
    return value


def _memorises_covariances(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_nmse")
    covariance = subject.covariance
    model, batch = subject.model(), subject.batch("train", MEMORISE_SAMPLES)
    truth, sample = covariance.truth(batch), covariance.sample(batch)
    criterion = covariance.criterion(subject.declared.weights).eval()
    floor = float(covariance.loss(criterion, truth, sample, truth, 0.0).total)
    before = mean_nmse(subject, model, [batch])
    reached = _memorise(context, model, batch, 0.0)
    after = mean_nmse(subject, model, [batch])
    context.measure(
        nmse_first=before,
        nmse_last=after,
        loss_last=reached,
        loss_floor=floor,
        scenes=MEMORISE_SAMPLES,
    )
    context.say(
        f"Memorising {MEMORISE_SAMPLES} scenes, beta 0: NMSE(R_pred) {before:.4f} -> {after:.4f}, "
        f"loss {reached:.4f}, floor {floor:.4f}"
    )
    if floor > limit:
        context.problem(
            f"the loss of the truth itself is {floor:.4f} (limit {limit:g}): no network can reach "
            "a lower one",
            sign="truth-loss-not-zero",
            place=where(covariance.loss),
            next_step="mend the loss: with the prediction equal to the truth it must be 0 at "
            "beta 0",
        )
    elif not after <= limit + floor:
        learns = after < 0.8 * before
        context.problem(
            f"NMSE(R_pred) on {MEMORISE_SAMPLES} fixed scenes went from {before:.4f} to "
            f"{after:.4f} in {MEMORISE_EPOCHS} epochs, limit {limit:g} above the floor "
            f"{floor:.4f}: "
            + ("it learns, but can't represent them" if learns else "it does not learn"),
            sign="memorises-partly" if learns else "memorises-nothing",
            place=where(subject.case.model if learns else subject.fit),
            next_step="give the network more capacity, or look what its output can't express"
            if learns
            else "run the litmus family first: it names what keeps the weights from moving",
        )
