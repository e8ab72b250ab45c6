"""What the network can express: range of its output, bends between layers, use of its input. B1."""

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.anatomy import Called
from ris_diag.check import Threshold, check
from ris_diag.checks.inference import SIZE, predicted
from ris_diag.context import Context
from ris_diag.graph import tensors_in
from ris_diag.measure import listed, nudged_model
from ris_diag.places import where
from ris_diag.watched import dissected, named_modules, place_of_loss, place_of_model, watch

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
    "outputs that a loss expects.",
    why="A ReLU behind the last layer can't give a negative label; the loss falls as far as the "
    "others let it.",
    sources=SOURCES,
    signs=("output-bounded",),
    needs=("run",),
    thresholds=(
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
        low, high = RANGES[maker.name]
        inside = f" in {maker.module}" if maker.module else ""
        limits = f"between {low:g} and {high:g}"
        if called.name in RAW and maker.name in ("relu", "relu6", "tanh", "hardtanh", "softplus"):
            found[maker.place, maker.module] = (
                f"{called.name} gets the output of {maker.name}(){inside}, {limits}; raw outputs "
                "have no limits"
            )
        elif called.name in DISTANCES and label is not None and label.is_floating_point():
            share = _outside(label, low, high)
            shares[f"{maker.name}{inside}"] = share
            if share > context.limit("max_outside"):
                found[maker.place, maker.module] = (
                    f"{share:.0%} of the labels (from {float(label.min()):.3g} to "
                    f"{float(label.max()):.3g}) lie outside of what {maker.name}(){inside} can "
                    f"give, {limits} (limit {context.limit('max_outside'):.0%})"
                )
    context.measure(outside=shares)
    for (place, module), text in found.items():
        place = (
            ", ".join(filter(None, (place, _models_place(context))))
            if module
            else (place or place_of_loss(context.subject))
        )
        context.problem(
            text,
            place=f"{place} ({module.partition(' (')[0]})" if module else place,
            next_step="remove the activation behind the last layer, or scale the labels into its "
            "range",
        )


def _models_place(context: Context) -> str:
    roots = watch(context.subject).roots
    return place_of_model(roots[0], context.subject) if roots else ""


def _sides(called: Called) -> tuple[Tensor | None, Tensor | None]:
    """(what has a gradient, what has none)."""
    tensors = [value for value in called.args.values() if isinstance(value, Tensor)]
    trained = next((t for t in tensors if t.requires_grad), None)
    fixed = next((t for t in tensors if not t.requires_grad), None)
    return trained, fixed


def _outside(label: Tensor, low: float, high: float) -> float:
    label = label.double()
    margin = 0.01 * float(label.max() - label.min()) if label.numel() else 0.0
    return float(((label < low - margin) | (label > high + margin)).double().mean())


@check(
    "L031",
    "layers-bend",
    title="Linear layers don't stand one behind the other",
    what="Follows the output of every linear layer in three steps of the real loop or script: one "
    "that goes unchanged into the next linear layer of the same parent makes both one, unless it "
    "is narrower than both its ends, as in a bottleneck.",
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
    }
    context.measure(pairs=[list(pair) for pair in chains])
    if len(chains) > context.limit("max_pairs"):
        shown = [f"{first} -> {second}" for first, second in chains]
        first = next(iter(chains.values()))
        context.problem(
            f"{len(chains)} pairs of linear layers have nothing between them ({listed(shown)}; "
            f"widths {' -> '.join(map(str, first.widths))}; limit 0)",
            place=f"{_models_place(context)}, {first.place} ({first.second})",
            next_step="put an activation between them, or make one layer of them",
        )


@check(
    "L032",
    "input-is-used",
    title="The prediction depends on the input",
    what="Predicts seven different samples with slightly changed weights, in eval mode: their "
    "predictions must differ. With the samples of another batch they must be others.",
    why="A forward that overwrites its input, or reads another variable, learns the mean of the "
    "labels.",
    sources=SOURCES,
    signs=("input-ignored",),
    needs=("model", "batch", "prediction"),
    thresholds=(
        Threshold(
            name="min_difference",
            value=1e-6,
            unit="of the largest output",
            why="float32 rounds at 1e-7, sums above it; samples that differ give far more",
        ),
        Threshold(
            name="max_unread",
            value=0.25,
            unit="share of the features of a table that have no influence",
            why="a column of numbers or of weights may ride along; a quarter is a part of it",
        ),
    ),
)
def input_is_used(context: Context) -> None:
    subject, limit = context.subject, context.limit("min_difference")
    model = nudged_model(subject).eval()
    one, other = (subject.batch("validation", SIZE, offset=k) for k in range(2))
    first, second = predicted(context, model, one), predicted(context, model, other)
    if first.shape != second.shape or first.shape[:1] != (SIZE,):
        context.say(f"not judged: predictions {list(first.shape)} have no row for each sample")
        return
    values = torch.cat([first, second]).reshape(2 * SIZE, -1)
    values = values.to(torch.complex128 if values.is_complex() else torch.float64)
    spread = float((values - values[:1]).abs().max() / values.abs().max().clamp(min=1e-30))
    context.measure(spread=spread)
    if not spread > limit:
        context.problem(
            f"the predictions of {2 * SIZE} samples differ by {spread:.2g} of the largest output "
            f"(limit {limit:g})",
            place=place_of_model(model, subject),
            next_step="look in forward() for an input that is overwritten, multiplied by zero, or "
            "never used, and for a softmax over one output",
        )
        return
    unread = _unread(context, model, one, context.limit("max_unread"))
    context.measure(unread=unread)
    if unread:
        context.problem(
            f"{len(unread)} of the tensors that enter the model have no influence on the "
            f"prediction ({listed(unread)}; limit 0)",
            place=place_of_model(model, subject),
            next_step="use each of them in forward(); look for one that is written twice",
        )


def _unread(context: Context, model: nn.Module, batch: Any, most: float) -> list[str]:
    """The real tensors among the model's arguments to which no gradient of the output leads.

    Of a table [B, F] with the features that are not read, where they are more than a share `most`.
    """
    entered: dict[str, Tensor] = {}

    def watched(module: nn.Module, args: Any, kwargs: Any) -> Any:
        def follow(value: Any, name: str) -> Any:
            rows = isinstance(value, Tensor) and value.ndim and len(value) == SIZE
            if not rows or not value.is_floating_point() or value.numel() < 2 * SIZE:
                return value
            entered[name] = value.detach().clone().requires_grad_()
            return entered[name]

        given = tuple(follow(value, f"argument {k}") for k, value in enumerate(args, 1))
        return given, {name: follow(value, name) for name, value in kwargs.items()}

    outputs: list[Tensor] = []
    hooks = (
        model.register_forward_pre_hook(watched, with_kwargs=True),
        model.register_forward_hook(lambda m, args, output: outputs.extend(tensors_in(output))),
    )
    try:
        context.subject.predict(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    following = [output for output in outputs if output.requires_grad]
    if not following or not entered:
        return []
    total = torch.stack([(o * torch.randn_like(o)).abs().sum() for o in following]).sum()
    gradients = torch.autograd.grad(total, list(entered.values()), allow_unused=True)
    found = []
    for (name, value), gradient in zip(entered.items(), gradients, strict=True):
        shape = list(value.shape)
        if gradient is None or not gradient.any():
            found += [f"{name} {shape}"] if len(entered) > 1 else []
        elif value.ndim == 2:
            unread = (~gradient.any(0)).nonzero().flatten().tolist()
            if len(unread) > most * shape[1]:
                found.append(f"features {listed(list(map(str, unread)))} of {name} {shape}")
    return found


@check(
    "L033",
    "initial-scale-fits",
    title="The initial weights have a scale at which signals pass",
    what="Compares the spread of every weight matrix of a fresh model with one over the root of "
    "its inputs, which keeps the scale of a signal; matrices that are zero are L028's.",
    why="Weights ten times too large saturate what comes behind, weights a hundred times too small "
    "let nothing through; the first epochs only repair it.",
    sources=SOURCES,
    signs=("initial-scale-off",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_gain",
            value=10.0,
            unit="spread times root of the inputs, any layer",
            why="1 to 2 with the usual initialisations, 5 with those made for sine activations",
        ),
        Threshold(
            name="min_gain",
            value=0.02,
            unit="spread times root of the inputs, median over the layers",
            why="one layer, the last of a branch, may start near zero; not all",
        ),
    ),
)
def initial_scale_fits(context: Context) -> None:
    subject = context.subject
    if subject.case.model is None:
        context.say("not judged: a script's weights are seen behind its first steps")
        return
    model = subject.model()
    gains = {
        name: float(weight.detach().abs().square().double().mean().sqrt())
        * math.sqrt(weight[0].numel())
        for name, module in model.named_modules()
        for weight in [getattr(module, "weight", None)]
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        and isinstance(weight, Tensor)
        and bool(weight.detach().any())
    }
    context.measure(gains=gains)
    high, low = context.limit("max_gain"), context.limit("min_gain")
    large = [f"{name}: {gain:.3g}" for name, gain in gains.items() if gain > high]
    middle = sorted(gains.values())[len(gains) // 2] if gains else 1.0
    if large:
        context.problem(
            f"{len(large)} of {len(gains)} layers start with weights that blow their signal up "
            f"({listed(large)} times; limit {high:g})",
            place=f"{place_of_model(model, subject)} ({large[0].split(':')[0]})",
            next_step="use the initialisation that belongs to the activation: kaiming_normal_, "
            "xavier_uniform_",
        )
    if middle < low:
        small = [f"{name}: {gain:.2g}" for name, gain in gains.items() if gain < low]
        context.problem(
            f"{len(small)} of {len(gains)} layers start with weights that let nothing through "
            f"({listed(small)} times; limit {low:g} in the median)",
            place=f"{place_of_model(model, subject)} ({small[0].split(':')[0]})",
            next_step="use the initialisation that belongs to the activation: kaiming_normal_, "
            "xavier_uniform_",
        )


@check(
    "L034",
    "dropout-leaves-signal",
    title="Dropout leaves most of the signal",
    what="Reads the probability of every dropout module, and of every call of dropout in three "
    "steps of the real loop or script.",
    why="At p = 0.95 one value of twenty comes through, twenty times as large: noise.",
    sources=SOURCES,
    signs=("dropout-extreme",),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_probability", value=0.85, unit="p", why="0.1 to 0.5 is usual, 0.8 is seen"
        ),
    ),
)
def dropout_leaves_signal(context: Context) -> None:
    limit = context.limit("max_probability")
    strong = {
        name: (float(module.p), where(type(module)))
        for name, module in named_modules(watch(context.subject)).items()
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > limit
    }
    for called in dissected(context.subject).activations:
        if "dropout" in called.name and called.get("training", 2, True):
            p = float(called.get("p", 1, 0.5))
            if p > limit:
                strong[called.module.partition(" (")[0] or called.name] = (p, called.place)
    context.measure(strong={name: p for name, (p, _) in strong.items()})
    if strong:
        shown = [f"{name}: p = {p:g}" for name, (p, _) in strong.items()]
        name, (_, place) = next(reversed(strong.items()))
        context.problem(
            f"{len(strong)} dropouts take nearly everything ({listed(shown)}; limit {limit:g})",
            place=f"{_models_place(context)}, {place} ({name})",
            next_step="lower p; it is the share that is dropped, not the share that is kept",
        )
