"""Guards in the author's code, and the values they stand for: S2 and S4."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.covariance import OF_CRITERION
from ris_diag.measure import LITMUS_EPOCHS, effective_weights, nudged_model
from ris_diag.places import where
from ris_diag.plan import Progress

BATCH = 4
WEIGHT_LIMIT = 100.0
BAD_WEIGHTS = (0.0, -1.0, math.nan, math.inf, 100.0, 1e6)
NEAR_ONE = (0.5, 2.0)
SCALES = (1e-12, 1e-8, 1e-6, 1e-3, 1e3, 1e6, 1e12)


def refusal(call: Callable[[], object]) -> str | None:
    """Why a call that must be refused was not, or None if it was refused properly."""
    try:
        call()
    except AssertionError:
        return "refused by an assert, which python -O removes"
    except (ValueError, TypeError, RuntimeError):
        return None
    return "accepted"


@check(
    "G001",
    "weights-in-range",
    title="Each loss weight in effect lies between 0 and 100",
    what="Builds the training loss once and measures the weight of every term in the graph, as "
    "d total / d term.",
    why="A weight of 0, a NaN or a factor of a million trains something else in silence.",
    sources=("S4", "S10"),
    signs=("weight-zero", "weights-in-range", "term-is-cut", "term-left-out"),
    thresholds=(
        Threshold(
            name="max_weight",
            value=WEIGHT_LIMIT,
            unit="weight",
            why="the note's hard guard is 0 < lam_cov < 100",
        ),
    ),
    needs=("model", "batch", "loss", "declared"),
)
def weights_in_range(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_weight")
    model = nudged_model(subject).train()
    losses = subject.loss(
        model, subject.batch("train", BATCH), Progress(epoch=1, epochs=LITMUS_EPOCHS)
    )
    weights = effective_weights(losses)
    context.measure(weights=weights)
    off: dict[str, list[str]] = {}
    for name in subject.declared.weights:
        value, term = weights.get(name), losses.terms.get(name)
        if value is None and term is not None and term.requires_grad:
            off.setdefault("term-left-out", []).append(f"{name}: not in the total")
        elif value is None:
            off.setdefault("term-is-cut", []).append(f"{name}: no gradient leads to it")
        elif not 0 < value < limit:
            sign = "weights-in-range" if value else "weight-zero"
            off.setdefault(sign, []).append(f"{name}: {value:g}")
    for sign, shown in off.items():
        context.problem(
            f"weight in effect outside 0 < weight < {limit:g}: {'; '.join(shown)}",
            sign=sign,
            place=where(subject.case.loss),
            next_step="look whether the declared weights "
            f"({', '.join(f'{n}={w:g}' for n, w in subject.declared.weights.items())}) arrive in "
            "the loss",
        )


@check(
    "G002",
    "bad-weights-refused",
    title="Inadmissible loss weights are refused",
    what="Builds the criterion with a main weight of 0, -1, NaN, infinity, 100 and 1e6, and with "
    "the declared one.",
    why="A typing error in a configuration file should cost a second, not a search. An assert is "
    "no guard: python -O removes it.",
    sources=("S4",),
    needs=("covariance.criterion", "declared"),
    thresholds=(
        Threshold(name="max_accepted", value=0, unit="values", why="each of them is an error"),
    ),
)
def bad_weights_refused(context: Context) -> None:
    subject = context.subject
    declared, criterion = subject.declared.weights, subject.covariance.criterion
    main = next(iter(declared))
    criterion(declared)
    wrong: dict[str, str] = {}
    for value in BAD_WEIGHTS:
        reason = refusal(lambda value=value: criterion({**declared, main: value}))  # type: ignore[misc]  # binds the loop's value
        if reason is not None:
            wrong[f"{main}={value:g}"] = reason
    context.measure(tried=len(BAD_WEIGHTS), wrong=wrong)
    if len(wrong) > context.limit("max_accepted"):
        context.problem(
            f"{len(wrong)} of {len(BAD_WEIGHTS)} inadmissible weights are not refused: "
            f"{'; '.join(f'{k} {v}' for k, v in wrong.items())} (limit 0)",
            place=where(criterion),
            next_step=f"raise ValueError unless 0 < weight < {WEIGHT_LIMIT:g}",
        )


@check(
    "G003",
    "blend-refuses-bad-input",
    title="The blend refuses shapes, dtypes and weights that don't fit",
    what="Calls the blend with matrices of different size and batch, real matrices (of batch 2 and "
    "of size 2, which could be read as re/im pairs), half precision, and beta outside [0, 1].",
    why="Broadcasting and silent casts make a number out of nonsense, and the loss falls on it.",
    sources=("S4",),
    needs=("covariance.blend",),
    thresholds=(
        Threshold(name="max_accepted", value=0, unit="inputs", why="each of them is an error"),
    ),
)
def blend_refuses_bad_input(context: Context) -> None:
    subject = context.subject
    blend = subject.covariance.blend
    good = torch.eye(4, dtype=torch.complex64, device=subject.device).repeat(2, 1, 1)
    small = good[:, :2, :2]
    bad: dict[str, tuple[Tensor, Tensor, float]] = {
        "R_pred [2,4,4] with R_samp [2,3,3]": (good, good[:, :3, :3], 0.3),
        "R_pred [2,4,4] with R_samp [1,4,4]": (good, good[:1], 0.3),
        "R_samp without batch, [4,4]": (good, good[0], 0.3),
        "real R_samp [2,4,4] (B = 2)": (good, good.real, 0.3),
        "real R_samp [2,2,2] (N = 2)": (small, small.real, 0.3),
        "both real, float32": (good.real, good.real, 0.3),
        "both half precision, float16": (good.real.half(), good.real.half(), 0.3),
        "beta=-0.1": (good, good, -0.1),
        "beta=1.1": (good, good, 1.1),
        "beta=nan": (good, good, math.nan),
    }
    blend(good, good, 0.3)
    wrong: dict[str, str] = {}
    for name, arguments in bad.items():
        reason = refusal(lambda arguments=arguments: blend(*arguments))  # type: ignore[misc]  # binds the loop's value
        if reason is not None:
            wrong[name] = reason
    context.measure(tried=len(bad), wrong=wrong)
    if len(wrong) > context.limit("max_accepted"):
        context.problem(
            f"{len(wrong)} of {len(bad)} bad inputs are not refused: "
            f"{'; '.join(f'{k}: {v}' for k, v in wrong.items())} (limit 0)",
            place=where(blend),
            next_step="compare shapes and dtypes in the blend and raise ValueError or TypeError",
        )


@check(
    "G004",
    "missing-gradient-refused",
    title="A prediction without gradient is refused while training, and only then",
    what="Gives the criterion a detached R_pred in training mode, in eval mode and under no_grad; "
    "looks whether R_pred and R_blend of the real training loss require a gradient.",
    why="A detached blend trains nothing and reports a loss that beta's walk lowers. A guard that "
    "also fires in validation gets switched off.",
    sources=("S4",),
    signs=("guard-lets-detached-through", "no-gradient-while-training"),
    needs=("model", "batch", "loss", "declared", *OF_CRITERION),
    thresholds=(
        Threshold(name="max_wrong", value=0, unit="situations", why="each has one right answer"),
    ),
)
def missing_gradient_refused(context: Context) -> None:
    subject = context.subject
    covariance = subject.covariance
    batch = subject.batch("train", BATCH)
    truth, sample = covariance.truth(batch), covariance.sample(batch)
    criterion = covariance.criterion(subject.declared.weights)

    def loss_of_detached() -> object:
        return covariance.loss(criterion, sample.clone(), sample, truth, 0.1)

    wrong: dict[str, str] = {}
    criterion.train()
    reason = refusal(loss_of_detached)
    if reason is not None:
        wrong["detached R_pred while training"] = reason
    with torch.no_grad():
        _must_pass("training mode under no_grad", loss_of_detached, wrong)
    criterion.eval()
    _must_pass("eval mode", loss_of_detached, wrong)
    if wrong:
        context.problem(
            f"{len(wrong)} of 3 situations get the wrong answer: "
            f"{'; '.join(f'{k}: {v}' for k, v in wrong.items())}",
            sign="guard-lets-detached-through",
            place=where(covariance.criterion),
            next_step="raise if self.training and torch.is_grad_enabled() and not R.requires_grad",
        )
    model = nudged_model(subject).train()
    losses = subject.loss(model, batch, Progress(epoch=1, epochs=LITMUS_EPOCHS))
    shown = {"R_pred": losses.prediction, "R_blend": losses.blended, "total": losses.total}
    cut = [name for name, R in shown.items() if R is None or not R.requires_grad]
    context.measure(wrong=wrong, without_gradient=cut)
    if cut:
        context.problem(
            f"while training {', '.join(cut)} require(s) no gradient",
            sign="no-gradient-while-training",
            place=where(subject.case.loss),
            next_step="look for detach(), .data, .numpy() or no_grad() between network and loss",
        )


def _must_pass(situation: str, call: Callable[[], object], wrong: dict[str, str]) -> None:
    try:
        call()
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        wrong[situation] = f"refused ({error})"


@check(
    "G005",
    "distance-is-scale-invariant",
    title="The NMSE is finite, scale-invariant and has the documented value",
    what="Compares the distance at equality and under a common scale from 1e-12 to 1e12; one that "
    "is 1 at the zero estimate, as an NMSE, also with the documented formula, or with that of the "
    "whole matrix, in float64, and for a diagonal truth.",
    why="An absolute constant in a denominator makes the loss of weak scenes vanish: the note's "
    "own 1e-12 is wrong by 2 % at a scale of 1e-6.",
    sources=("S2",),
    signs=("distance-off", "distance-off-by-scale"),
    needs=("batch", "distance", "covariance.truth", "covariance.sample"),
    thresholds=(
        Threshold(
            name="max_relative_difference",
            value=1e-4,
            unit="relative",
            why="float32 sums over N^2 entries round at 1e-6; an epsilon of 1e-12 shows at 1e-2",
        ),
    ),
)
def distance_is_scale_invariant(context: Context) -> None:
    subject, limit = context.subject, context.limit("max_relative_difference")
    distance, batch = subject.distance, subject.batch("train", BATCH)
    truth, estimate = subject.covariance.truth(batch), subject.covariance.sample(batch)
    identity = torch.eye(truth.shape[-1], dtype=truth.dtype, device=truth.device)
    diagonal = truth * identity
    own, zero = distance(estimate, truth), distance(torch.zeros_like(truth), truth)
    documented, whole = documented_nmse(estimate, truth), whole_nmse(estimate, truth)
    formula = whole if _far(own, whole) <= limit else documented
    values = {"0 at equality": (distance(truth, truth), torch.zeros(BATCH))}
    # What isn't 1 at the zero estimate is no NMSE: a divergence, or a distance with a unit.
    relative = _far(zero, torch.ones(BATCH)) <= limit or _far(own, formula) <= limit
    if relative:
        values["the formula"] = (own, formula)
        values["1 at the zero estimate"] = (zero, torch.ones(BATCH))
    else:
        context.say("the distance is no NMSE: judged by its own value at scale 1")
    scaled = {scale: distance(estimate * scale, truth * scale) for scale in SCALES}
    if relative or all(_far(distance(estimate * k, truth * k), own) <= limit for k in NEAR_ONE):
        for scale, value in scaled.items():
            values[f"the same at scale {scale:g}"] = (value, own)
    off = {name: far for name, pair in values.items() if not (far := _far(*pair)) <= limit}
    if relative and not bool(torch.isfinite(distance(estimate, diagonal)).all()):
        off["finite for a diagonal truth"] = math.nan
    context.measure(cases=len(values) + relative, off=off)
    by_scale = {name for name in off if "at scale" in name}
    for sign, names in (("distance-off-by-scale", by_scale), ("distance-off", set(off) - by_scale)):
        if not names:
            continue
        context.problem(
            f"{len(names)} of {len(values) + relative} values are wrong: "
            f"{'; '.join(f'{k} (off by {v:.3g})' for k, v in off.items() if k in names)} "
            f"(limit {limit:g})",
            sign=sign,
            place=where(subject.distance),
            next_step="divide by the truth's energy of the same part, without an added constant"
            if names is by_scale
            else "divide by the truth's energy of the same part; return one value a sample",
        )


def _far(got: Tensor, want: Tensor) -> float:
    """Largest difference, relative to the larger of 1 and what is wanted; NaN counts."""
    got, want = got.detach().cpu().double(), want.detach().cpu().double()
    if got.shape != want.shape:
        return math.inf
    return float((got - want).abs().max()) / max(1.0, float(want.abs().max()))


def whole_nmse(estimate: Tensor, truth: Tensor) -> Tensor:
    """`||E||^2 / ||T||^2`, float64 [B]: the NMSE with no weights of its parts."""
    error, energy = ((estimate - truth).to(torch.complex128), truth.to(torch.complex128))
    return error.abs().square().sum((1, 2)) / energy.abs().square().sum((1, 2))


def documented_nmse(estimate: Tensor, truth: Tensor) -> Tensor:
    """`(0.2 E_d/T_d + 0.8 E_o/T_o)`, float64 [B], written for clarity and not for speed."""
    error = (estimate - truth).to(torch.complex128).abs().square()
    energy = truth.to(torch.complex128).abs().square()
    diagonal = torch.eye(truth.shape[-1], dtype=torch.bool, device=truth.device)

    def share(mask: Tensor) -> Tensor:
        return (error * mask).sum((1, 2)) / (energy * mask).sum((1, 2))

    return 0.2 * share(diagonal) + 0.8 * share(~diagonal)


@check(
    "G006",
    "scenes-are-covariances",
    title="The scenes that are served hold finite Hermitian covariances",
    what="Looks at 64 training samples: no NaN or Inf in truth and sample covariance, truth "
    "Hermitian, positive semidefinite and not zero.",
    why="One NaN scene in a thousand ends a search at a random trial; a truth that isn't "
    "Hermitian can't be reached by a network whose output is.",
    sources=("S4", "B4"),
    signs=("nan-in-covariance", "zero-truth", "not-hermitian", "negative-eigenvalues"),
    needs=("batch", "covariance.truth", "covariance.sample"),
    thresholds=(
        Threshold(
            name="max_asymmetry",
            value=1e-4,
            unit="||R - R^H|| / ||R||",
            why="complex64 storage rounds at 1e-7; a transposed or half-filled matrix shows at 1",
        ),
    ),
)
def scenes_are_covariances(context: Context) -> None:
    subject, limit, size = context.subject, context.limit("max_asymmetry"), 64
    batch = subject.batch("train", size)
    truth, sample = subject.covariance.truth(batch), subject.covariance.sample(batch)
    place = where(subject.case.batch)

    def report(sign: str, name: str, offending: Tensor) -> None:
        index = offending.nonzero().flatten().tolist()
        if index:
            context.problem(
                f"{name} in {len(index)} of {len(offending)} samples (index "
                f"{', '.join(map(str, index[:5]))}), limit 0",
                sign=sign,
                place=place,
                next_step="look at these samples where they are made or loaded",
            )

    norm = truth.flatten(1).norm(dim=1)
    asymmetry = (truth - truth.mH).flatten(1).norm(dim=1) / norm
    finite = torch.isfinite(truth).flatten(1).all(1)
    report("nan-in-covariance", "NaN or Inf in the truth", ~finite)
    report(
        "nan-in-covariance",
        "NaN or Inf in the sample covariance",
        ~torch.isfinite(sample).flatten(1).all(1),
    )
    report("zero-truth", "the truth is zero", norm == 0)
    skewed = asymmetry > limit
    report("not-hermitian", f"the truth is not Hermitian (asymmetry above {limit:g})", skewed)
    hermitian = finite & (asymmetry <= limit)
    smallest = torch.linalg.eigvalsh(truth[hermitian].to(torch.complex128))[:, :1]
    negative = torch.zeros_like(hermitian)
    negative[hermitian] = (smallest < -limit * norm[hermitian, None].double()).flatten()
    report("negative-eigenvalues", "the truth has negative eigenvalues", negative)
    context.measure(samples=size, max_asymmetry=float(asymmetry.nan_to_num(0).max()))
