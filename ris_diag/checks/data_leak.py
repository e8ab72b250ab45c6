"""The label doesn't stand in the input. B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.samples import not_judged, numbers_of, place_of_samples, roles, samples

FEWEST = 32
MOST_COLUMNS = 64
EXACT = 1 - 1e-9


@check(
    "D007",
    "label-not-in-input",
    title="The label doesn't stand in the input",
    what="Compares every number of the inputs with every label of a few numbers: copies, also "
    "scaled and shifted, a one-hot class, and near copies that no other feature comes close to. "
    "Labels that are the whole input (autoencoders), sequences of tokens, and inputs of a single "
    "feature are left alone.",
    why="With the answer among the features every result is excellent, until the day on which the "
    "answer is not known beforehand.",
    sources=("B4",),
    signs=("label-in-input",),
    needs=("model", "batch"),
    thresholds=(
        Threshold(
            name="max_correlation",
            value=0.999,
            unit="between a feature and a label",
            why="measured features of a label leave more noise than that",
        ),
        Threshold(
            name="min_next",
            value=0.95,
            unit="between the next feature and the label",
            why="in smooth series the neighbours come as close; a leaked label stands alone",
        ),
    ),
)
def label_not_in_input(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    if known.unknown or known.unlabelled:
        return not_judged(context, known.unknown or known.unlabelled)
    found = samples(subject, "train")
    if found.count < FEWEST:
        return not_judged(context, f"{found.count} samples")
    inputs = {n: t for n, t in found.of(known.inputs).items() if len(t) == found.count}
    features_of = {name: numbers_of(values) for name, values in inputs.items()}
    judged = False
    most, following = context.limit("max_correlation"), context.limit("min_next")
    for label in found.of(known.labels):
        forms = _forms(found.rows[label])
        for name, values in features_of.items():
            leaks = [
                _leak(columns, values, most, following)
                for columns in forms
                # A label as long as the input is the input, changed.
                if columns.shape[1] < values.shape[1] and values.isfinite().all()
            ]
            judged = judged or bool(leaks)
            leak = next(filter(None, leaks), "")
            if leak:
                context.measure(**{f"{label} in {name}": leak})
                context.problem(
                    f"{label} stands in {name}: {leak} (limit {most:g})",
                    sign="label-in-input",
                    place=place_of_samples(subject),
                    next_step="take these features out of the input",
                )
    if not judged:
        not_judged(context, "no label of a few numbers beside an input of more features")
    return None


def _forms(label: Tensor) -> list[Tensor]:
    """Numbers [B, C]: of a class its number and a column for each class; none for token labels."""
    numbers = numbers_of(label)
    if not numbers.isfinite().all():
        return []
    if label.is_floating_point():
        return [numbers] if numbers.shape[1] <= MOST_COLUMNS else []
    values, classes = torch.unique(numbers[:, 0], return_inverse=True)
    if numbers.shape[1] > 1 or len(values) > MOST_COLUMNS:
        return []
    one_hot = torch.nn.functional.one_hot(classes, len(values)).double()
    return [numbers, one_hot] if len(values) > 2 else [numbers]


def _leak(columns: Tensor, values: Tensor, most: float, following: float) -> str:
    """Where the label stands among the features, in words; "" if nowhere."""
    varying = columns[:, (columns != columns[:1]).any(0)]
    if not varying.shape[1]:
        return ""
    correlations = (_unit(varying).T @ _unit(values)).abs()
    top, place = correlations.max(1)
    if bool((top > EXACT).all()) and len(torch.unique(place)) == len(top):
        return (
            f"feature {listed([str(p) for p in place.tolist()])} of {values.shape[1]} is the "
            "label, up to scale and shift, correlation 1"
        )
    if (
        len(top) > 1
        or len(torch.unique(columns)) <= 2
        or float(top[0]) <= most
        or values.shape[1] < 3
    ):
        return ""
    second = float(correlations[0].topk(2).values[1])
    if second >= following:
        return ""
    return (
        f"feature {int(place[0])} of {values.shape[1]} has a correlation of {float(top[0]):.6f} "
        f"with the label, the next has {second:.2f}"
    )


def _unit(values: Tensor) -> Tensor:
    centred = values - values.mean(0)
    norm: Tensor = centred.norm(dim=0)
    return torch.where(norm > 1e-12 * values.abs().amax(0).clamp(min=1e-30), centred / norm, 0.0)
