"""What the network can express: the range of its output, bends between its layers. B1."""

import math
from collections import Counter

import torch
from torch import Tensor

from ris_diag.anatomy import Anatomy, Called
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.watched import (
    dissected,
    models_place,
    place_of_loss,
)

SOURCES = ("B1",)
RANGES: dict[str, tuple[float, float]] = {
    "relu": (0.0, math.inf),
    "softplus": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "log_softmax": (-math.inf, 0.0),
    "logsigmoid": (-math.inf, 0.0),
    "tanh": (-1.0, 1.0),
    "hardtanh": (-1.0, 1.0),
}
RAW = ("cross_entropy", "binary_cross_entropy_with_logits")
DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "sub", "subtract", "rsub")


@check(
    "L030",
    "output-reaches-labels",
    title="The last activation can give the labels",
    what="Looks at the activation behind which a prediction is compared with its label, in three "
    "steps of the real loop or script: its range against that of the labels, or against the raw "
    "outputs that a loss expects. Complex matrices that equal their transpose are compared with a "
    "Hermitian label.",
    why="A ReLU behind the last layer can't give a negative label; the loss falls as far as the "
    "others let it.",
    sources=SOURCES,
    signs=("output-bounded", "output-not-hermitian"),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_asymmetry",
            value=1e-3,
            unit="||R - R^H|| / ||R|| of matrices with R = R^T that have a Hermitian label",
            why="complex64 rounds at 1e-7; L L^T in place of L L^H shows at 1",
        ),
        Threshold(
            name="max_outside",
            value=0.01,
            unit="share of the labels outside of the range by more than a hundredth of their "
            "spread",
            why="a label of 1 + 1e-7 behind a sigmoid is rounding",
        ),
    ),
)
def output_reaches_labels(context: Context) -> None:
    seen = dissected(context.subject)
    found: dict[tuple[str, str], str] = {}
    shares: dict[str, float] = {}
    for called in seen.compared:
        prediction, label = _sides(called)
        maker = None if prediction is None else seen.maker(prediction)
        if prediction is None or maker is None or maker.name not in RANGES:
            continue
        if isinstance(maker.output, Tensor) and maker.output.is_complex():
            continue  # tanh and the like are bounded along the real axis alone
        low, high = RANGES[maker.name]
        inside = f" in {maker.module}" if maker.module else ""
        limits = f"between {low:g} and {high:g}"
        if called.name in RAW and maker.name in ("relu", "relu6", "tanh", "hardtanh", "softplus"):
            found[maker.place, maker.module] = (
                f"{called.name} gets the output of {maker.name}(){inside}, {limits}; raw outputs "
                "have no limits"
            )
        elif called.name in DISTANCES and label is not None and _bounded(maker, label):
            share = _outside(label, low, high)
            shares[f"{maker.name}{inside}"] = share
            if share > context.limit("max_outside"):
                found[maker.place, maker.module] = (
                    f"{share:.0%} of the labels (from {_numbers(label).min():.3g} to "
                    f"{_numbers(label).max():.3g}) lie outside of what {maker.name}(){inside} can "
                    f"give, {limits} (limit {context.limit('max_outside'):.0%})"
                )
    skewed = _skewed(seen, context.limit("max_asymmetry"))
    context.measure(outside=shares, asymmetry=skewed)
    if skewed is not None:
        context.problem(
            f"the predicted matrices equal their transpose and not their conjugate transpose "
            f"(||R - R^H|| is {skewed:.2g} of ||R||, limit "
            f"{context.limit('max_asymmetry'):g}), and the labels are Hermitian",
            sign="output-not-hermitian",
            place=", ".join(filter(None, (place_of_loss(context.subject), models_place(context)))),
            next_step="build them as L L^H or U D U^H: .mH or conj() in place of .mT",
        )
    for (place, module), text in found.items():
        place = (
            ", ".join(filter(None, (place, models_place(context))))
            if module
            else (place or place_of_loss(context.subject))
        )
        context.problem(
            text,
            sign="output-bounded",
            place=f"{place} ({module.partition(' (')[0]})" if module else place,
            next_step="remove the activation behind the last layer, or scale the labels into its "
            "range",
        )


def _sides(called: Called) -> tuple[Tensor | None, Tensor | None]:
    """(what has a gradient, what has none)."""
    tensors = [value for value in called.args.values() if isinstance(value, Tensor)]
    trained = next((t for t in tensors if t.requires_grad), None)
    fixed = next((t for t in tensors if not t.requires_grad), None)
    return trained, fixed


def _skewed(seen: Anatomy, limit: float) -> float | None:
    """Asymmetry of predictions with R = R^T whose label is Hermitian; None where there is none."""
    for called in seen.compared:
        prediction, label = _sides(called)
        if not all(map(_complex_square, (prediction, label))):
            continue
        R, truth = prediction.detach(), label.detach()  # type: ignore[union-attr]  # both are there
        if _off(truth, truth.mH) <= limit < _off(truth, truth.mT) and _off(R, R.mT) <= limit:
            asymmetry = _off(R, R.mH)
            if asymmetry > limit:
                return asymmetry
    return None


def _complex_square(R: Tensor | None) -> bool:
    return R is not None and R.is_complex() and R.ndim > 1 and R.shape[-1] == R.shape[-2] > 1


def _off(R: Tensor, other: Tensor) -> float:
    return float((R - other).norm() / R.norm().clamp_min(1e-30))


def _bounded(maker: Called, label: Tensor) -> bool:
    """Whether the label has numbers that the activation's range bounds: one of real numbers."""
    source = maker.get("input", 0)
    real = not (isinstance(source, Tensor) and source.is_complex())
    return label.is_floating_point() or (label.is_complex() and real)


def _numbers(label: Tensor) -> Tensor:
    """The real numbers in a label: of complex ones both parts."""
    return (torch.view_as_real(label.resolve_conj()) if label.is_complex() else label).double()


def _outside(label: Tensor, low: float, high: float) -> float:
    label = _numbers(label)
    margin = 0.01 * float(label.max() - label.min()) if label.numel() else 0.0
    return float(((label < low - margin) | (label > high + margin)).double().mean())


@check(
    "L031",
    "layers-bend",
    title="Linear layers don't stand one behind the other",
    what="Follows the output of every linear layer in three steps of the real loop or script: one "
    "that goes unchanged into the next linear layer of the same parent, and nowhere else, makes "
    "both one, unless it is narrower than both its ends, as in a bottleneck.",
    why="Without an activation between them two layers are one linear map: the network is "
    "shallower than it looks, or not a network at all.",
    sources=SOURCES,
    signs=("layers-collapse",),
    needs=("run",),
    thresholds=(
        Threshold(name="max_pairs", value=0, unit="pairs of layers", why="each pair is one map"),
    ),
)
def layers_bend(context: Context) -> None:
    seen = dissected(context.subject)
    counted = Counter((chain.first, chain.second) for chain in seen.chains)
    chains = {
        (chain.first, chain.second): chain
        for chain in seen.chains
        if chain.widths[1] >= min(chain.widths[0], chain.widths[2])
        # What stands between them in other calls, or a layer used again elsewhere, is a method.
        and counted[chain.first, chain.second]
        == seen.linear[chain.first]
        == seen.linear[chain.second]
        # What is added, weighed or passed on beside the second layer has a use of its own.
        and chain.first not in seen.shared
    }
    context.measure(pairs=[list(pair) for pair in chains])
    if len(chains) > context.limit("max_pairs"):
        shown = [f"{first} -> {second}" for first, second in chains]
        first = next(iter(chains.values()))
        context.problem(
            f"{len(chains)} pairs of linear layers have nothing between them ({listed(shown)}; "
            f"widths {' -> '.join(map(str, first.widths))}; limit 0)",
            place=f"{models_place(context)}, {first.place} ({first.second})",
            next_step="put an activation between them, or make one layer of them",
        )
