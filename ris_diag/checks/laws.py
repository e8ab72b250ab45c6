"""Laws that any metric of a covariance estimate keeps, tried on many matrices: S2, B3."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ris_diag.check import Threshold, check
from ris_diag.context import Context

if TYPE_CHECKING:
    from ris_diag.proof import Law, Trial

ROUNDING = (
    Threshold(
        name="single",
        value=1e-3,
        unit="relative, of 1 where the value is smaller",
        why="complex64 rounds at 1e-7, which condition numbers of some hundred amplify",
    ),
    Threshold(
        name="double",
        value=1e-8,
        unit="relative, of 1 where the value is smaller",
        why="the same for complex128, which rounds at 1e-16",
    ),
)
DECADES = Threshold(
    name="decades",
    value=30,
    unit="powers of ten to either side of 1",
    why="channel gains of 1e-10 give covariances of 1e-20; complex64 itself ends at 1e38",
)


def law(
    id: str,  # noqa: A002  # as in `check`
    slug: str,
    *,
    title: str,
    what: str,
    why: str,
    sources: tuple[str, ...] = ("S2", "B3"),
    thresholds: tuple[Threshold, ...] = ROUNDING,
) -> Callable[["Law"], "Law"]:
    """Register the decorated function as a check that looks for a counterexample.

    It gets a `Trial` and returns what is wrong, or None.
    """

    def register(function: "Law") -> "Law":
        def run(context: Context) -> None:
            from ris_diag.proof import prove  # not above: hypothesis is an extra

            prove(context, function)

        check(
            id,
            slug,
            title=title,
            what=what,
            why=why,
            sources=sources,
            needs=("distance",),
            thresholds=thresholds,
            extra="laws",
        )(run)
        return function

    return register


@law(
    "M001",
    "zero-at-equality",
    title="The distance of the truth from itself is zero",
    what="Evaluates the distance with the truth in place of the estimate.",
    why="A loss that is not zero at the truth has its minimum elsewhere, and training goes there.",
)
def zero_at_equality(trial: "Trial") -> str | None:
    dtype = trial.dtype()
    truth = trial.pair(dtype=dtype)[1]
    trial.show(truth, truth)
    value = trial.value(truth, truth)
    return trial.compare(value, 0.0, "{a} instead of 0 where they agree", dtype=dtype)


@law(
    "M002",
    "one-at-zero-estimate",
    title="The zero estimate has the distance 1",
    what="Evaluates the distance with a zero matrix in place of the estimate.",
    why="Only then a value says by itself whether anything was learnt: 1 is what nothing costs.",
)
def one_at_zero_estimate(trial: "Trial") -> str | None:
    dtype = trial.dtype()
    truth = trial.pair(dtype=dtype)[1]
    zero = torch.zeros_like(truth)
    trial.show(zero, truth)
    value = trial.value(zero, truth)
    return trial.compare(value, 1.0, "{a} instead of 1 for the zero estimate", dtype=dtype)


@law(
    "M003",
    "common-scale-changes-nothing",
    title="A common scale of estimate and truth changes nothing",
    what="Multiplies both by a power of two from 1e-15 to 1e15 and compares the values; M009 goes "
    "further.",
    why="An absolute constant in a denominator makes the loss of weak scenes vanish; an energy "
    "beside a norm lets the strong scenes of a batch decide alone.",
    thresholds=(*ROUNDING, replace(DECADES, value=15, why="up to here squares stay in complex64")),
)
def common_scale(trial: "Trial") -> str | None:
    dtype = trial.dtype()
    estimate, truth = trial.pair(dtype=dtype)
    exponent = trial.exponent()
    scale = 2.0**exponent
    plain, scaled = trial.value(estimate, truth), trial.value(estimate * scale, truth * scale)
    words = f"{{a}} became {{b}} when both were multiplied by 2^{exponent} = {scale:.0e}"
    return trial.compare(plain, scaled, words, dtype=dtype)


@law(
    "M004",
    "never-negative",
    title="The distance is never negative",
    what="Looks at the sign of the value, close to the truth above all.",
    why="A value below zero means digits lost in a difference, or a loss that can be lowered "
    "without end.",
    thresholds=(
        Threshold(name="min_value", value=0, unit="distance", why="a sum of squares keeps it"),
    ),
)
def never_negative(trial: "Trial") -> str | None:
    dtype = trial.dtype()
    estimate, truth = trial.pair(dtype=dtype)
    estimate = truth + trial.nearness() * (estimate - truth)
    trial.show(estimate, truth)
    values = trial.value(estimate, truth)
    trial.values = values.tolist()
    limit = trial.limit("min_value")
    if bool((values >= limit).all()):
        return None
    return f"{float(values.min()):.6g} is below {limit:g}"


@law(
    "M005",
    "batch-order-changes-nothing",
    title="The order of the batch changes nothing",
    what="Permutes the samples of the batch and compares their values.",
    why="A value that depends on its position belongs to another sample.",
)
def batch_order(trial: "Trial") -> str | None:
    estimate, truth = trial.pair(batch=3)
    order = trial.order(3)
    plain = trial.value(estimate, truth)
    permuted = trial.value(estimate[order], truth[order])
    words = f"{{a}} became {{b}} in another order of the batch, {order}"
    return trial.compare(plain[order], permuted, words)


@law(
    "M006",
    "other-samples-change-nothing",
    title="The other samples of a batch change nothing",
    what="Compares a sample's value alone with its value beside samples a thousand times larger.",
    why="A norm over the whole batch lets its strongest scene decide, and weak scenes learn "
    "nothing.",
)
def other_samples(trial: "Trial") -> str | None:
    estimate, truth = trial.pair(batch=2)
    alone = trial.value(estimate[:1], truth[:1])
    scale = torch.tensor([1.0, 1000.0], dtype=torch.float64, device=truth.device)[:, None, None]
    estimate, truth = trial.show(estimate * scale, truth * scale)
    beside = trial.value(estimate, truth)[:1]
    return trial.compare(alone, beside, "{a} alone became {b} beside another sample")


@law(
    "M007",
    "conjugation-changes-nothing",
    title="Conjugating estimate and truth changes nothing",
    what="Evaluates the distance of the conjugates.",
    why="The sign of the phase is a convention; a metric that depends on it mixes up real and "
    "imaginary parts.",
)
def joint_conjugation(trial: "Trial") -> str | None:
    estimate, truth = trial.pair()
    plain = trial.value(estimate, truth)
    conjugate = trial.value(estimate.conj().resolve_conj(), truth.conj().resolve_conj())
    return trial.compare(plain, conjugate, "{a} became {b} when both were conjugated")


@law(
    "M008",
    "unitary-basis-changes-nothing",
    title="A joint unitary change of basis changes nothing",
    what="Evaluates the distance of U R U^H, U a complex reflection.",
    why="What counts every entry alike doesn't depend on the basis. A metric that weights diagonal "
    "and off-diagonal entries apart isn't meant to keep this law: declare it exempt.",
)
def unitary_basis(trial: "Trial") -> str | None:
    estimate, truth = trial.pair()
    U = trial.unitary(truth.shape[-1])
    plain = trial.value(estimate, truth)
    turned = trial.value(U @ estimate @ U.mH, U @ truth @ U.mH)
    return trial.compare(plain, turned, "{a} became {b} in another unitary basis")


@law(
    "M012",
    "monotone-towards-truth",
    title="The distance falls all the way from the estimate to the truth",
    what="Walks from the estimate to the truth in eight equal steps and compares the values.",
    why="A rise on the straight way means a loss that pushes away from the truth somewhere.",
)
def monotone(trial: "Trial") -> str | None:
    dtype = trial.dtype()
    estimate, truth = trial.pair(dtype=dtype)
    walk = [trial.value(estimate + k / 8 * (truth - estimate), truth) for k in range(9)]
    for k in range(8):
        words = f"{{a}} became {{b}}, {k + 1}/8 of the way from the estimate to the truth"
        higher = torch.maximum(walk[k], walk[k + 1])
        claim = trial.compare(walk[k], higher, words, dtype=dtype)
        if claim is not None:
            return claim
    return None


@law(
    "M013",
    "precision-agrees",
    title="complex64 and complex128 give the same value",
    what="Evaluates the distance of one pair of matrices, exact in both, in both precisions.",
    why="A value that depends on the precision has lost its digits, in a difference or a cast.",
    thresholds=ROUNDING[:1],
)
def precision_agrees(trial: "Trial") -> str | None:
    estimate, truth = trial.pair()
    double = trial.value(estimate, truth)
    single = trial.value(estimate.to(torch.complex64), truth.to(torch.complex64))
    words = "{a} in complex128 became {b} in complex64"
    return trial.compare(double, single, words, dtype=torch.complex64)
