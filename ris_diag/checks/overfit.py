"""A short training: memorising, generalising, and whether a search is worth it. S7 and S8."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from ris_diag.check import Threshold, check
from ris_diag.context import Context, DeviceBatches, Subject
from ris_diag.covariance import OF_ESTIMATES
from ris_diag.curves import estimator_table
from ris_diag.measure import (
    Fitted,
    length_of,
    listed,
    mean_and_error,
    mean_nmse,
    run_fit,
    trace_n,
)
from ris_diag.places import where
from ris_diag.plan import Losses, Plan
from ris_diag.portrait import portrait

EPOCHS = 30
VALIDATION_BATCH = 64
VALIDATION_BATCHES = 4
EXCELLENT, MARGINAL = 0.5, 1.0


@dataclass(frozen=True, kw_only=True)
class Generalised:
    """A short training judged on fresh scenes; all estimates scaled to trace N.

    Attributes:
        first: mean NMSE(R_pred) of the untrained network.
        per_scene: estimator to its NMSE on every fresh scene.
        betas: the schedule, epoch by epoch; the last one is that of inference.
        portrait: one scene as the report shows it.
    """

    fitted: Fitted
    first: float
    per_scene: dict[str, list[float]]
    betas: list[float]
    portrait: dict[str, Any]

    @property
    def beta(self) -> float:
        """That of inference."""
        return self.betas[-1]


def generalised(subject: Subject) -> Generalised:
    """Measured once for all checks that read it."""
    return subject.once("generalise", _generalise)


def _generalise(subject: Subject) -> Generalised:
    covariance, case = subject.covariance, subject.case
    model = subject.model()
    loader = case.loader("train", subject.seed) if case.loader is not None else ()
    train = DeviceBatches(loader, subject.device)
    validation = [
        subject.batch("validation", VALIDATION_BATCH, offset=k) for k in range(VALIDATION_BATCHES)
    ]
    first = mean_nmse(subject, model, validation)
    steps = EPOCHS * length_of(loader)
    with subject.progress("overfit", steps) as advance:

        def on_step(epoch: int, losses: Losses) -> None:
            advance(f"epoch {epoch}/{EPOCHS}, loss {float(losses.total.detach()):.3f}")

        plan = Plan(epochs=EPOCHS, train=train, validation=validation, on_step=on_step)
        fitted = run_fit(subject, subject.fit, model, plan, planned=steps)
    betas = [covariance.beta(epoch, EPOCHS) for epoch in range(1, EPOCHS + 1)]
    beta = betas[-1]
    model.eval()
    per_scene: dict[str, list[float]] = {}
    with torch.no_grad():
        for batch in validation:
            sample = covariance.sample(batch)
            estimates = {
                "R_pred": covariance.predict(model, batch),
                "R_blend": covariance.infer(model, batch, beta),
                "R_samp": sample,
                **{name: estimator(batch) for name, estimator in covariance.baselines.items()},
                "blend floor": covariance.blend(covariance.truth(batch), sample, beta),
            }
            for name, estimate in estimates.items():
                values = subject.distance(trace_n(estimate), covariance.truth(batch))
                per_scene.setdefault(name, []).extend(values.tolist())
    return Generalised(
        fitted=fitted,
        first=first,
        per_scene=per_scene,
        betas=betas,
        portrait=portrait(subject, model, validation[0], beta),
    )


@check(
    "O002",
    "generalises",
    title="A short training lowers the error on fresh scenes",
    what="Trains 30 epochs with the author's loop and loader and measures 256 fresh validation "
    "scenes: NMSE of R_pred, R_blend, R_samp and the classical estimators, all scaled to trace "
    "N, beside the floor that the blend can't pass. Learning is judged on NMSE(R_pred), which "
    "beta doesn't touch. Keeps `epoch_train`, `epoch_validation` and `epoch_beta`, and for the "
    "report one scene (`scene`): eigenvalues, |R|, a MUSIC spectrum.",
    why="The walk of beta lowers the loss curve by itself, and a network that memorised its scenes "
    "can be worse on fresh ones than the sample covariance.",
    sources=("S7", "B6"),
    signs=("validation-stays-high", "fresh-does-not-improve"),
    needs=("model", "batch", "loop", "loader", "distance", "declared", *OF_ESTIMATES),
    thresholds=(
        Threshold(
            name="max_validation_loss",
            value=MARGINAL,
            unit="loss",
            why="the note's tiers: below 0.5 EXCELLENT, below 1.0 marginal, else fail",
        ),
        Threshold(
            name="min_drop",
            value=0.20,
            unit="share of NMSE(R_pred) of the untrained network",
            why="the note expects 20 to 30 % from five steps alone; thirty epochs give more",
        ),
    ),
)
def generalises(context: Context) -> None:
    subject = context.subject
    run = generalised(subject)
    epochs, place = run.fitted.epochs, where(subject.fit)
    weights = ", ".join(f"lam_{n}={w}" for n, w in subject.declared.weights.items())
    for number, epoch in enumerate(epochs, start=1):
        val = "-" if epoch.validation is None else f"{epoch.validation:.3f}"
        context.say(
            f"Epoch {number:03d}/{EPOCHS:03d}: train {epoch.train:.3f}  val {val}  ({weights})"
        )
    means = {name: mean_and_error(values) for name, values in run.per_scene.items()}
    for line in estimator_table(means, run.beta):
        context.say(line)
    prediction = means["R_pred"][0]
    drop = 1 - prediction / run.first if run.first else 0.0
    train = epochs[-1].train if epochs else math.nan
    loss = epochs[-1].validation if epochs else None
    context.measure(
        train_loss=train,
        validation_loss=loss,
        train_losses=[epoch.train for epoch in epochs],
        validation_losses=[epoch.validation for epoch in epochs],
        beta=run.beta,
        nmse={name: mean for name, (mean, _) in means.items()},
        nmse_standard_error={name: error for name, (_, error) in means.items()},
        untrained=run.first,
        drop=drop,
        scenes=len(run.per_scene["R_pred"]),
        epoch_train=[epoch.train for epoch in epochs],
        epoch_validation=[epoch.validation for epoch in epochs],
        epoch_beta=run.betas,
        scene=run.portrait,
    )
    limit, minimum = context.limit("max_validation_loss"), context.limit("min_drop")
    if loss is None or not loss < limit:
        shown = "missing" if loss is None else f"{loss:.3f}"
        context.problem(
            f"validation loss after {EPOCHS} epochs is {shown}, limit {limit:g}",
            sign="validation-stays-high",
            place=place,
            next_step="look at the epoch lines: a flat training loss is wiring, a rising "
            "validation loss is memorising",
        )
    if not drop >= minimum:
        context.problem(
            f"NMSE(R_pred) on fresh scenes went from {run.first:.4f} to {prediction:.4f}: it fell "
            f"by {drop:.1%}, limit {minimum:.0%} (the walk of beta does not count)",
            sign="fresh-does-not-improve",
            place=place,
            next_step="run O001: if it memorises, it lacks scenes or regularisation; if not, run "
            "the litmus family",
        )
    tier = "FAIL"
    if not context.findings and loss is not None:
        tier = "EXCELLENT" if loss < EXCELLENT else "MARGINAL"
    context.measure(tier=tier)
    context.say(f"Overfit: train {train:.3f}, val {'-' if loss is None else f'{loss:.3f}'}: {tier}")


@check(
    "O003",
    "worth-a-search",
    title="The network beats the best classical estimator: READY FOR FULL HPO",
    what="Takes the fresh scenes of O002 and compares NMSE(R_pred) with the best of the sample "
    "covariance and the classical estimators of the case, scene by scene; the mean difference "
    "must be clear of zero by two standard errors. Litmus and overfit must have passed.",
    why="The note's figure for READY (validation below 0.187) is reached by shrinkage without any "
    "learning. A network that doesn't beat it is not worth 24 trials of 20 epochs (space wide, "
    "early-stop patience 6).",
    sources=("S8", "B6", "B8"),
    signs=("no-better-than-classical", "overfit-not-passed"),
    needs=(
        "model",
        "batch",
        "loss",
        "loop",
        "loader",
        "distance",
        "declared",
        *OF_ESTIMATES,
        "covariance.baselines",
    ),
    thresholds=(
        Threshold(
            name="min_standard_errors",
            value=2.0,
            unit="standard errors of the paired difference",
            why="a difference that scenes drawn anew would turn around in one case of forty",
        ),
    ),
    requires=("L001", "O001", "O002"),
)
def worth_a_search(context: Context) -> None:
    subject, limit = context.subject, context.limit("min_standard_errors")
    run = generalised(subject)
    classical = ["R_samp", *subject.covariance.baselines]
    means = {name: mean_and_error(run.per_scene[name])[0] for name in ("R_pred", *classical)}
    best = min(classical, key=means.__getitem__)
    pairs = zip(run.per_scene["R_pred"], run.per_scene[best], strict=True)
    gain, error = mean_and_error([reference - own for own, reference in pairs])
    context.measure(
        prediction=means["R_pred"],
        best_classical=best,
        best_classical_nmse=means[best],
        gain=gain,
        gain_standard_error=error,
        relative_gain=gain / means[best],
    )
    if not gain > limit * error:
        context.problem(
            f"NMSE(R_pred) {means['R_pred']:.4f} against {best} {means[best]:.4f} on the same "
            f"{len(run.per_scene[best])} fresh scenes: gain {gain:+.4f} +- {error:.4f}, at least "
            f"{limit:g} standard errors above 0 are needed: it has learnt nothing worth a search",
            sign="no-better-than-classical",
            place=where(subject.case.model),
            next_step="more scenes, other features or a residual around the classical estimate; "
            "a search over hyper-parameters does not mend this",
        )
    failed = [
        result.name
        for result in map(context.result_of, context.check.requires)
        if result.status != "pass"
    ]
    if failed:
        context.problem(
            f"not passed: {listed(failed)}",
            sign="overfit-not-passed",
            place=where(subject.fit),
            next_step="mend these first; a search multiplies what is broken",
        )
    verdict = "NOT READY" if context.findings else "READY FOR FULL HPO"
    context.say(
        f"R_pred {means['R_pred']:.4f} against {best} {means[best]:.4f} "
        f"({-gain / means[best]:+.1%}): {verdict}"
    )
