"""What goes into PyTorch's own losses, and how it fits them. B2."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ris_diag.anatomy import Anatomy, Called, are_probabilities
from ris_diag.check import Threshold, check
from ris_diag.checks.inference import broadcast_shape
from ris_diag.context import Context
from ris_diag.frequencies import weights_of_classes, weights_of_yes
from ris_diag.samples import roles, samples
from ris_diag.watched import ODD_BATCH, dissected, models_place, place_of_loss, watch

SMALLEST = 32  # entries from which a range is no chance


@dataclass(frozen=True, kw_only=True)
class Misuse:
    """What is wrong with a call: its sign, what was seen, what to do, another place if known."""

    sign: str
    seen: str
    next_step: str
    place: str = ""


@check(
    "G011",
    "loss-gets-what-it-expects",
    title="PyTorch's losses get what they expect",
    what="Watches the calls of cross_entropy, nll_loss, the binary cross entropies, kl_div and the "
    "distances in three steps of the real loop or script: raw outputs, probabilities or their "
    "logarithm, number of classes, class weights and which way round they are, ignored labels, "
    "smoothing, range of the labels, shapes that broadcast; and the dtype of the loss.",
    why="A softmax in front of cross_entropy flattens the gradient, [B, 1] beside [B] compares "
    "everything with everything: both have a gradient, and a loss that falls.",
    sources=("B2",),
    signs=(
        "normalised-outputs",
        "unnormalised-outputs",
        "loss-kind-odd",
        "loss-argument-odd",
        "class-weights-upside-down",
        "shapes-broadcast",
        "loss-in-half",
    ),
    needs=("run",),
    thresholds=(
        Threshold(
            name="max_off_one",
            value=1e-3,
            unit="distance of a sum of probabilities from 1",
            why="float32 rounds at 1e-6, half precision at 1e-3",
        ),
        Threshold(
            name="max_switched_off",
            value=0.5,
            unit="share of the labels whose class weight is below a thousandth of the largest",
            why="a background class may be switched off, most of the labels may not",
        ),
        Threshold(
            name="max_ignored",
            value=0.98,
            unit="share of the labels that are ignored",
            why="masked language models ignore 85 %",
        ),
        Threshold(name="max_smoothing", value=0.5, unit="label_smoothing", why="0.1 is usual"),
    ),
)
def loss_gets_what_it_expects(context: Context) -> None:
    seen = dissected(context.subject)
    found: dict[tuple[str, str], tuple[Misuse, str]] = {}
    for called in seen.compared:
        for rule in RULES.get(called.name, ()):
            misuse = rule(called, seen, context)
            if misuse is not None:
                place = misuse.place or called.place or place_of_loss(context.subject)
                found.setdefault((misuse.sign, place), (misuse, place))
    for called in seen.normalised:
        misuse = Misuse(
            sign="normalised-outputs",
            seen=f"{called.name}() of the loss is given probabilities: they are normalised twice",
            next_step="give the loss the raw outputs: remove the softmax or sigmoid of the network",
        )
        place = called.place or place_of_loss(context.subject)
        if not any(sign == misuse.sign for sign, _ in found):
            found[misuse.sign, place] = (misuse, place)
    context.measure(losses=sorted({called.name for called in seen.losses}))
    for misuse, place in found.values():
        context.problem(misuse.seen, sign=misuse.sign, place=place, next_step=misuse.next_step)
    backward = watch(context.subject).trace.backward
    half = [b for b in backward if b.value.dtype in (torch.float16, torch.bfloat16)]
    if half:
        context.problem(
            f"{len(half)} of {len(backward)} losses are {half[0].value.dtype}, which keeps two to "
            "three digits (limit float32)",
            sign="loss-in-half",
            place=half[0].place or place_of_loss(context.subject),
            next_step="cast prediction and label to float32 in front of the loss: .float()",
        )


def _operands(called: Called) -> tuple[Tensor, Tensor] | None:
    """(prediction, label): the operand with a gradient and the one without."""
    first = called.get("input", 0)
    second = called.get("other" if called.name not in ("kl_div",) else "target", 1)
    second = called.args.get("target", second)
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return None
    if not first.requires_grad and second.requires_grad:
        first, second = second, first
    return first, second


def _source(context: Context, seen: Anatomy, prediction: Tensor) -> tuple[str, str]:
    """(" of softmax() in net.4", its place and that of the model) of what made the prediction."""
    maker = seen.maker(prediction)
    if maker is None:
        return "", ""
    inside = f" in {maker.module}" if maker.module else ""
    places = (maker.place, models_place(context) if inside else "")
    return f": the output of {maker.name}(){inside}", ", ".join(filter(None, places))


def _softmax_twice(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or pair[0].ndim < 2:
        return None
    prediction = pair[0]
    maker = seen.maker(prediction)
    sums = are_probabilities(prediction, 1, context.limit("max_off_one"))
    if not sums and not (maker is not None and maker.name in ("softmax", "sigmoid")):
        return None
    source, place = _source(context, seen, prediction)
    return Misuse(
        sign="normalised-outputs",
        seen="cross_entropy gets probabilities (between 0 and 1"
        + (", each row sums to 1" if sums else "")
        + f"){source}; it applies log_softmax itself",
        place=place,
        next_step="give it the raw outputs: remove the softmax or sigmoid in front of the loss",
    )


def _sigmoid_twice(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None:
        return None
    values = pair[0].detach()
    maker = seen.maker(pair[0])
    known = maker is not None and maker.name in ("sigmoid", "softmax")
    inside = values.numel() >= SMALLEST and bool(((values > 0) & (values < 1)).all())
    if not known and not (inside and float(values.float().std()) > 0.01):
        return None
    source, place = _source(context, seen, pair[0])
    return Misuse(
        sign="normalised-outputs",
        seen=f"{called.name} gets values between 0 and 1 alone{source}; it applies the sigmoid "
        "itself",
        place=place,
        next_step="give it the raw outputs: remove the sigmoid in front of the loss",
    )


def _no_log_softmax(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or pair[0].ndim < 2:
        return None
    values = pair[0].detach().double()
    dim = 1 if called.name == "nll_loss" else -1
    total = values.logsumexp(dim)
    finite = total[torch.isfinite(total)]
    off = float(finite.abs().max()) if len(finite) else 0.0
    if off <= context.limit("max_off_one") * 10:
        return None
    kind = "probabilities" if are_probabilities(values, dim, 1e-3) else "raw outputs"
    return Misuse(
        sign="unnormalised-outputs",
        seen=f"{called.name} gets {kind}, not the logarithm of probabilities: exp() of a row sums "
        f"to e^{float(total.flatten()[0]):.3g} (limit 1)",
        next_step="put log_softmax in front of it, or use cross_entropy with the raw outputs"
        if called.name == "nll_loss"
        else "put log_softmax in front of it; kl_div(log of the prediction, target)",
    )


def _one_class(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or pair[0].ndim < 2 or pair[0].shape[1] != 1:
        return None
    return Misuse(
        sign="loss-kind-odd",
        seen=f"{called.name} over one class is 0 whatever the prediction {list(pair[0].shape)}",
        next_step="use binary_cross_entropy_with_logits for one output, or give it two",
    )


def _labels_in_range(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or not pair[1].numel():
        return None
    low, high = float(pair[1].min()), float(pair[1].max())
    if low >= 0 and high <= 1:
        return None
    return Misuse(
        sign="loss-kind-odd",
        seen=f"the labels of {called.name} lie in [{low:g}, {high:g}], it is made for [0, 1]",
        next_step="map the labels to 0 and 1, or use a loss for such labels",
    )


def _class_weights(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    weight = called.get("weight", 2)
    pair = _operands(called)
    if not isinstance(weight, Tensor) or pair is None or pair[1].is_floating_point():
        return None
    labels = pair[1][(pair[1] >= 0) & (pair[1] < len(weight))]
    light = weight < 1e-3 * weight.max()
    off = float(light[labels].double().mean()) if labels.numel() else 0.0
    # A class of plain classification is there to be learnt; a background of pixels need not.
    limit = 0.0 if _plain(pair[0]) else context.limit("max_switched_off")
    if off <= limit:
        return None
    classes = light.nonzero().flatten().tolist()
    return Misuse(
        sign="loss-argument-odd",
        seen=f"the class weights of {called.name} switch off {off:.0%} of the labels (classes "
        f"{', '.join(map(str, classes[:5]))}; limit {limit:.0%})",
        next_step="weigh a class by the inverse of its share, not by the share or by zero",
    )


def _weights_upside_down(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None:
        return None
    binary = called.name == "binary_cross_entropy_with_logits"
    weight = called.get("pos_weight", 5) if binary else called.get("weight", 2)
    if not isinstance(weight, Tensor) or binary != pair[1].is_floating_point():
        return None
    same = [_operands(c) for c in seen.losses if (c.name, c.place) == (called.name, called.place)]
    labels = [other[1] for other in same if other is not None]
    labels += [y for y in _stored_labels(context) if _of_one_kind(y, labels[0])]
    ask = weights_of_yes if binary else weights_of_classes
    asked = [ask(weight, y) for y in labels[len(same) :] or [_together(labels)]]
    if asked[0] is None:
        return None
    (rare, frequent), (light, heavy) = asked[0].counts, asked[0].weights
    return Misuse(
        sign="class-weights-upside-down",
        seen=f"{called.name} weighs {asked[0].rare}, of {rare} labels, by {light:.3g} and "
        f"{asked[0].frequent}, of {frequent}, by {heavy:.3g}: what is rare counts even less "
        "(limit: weights don't grow with the number of labels)",
        next_step="turn the quotient round: pos_weight is the number of no over that of yes, the "
        "weight of a class the inverse of its share",
    )


def _stored_labels(context: Context) -> list[Tensor]:
    """Labels of some hundred samples; none of a script."""
    subject = context.subject
    if not (subject.case.offers("model") and subject.case.offers("batch")):
        return []
    return list(samples(subject, "train").of(roles(subject).labels).values())


def _of_one_kind(one: Tensor, other: Tensor) -> bool:
    return one.shape[1:] == other.shape[1:] and one.is_floating_point() == other.is_floating_point()


def _together(labels: list[Tensor]) -> Tensor:
    """Those of several calls: outputs last, as in the first of them."""
    first = labels[0]
    fitting = [y for y in labels if y.shape[1:] == first.shape[1:]]
    return torch.cat(fitting) if first.ndim else torch.stack(fitting)


def _ignored(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or pair[1].is_floating_point() or not pair[1].numel():
        return None
    index = called.get("ignore_index", 4, -100)
    share = float((pair[1] == index).double().mean())
    # A label of plain classification is never padding.
    valid = _plain(pair[0]) and index >= 0
    if share <= (0.0 if valid else context.limit("max_ignored")):
        return None
    return Misuse(
        sign="loss-argument-odd",
        seen=f"{called.name} ignores {share:.0%} of the labels (ignore_index={index})",
        next_step="ignore_index must be a number that no label has: -100",
    )


def _plain(prediction: Tensor) -> bool:
    """Whether there is one prediction a sample, and not one a pixel or a symbol."""
    return prediction.ndim == 2 and len(prediction) == ODD_BATCH


def _shares_of_labels(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or not pair[1].is_floating_point() or pair[1].ndim < 2:
        return None
    if pair[0].shape != pair[1].shape:
        return None
    off = float((pair[1].double().sum(1) - 1).abs().max())
    if off <= context.limit("max_off_one"):
        return None
    return Misuse(
        sign="loss-kind-odd",
        seen=f"the labels of {called.name} are shares that don't sum to 1 (off by up to "
        f"{off:.3g}, limit {context.limit('max_off_one'):g}): several classes of a sample compete",
        next_step="use binary_cross_entropy_with_logits for labels of which several may hold",
    )


def _numbers_of_classes(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or id(pair[1]) not in seen.whole:
        return None
    same = [_operands(c) for c in seen.compared if (c.name, c.place) == (called.name, called.place)]
    values = torch.cat([other[1].flatten() for other in same if other is not None])
    found, counts = torch.unique(values, return_counts=True)
    classes = len(found)
    even = float(counts.min()) >= 0.3 * len(values) / classes
    if classes < 3 or not torch.equal(found, torch.arange(classes).to(found)) or not even:
        return None
    return Misuse(
        sign="loss-kind-odd",
        seen=f"{called.name} takes the distance to the numbers of {classes} classes (whole numbers "
        f"0 to {classes - 1} in equal shares): class 2 is no nearer to 1 than to 0",
        next_step="use cross_entropy, with one output for every class",
    )


def _smoothing(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    smoothing = float(called.get("label_smoothing", 7, 0.0) or 0.0)
    if smoothing < context.limit("max_smoothing"):
        return None
    return Misuse(
        sign="loss-argument-odd",
        seen=f"label_smoothing={smoothing:g} (limit {context.limit('max_smoothing'):g}) leaves "
        "little of the labels",
        next_step="0.1 is usual",
    )


def _broadcast(called: Called, seen: Anatomy, context: Context) -> Misuse | None:
    pair = _operands(called)
    if pair is None or pair[0].shape == pair[1].shape:
        return None
    prediction, label = pair
    if not prediction.ndim or not label.ndim:
        return None
    shape = broadcast_shape(list(prediction.shape), list(label.shape))
    if shape is None:
        return None
    grown = math.prod(shape) > max(prediction.numel(), label.numel())
    rows = {len(prediction), len(label)} == {max(len(prediction), len(label))}
    if not grown or not rows or prediction.ndim == label.ndim:
        return None
    return Misuse(
        sign="shapes-broadcast",
        seen=f"{called.name}: the prediction {list(prediction.shape)} and the label "
        f"{list(label.shape)} broadcast to {shape}: every prediction is compared with every "
        "label",
        next_step="give both one shape, with squeeze(-1) or unsqueeze(-1) on one of them",
    )


Rule = Callable[[Called, Anatomy, Context], Misuse | None]
_DISTANCE: tuple[Rule, ...] = (_broadcast, _numbers_of_classes)
RULES: dict[str, tuple[Rule, ...]] = {
    "cross_entropy": (
        _softmax_twice,
        _one_class,
        _class_weights,
        _weights_upside_down,
        _ignored,
        _smoothing,
        _shares_of_labels,
    ),
    "nll_loss": (_no_log_softmax, _one_class, _class_weights, _weights_upside_down, _ignored),
    "kl_div": (_no_log_softmax,),
    "binary_cross_entropy_with_logits": (_sigmoid_twice, _labels_in_range, _weights_upside_down),
    "multilabel_soft_margin_loss": (_sigmoid_twice, _labels_in_range),
    **dict.fromkeys(
        ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "sub", "subtract", "rsub"),
        _DISTANCE,
    ),
}
