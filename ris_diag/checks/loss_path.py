"""How the loss is built from the prediction: S3, S5, S11 and S12."""

import math

import torch
from torch import Tensor, nn

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context, Subject
from ris_diag.covariance import OF_LOSS
from ris_diag.measure import (
    LITMUS_BATCH,
    LITMUS_EPOCHS,
    LITMUS_STEPS,
    effective_weights,
    gradient_norms,
    listed,
    nudged_model,
)
from ris_diag.places import where
from ris_diag.plan import Losses, Progress

BETAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 1.0)
BETA_ONE = 1.0
DRAWS = 3  # of a network nudged anew
AUXILIARY_SHARE = 0.2
ROUNDING = Threshold(
    name="max_relative_difference",
    value=1e-4,
    unit="relative",
    why="ten times the rounding of a float32 sum over 144 x 144 entries",
)


def _training_loss(subject: Subject) -> tuple[nn.Module, Batch, Losses]:
    """A nudged model, a batch and the case's training loss at the end of the warm-up."""
    model = nudged_model(subject).train()
    batch = subject.batch("train", LITMUS_BATCH)
    progress = Progress(epoch=LITMUS_STEPS, epochs=LITMUS_EPOCHS)
    return model, batch, subject.loss(model, batch, progress)


def _loss_at(subject: Subject, model: nn.Module, batch: Batch, beta: float) -> Losses:
    """The criterion with the declared weights at a given beta, in training mode."""
    covariance = subject.covariance
    criterion = covariance.criterion(subject.declared.weights).train()
    return covariance.loss(
        criterion,
        covariance.predict(model, batch),
        covariance.sample(batch),
        covariance.truth(batch),
        beta,
    )


@check(
    "L003",
    "each-term-reaches-network",
    title="Each loss term alone has a gradient in the covariance path",
    what="Takes the gradient of every term by itself, with a little noise on the weights so that "
    "a layer that starts at zero hides nothing, and compares the parameters it reaches with "
    "those that all terms together reach.",
    why="A term whose graph is cut still shows its value in the log and changes nothing.",
    sources=("S12",),
    signs=("term-missing", "no-term-reaches-network", "term-is-cut"),
    needs=("model", "batch", "loss", "covariance.predict", "declared"),
    thresholds=(
        Threshold(
            name="max_unreached", value=0, unit="parameters", why="a cut graph is never healthy"
        ),
    ),
)
def each_term_reaches_network(context: Context) -> None:
    subject = context.subject
    model, _, losses = _training_loss(subject)
    norms = {name: gradient_norms(model, term) for name, term in losses.terms.items()}
    total = gradient_norms(model, losses.total)
    path = [p for p in total if total[p] > 0 or any(n[p] > 0 for n in norms.values())]
    context.measure(
        parameters=len(total),
        reached=len(path),
        gradient_norm={name: math.hypot(*values.values()) for name, values in norms.items()},
    )
    missing = [name for name in subject.declared.weights if name not in norms]
    if missing:
        context.problem(
            f"declared term(s) {listed(missing)} are not among the loss's terms "
            f"({listed(list(norms)) or 'none'})",
            sign="term-missing",
            place=where(subject.case.loss),
            next_step="return every declared term in Losses.terms",
        )
    if not path:
        context.problem(
            f"0 of {len(total)} parameters are reached by the gradient of any term",
            sign="no-term-reaches-network",
            place=where(subject.case.loss),
            next_step="look for no_grad(), detach() or a rebuilt tensor between network and loss",
        )
    limit = context.limit("max_unreached")
    for name, values in norms.items():
        unreached = [p for p in path if not values[p] > 0]
        if len(unreached) > limit:
            context.problem(
                f"term {name}: {len(unreached)} of {len(path)} parameters get no gradient "
                f"({listed(unreached)}), limit {limit:g}",
                sign="term-is-cut",
                place=where(subject.case.loss),
                next_step=f"build {name} from the network's output itself, without detach()",
            )


@check(
    "L004",
    "total-is-weighted-sum",
    title="The total is the declared weighted sum of its terms",
    what="Compares the total with the sum of declared weight times term, the main term with the "
    "distance of R_blend, and an auxiliary term with the distance of R_pred itself, unless it is "
    "of another kind: neither a multiple of that distance nor the distance of another matrix.",
    why="Without the auxiliary term the network hides behind R_samp: the blend looks good while "
    "R_pred is not.",
    sources=("S3",),
    signs=("total-not-the-sum", "term-not-the-distance"),
    needs=("model", "batch", "loss", "distance", "covariance.truth", "declared"),
    thresholds=(ROUNDING,),
)
def total_is_weighted_sum(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_relative_difference")
    _, batch, losses = _training_loss(subject)
    weights = subject.declared.weights
    terms = {name: float(term.detach()) for name, term in losses.terms.items()}
    total = float(losses.total.detach())
    expected = sum(weights[name] * terms.get(name, 0.0) for name in weights)
    context.measure(total=total, declared_sum=expected, terms=terms)
    if not _near(total, expected, limit):
        parts = " + ".join(f"{weights[n]:g} * {n} {terms.get(n, 0.0):.6f}" for n in weights)
        context.problem(
            f"total is {total:.6f}, the declared sum {parts} = {expected:.6f} "
            f"(limit {limit:g} relative)",
            sign="total-not-the-sum",
            place=where(subject.case.loss),
            next_step="look whether every declared weight arrives where the terms are added",
        )
    if losses.prediction is None:
        return
    names = list(weights)
    truth = subject.covariance.truth(batch)
    own = [] if losses.blended is None else _distances(subject, truth, [losses.blended])
    _compare_term(context, names[0], "blend", terms, own)
    own = _distances(subject, truth, [losses.prediction])
    if any(name in terms and _near(terms[name], own[0], limit) for name in names[1:]):
        return
    others = [losses.blended, subject.covariance.sample(batch)] if _has_sample(subject) else []
    mistaken = _distances(subject, truth, [R for R in (*others, losses.blended) if R is not None])
    for name in names[1:]:
        # A term of another kind, a divergence beside an NMSE, is no wrong distance.
        wrong = any(_near(terms.get(name, math.nan), value, limit) for value in mistaken)
        if wrong or _multiple(subject, name, limit):
            _compare_term(context, name, "prediction", terms, own)


def _has_sample(subject: Subject) -> bool:
    return subject.case.offers("covariance.sample")


def _distances(subject: Subject, truth: Tensor, estimates: list[Tensor]) -> list[float]:
    return [float(subject.distance(R.detach(), truth).mean()) for R in estimates]


def _multiple(subject: Subject, name: str, limit: float) -> bool:
    """Whether a term is one and the same multiple of the distance of R_pred, as a sum is."""
    ratios = []
    for _ in range(DRAWS):
        _, batch, losses = _training_loss(subject)
        if losses.prediction is None or name not in losses.terms:
            return False
        truth = subject.covariance.truth(batch)
        (distance,) = _distances(subject, truth, [losses.prediction])
        ratios.append(float(losses.terms[name].detach()) / max(distance, 1e-30))
    return all(_near(ratio, ratios[0], limit) for ratio in ratios)


def _compare_term(
    context: Context, name: str, what: str, terms: dict[str, float], own: list[float]
) -> None:
    limit = context.limit("max_relative_difference")
    if own and name in terms and not _near(terms[name], own[0], limit):
        context.problem(
            f"term {name} is {terms[name]:.6f}, the distance of the {what} from the truth is "
            f"{own[0]:.6f} (limit {limit:g} relative)",
            sign="term-not-the-distance",
            place=where(context.subject.case.loss),
            next_step=f"compute {name} from the {what}, as a mean over the batch",
        )


@check(
    "L006",
    "beta-one-keeps-gradient",
    title="At beta = 1 the auxiliary term keeps every weight learning",
    what="Builds the declared loss at beta = 1 and looks at the effective weights of the auxiliary "
    "terms that reach the network there, all together, and at the gradient of every parameter "
    "that the loss reaches at beta = 0.",
    why="At beta >= 0.999 the main term has no gradient; with an auxiliary weight near 0 the "
    "training stands still while the loss looks fine.",
    sources=("S5",),
    signs=("auxiliary-weight-low", "no-gradient-at-beta-one"),
    needs=("model", "batch", "declared", *OF_LOSS),
    thresholds=(
        Threshold(
            name="min_auxiliary_share",
            value=AUXILIARY_SHARE,
            unit="share of the main weight",
            why="the note's max(lam_cov_pred, 0.2 * lam_cov)",
        ),
    ),
)
def beta_one_keeps_gradient(context: Context) -> None:
    subject = context.subject
    model = nudged_model(subject).train()
    batch = subject.batch("train", LITMUS_BATCH)
    reached = gradient_norms(model, _loss_at(subject, model, batch, 0.0).total)
    losses = _loss_at(subject, model, batch, BETA_ONE)
    norms = gradient_norms(model, losses.total)
    names = list(subject.declared.weights)
    main, auxiliary = names[0], names[1:] or names
    arriving = [
        name
        for name in auxiliary
        if name in losses.terms and any(gradient_norms(model, losses.terms[name]).values())
    ]
    # Several terms share the work; whether each has its own weight is looked at elsewhere.
    declared = subject.declared.weights[auxiliary[0]] if len(auxiliary) == 1 else 0.0
    least = max(declared, context.limit("min_auxiliary_share") * subject.declared.weights[main])
    effective = effective_weights(losses)
    weight = sum(effective[name] or 0.0 for name in arriving) if arriving else None
    context.measure(auxiliary_weight=weight, gradient_norm=math.hypot(*norms.values()))
    place = where(subject.covariance.criterion)
    if weight is None or weight < least * (1 - 1e-4):
        shown = "cut off" if weight is None else f"{weight:g}"
        context.problem(
            f"at beta = 1 the weight of {' + '.join(arriving or auxiliary)} is {shown}, at least "
            f"{least:g} is needed",
            sign="auxiliary-weight-low",
            place=place,
            next_step="for beta >= 0.999 use max(lam_cov_pred, 0.2 * lam_cov)",
        )
    still = [p for p, norm in reached.items() if norm > 0 and not norms[p] > 0]
    if still or not any(norm > 0 for norm in reached.values()):
        context.problem(
            f"at beta = 1 {len(still)} of {len(reached)} parameters get no gradient "
            f"({listed(still) or 'none is reached at beta = 0 either'}), limit 0",
            sign="no-gradient-at-beta-one",
            place=place,
            next_step="let the auxiliary term carry the training where the main term can't",
        )


@check(
    "L029",
    "gradient-over-the-beta-range",
    title="The network gets a gradient at every blend weight",
    what="Computes the training loss at beta from 0 to 1 and looks at the gradient of every "
    "parameter that is reached at beta = 0.",
    why="The share of the blended term falls with (1 - beta)^2; a jitter or a search can carry "
    "beta to where nothing is left of it.",
    sources=("B1", "S1", "S5"),
    needs=("model", "batch", "declared", *OF_LOSS),
    thresholds=(
        Threshold(
            name="min_share",
            value=1e-6,
            unit="of the gradient norm at beta = 0",
            why="the auxiliary term alone keeps a share near its weight, 0.05",
        ),
    ),
)
def gradient_over_the_beta_range(context: Context) -> None:
    subject, limit = context.subject, context.limit("min_share")
    model = nudged_model(subject).train()
    batch = subject.batch("train", LITMUS_BATCH)
    by_beta = {
        beta: gradient_norms(model, _loss_at(subject, model, batch, beta).total) for beta in BETAS
    }
    first = by_beta[0.0]
    shares = {
        beta: math.hypot(*norms.values()) / (math.hypot(*first.values()) or math.nan)
        for beta, norms in by_beta.items()
    }
    context.measure(shares={f"{beta:g}": share for beta, share in shares.items()})
    cut = {
        beta: [name for name, norm in norms.items() if first[name] > 0 and not norm > 0]
        for beta, norms in by_beta.items()
    }
    off = [
        f"beta={beta:g}: {share:.1e} of it, {len(cut[beta])} of {len(first)} parameters without"
        for beta, share in shares.items()
        if cut[beta] or not share >= limit
    ]
    if off:
        context.problem(
            f"the gradient vanishes along the range of beta ({'; '.join(off)}; limit {limit:g})",
            place=where(subject.covariance.loss),
            next_step="keep the auxiliary term on R_pred itself, and the blend attached",
        )


@check(
    "L007",
    "inference-uses-trained-blend",
    title="The loss supervises the same R_blend that inference hands out",
    what="Compares R_blend of the training loss with inference's estimate, entry by entry, at the "
    "beginning, middle and end of the warm-up, in eval mode.",
    why="If inference blends, scales or symmetrises in another way, the validation measures a "
    "quantity that was never trained.",
    sources=("S11",),
    signs=("no-blend-shown", "inference-blend-differs"),
    needs=("model", "batch", "loss", "covariance.beta", "covariance.infer", "declared"),
    thresholds=(ROUNDING,),
)
def inference_uses_trained_blend(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_relative_difference")
    covariance = subject.covariance
    model = nudged_model(subject).eval()
    batch = subject.batch("validation", LITMUS_BATCH)
    differences: dict[str, float] = {}
    for epoch in (1, (LITMUS_STEPS + 1) // 2, LITMUS_STEPS):
        beta = covariance.beta(epoch, LITMUS_EPOCHS)
        progress = Progress(epoch=epoch, epochs=LITMUS_EPOCHS)
        trained = subject.loss(model, batch, progress).blended
        if trained is None:
            context.problem(
                "the training loss does not show its R_blend",
                sign="no-blend-shown",
                place=where(subject.case.loss),
                next_step="return it as Losses.blended",
            )
            return
        handed_out = covariance.infer(model, batch, beta)
        differences[f"{beta:.3f}"] = _relative_difference(trained.detach(), handed_out.detach())
    context.measure(relative_difference_by_beta=differences)
    off = [f"{d:.3g} at beta={b}" for b, d in differences.items() if not d <= limit]
    if off:
        context.problem(
            f"inference hands out another matrix than the loss supervises: relative difference "
            f"{', '.join(off)} (limit {limit:g})",
            sign="inference-blend-differs",
            place=f"{where(covariance.infer)} and {where(subject.case.loss)}",
            next_step="call one blend function, with the same beta, in both places",
        )


def _relative_difference(first: Tensor, second: Tensor) -> float:
    if first.shape != second.shape:
        return math.inf
    return float(
        (first - second).norm() / first.norm().clamp_min(torch.finfo(first.real.dtype).tiny)
    )


def _near(value: float, expected: float, limit: float) -> bool:
    return abs(value - expected) <= limit * max(abs(expected), abs(value), 1e-30)
