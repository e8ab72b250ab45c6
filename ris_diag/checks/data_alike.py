"""Training and validation are alike in location and scale. B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_labels import class_numbers, samples_are_mixed
from ris_diag.checks.data_splits import ONE_SOURCE
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.origins import are_tokens
from ris_diag.samples import (
    lent_of,
    not_judged,
    numbers_of,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
    splits_apart,
)

FEWEST = 32
PER_TOKEN = 20  # places in the sequences for each token of the vocabulary
ERRORS = 8.0
MORE = (1, 2, 3)
Rows = dict[str, Tensor]


@check(
    "D009",
    "splits-are-alike",
    title="Training and validation have the same location and scale",
    what="Compares mean and standard deviation of every feature of the inputs, of real labels, and "
    "the shares of classes and of tokens between training and validation: of most features, or of "
    "one by decades; of tokens where others are frequent in much the same shares, as of two "
    "vocabularies. A difference counts from eight standard errors, below 1 in 10^14 by chance, "
    "and only if three more batches of each split show it and those of one split don't differ "
    "so.",
    why="A normalisation that one split alone went through makes validation another task.",
    sources=("B4",),
    signs=("splits-differ",),
    needs=("model", "batch"),
    thresholds=(
        Threshold(
            name="max_ratio",
            value=3.0,
            unit="between the standard deviations of most features",
            why="augmentation changes them by a half; a missing normalisation by 3.5 to 70",
        ),
        Threshold(
            name="max_shift",
            value=0.7,
            unit="of the larger standard deviation, of most features",
            why="other seasons and sites are apart by less",
        ),
        Threshold(
            name="max_feature",
            value=30.0,
            unit="ratio, or shift in standard deviations, of a single feature",
            why="one feature may be heavy-tailed or drift; a unit that was changed is decades off",
        ),
        Threshold(
            name="max_tokens",
            value=0.15,
            unit="total variation between the shares of tokens, three times that of sorted shares",
            why="one vocabulary gives 2 to 5 % in some hundred sentences",
        ),
        Threshold(
            name="max_classes",
            value=0.6,
            unit="total variation between the shares of classes",
            why="a sampler that balances two classes moves a half at most",
        ),
    ),
)
def splits_are_alike(context: Context) -> None:
    subject, known = context.subject, roles(context.subject)
    if known.unknown:
        return not_judged(context, known.unknown)
    if not splits_apart(subject):
        return not_judged(context, ONE_SOURCE)
    train, validation = samples(subject, "train"), samples(subject, "validation")
    if min(train.count, validation.count) < FEWEST:
        return not_judged(context, f"{train.count} and {validation.count} samples")
    labels = [n for n in known.labels if n in train.rows and n in validation.rows]
    for split, found in (("train", train), ("validation", validation)):
        if not all(samples_are_mixed(subject, split, found.rows[name]) for name in labels):
            return not_judged(context, f"{split} samples come in the order of their classes")
    differences = _differences(context, train.rows, validation.rows)
    if differences and lent_of(subject) is None:
        differences = _lasting(context, differences, min(train.count, validation.count))
    context.measure(samples=[train.count, validation.count], differences=differences)
    if differences:
        context.problem(
            "training and validation differ: "
            + "; ".join(f"{name} {text}" for name, text in differences.items()),
            sign="splits-differ",
            place=place_of_samples(subject, "validation"),
            next_step="apply one preprocessing to all splits, with the training set's numbers",
        )
    return None


def _lasting(context: Context, differences: dict[str, str], count: int) -> dict[str, str]:
    """Those that other batches of the splits show as well, and batches of one split don't."""
    subject = context.subject
    first = {split: samples(subject, split).rows for split in ("train", "validation")}
    for offset in MORE:
        more = {
            split: rows_of_batch(subject, subject.batch(split, count, offset=offset))
            for split in first
        }
        again = _differences(context, more["train"], more["validation"])
        within = [_differences(context, first[split], more[split]) for split in first]
        differences = {
            name: text
            for name, text in differences.items()
            if name in again and not any(name in found for found in within)
        }
    return differences


def _differences(context: Context, one: Rows, other: Rows) -> dict[str, str]:
    """What differs between samples of two sources, in words, by the name of the tensor."""
    known = roles(context.subject)
    found = {}
    for name in (*known.inputs, *known.labels):
        pair = [rows[name] for rows in (one, other) if name in rows]
        if len(pair) < 2 or pair[0].shape[1:] != pair[1].shape[1:] or min(map(len, pair)) < FEWEST:
            continue
        classes = [c for c in map(class_numbers, pair) if c is not None]
        if len(classes) == 2 and name in known.labels:
            found[name] = _class_shares(context, *classes)
        else:
            found[name] = (name in known.inputs and _token_shares(context, *pair)) or _moments(
                context, *map(numbers_of, pair)
            )
    return {name: text for name, text in found.items() if text}


def _moments(context: Context, a: Tensor, b: Tensor) -> str:
    if not (a.isfinite().all() and b.isfinite().all()):
        return ""
    deviations = torch.stack([a.std(0), b.std(0)])
    varies = (deviations > 1e-9 * torch.stack([a.abs().amax(0), b.abs().amax(0)])).all(0)
    numbers = varies.nonzero()[:, 0]
    if not len(numbers):
        return ""
    a, b, deviations = a[:, numbers], b[:, numbers], deviations[:, numbers]
    low, high = deviations.min(0).values, deviations.max(0).values
    distance = (a.mean(0) - b.mean(0)).abs()
    sure = (high / low).log() > ERRORS * (_variance(a) + _variance(b)).sqrt()
    surely = distance > ERRORS * high * (1 / len(a) + 1 / len(b)) ** 0.5
    ratio = torch.where(sure, high / low, 1.0)
    shift = torch.where(surely, distance / high, 0.0)
    usual, moved = float(ratio.median()), float(shift.median())
    limits = {name: context.limit(name) for name in ("max_ratio", "max_shift", "max_feature")}
    if usual > limits["max_ratio"] and _quartiles_differ(a, b, limits["max_ratio"]):
        shown = " against ".join(f"{float(d.median()):.3g}" for d in deviations)
        return f"by a factor of {usual:.3g} in spread, {shown} (limit {limits['max_ratio']:g})"
    if moved > limits["max_shift"]:
        shown = " against ".join(f"{float(v.mean(0).median()):.3g}" for v in (a, b))
        return (
            f"by {moved:.2g} standard deviations in location, {shown} (limit "
            f"{limits['max_shift']:g})"
        )
    far = torch.maximum(ratio, torch.where(surely, distance / low, 0.0)) > limits["max_feature"]
    if far.any():
        far[far.clone()] = _quartiles(a[:, far], b[:, far]) > limits["max_feature"]
    if far.any():
        shown = listed([str(int(number)) for number in numbers[far]])
        return f"by more than {limits['max_feature']:g} times in feature {shown}"
    return ""


def _quartiles_differ(a: Tensor, b: Tensor, limit: float) -> bool:
    """Whether it isn't a few outliers that make the spreads differ."""
    return float(_quartiles(a, b).median()) > limit


def _quartiles(a: Tensor, b: Tensor) -> Tensor:
    """Ratio of the distances between quartiles, or of their shift to the smaller; by column."""
    share = torch.tensor([0.25, 0.5, 0.75], dtype=a.dtype, device=a.device)
    (one, middle, three), (first, second, third) = a.quantile(share, 0), b.quantile(share, 0)
    widths = torch.stack([three - one, third - first])
    low, high = widths.min(0).values, widths.max(0).values
    ratio = torch.maximum(high, (middle - second).abs()) / low
    return torch.where(low > 0, ratio, torch.inf)  # sparse columns have no quartiles


def _variance(values: Tensor) -> Tensor:
    """Of the logarithm of each column's standard deviation, from its kurtosis."""
    centred = values - values.mean(0)
    kurtosis = centred.pow(4).mean(0) / centred.square().mean(0).square()
    return (kurtosis - 1).clamp(min=0.1) / (4 * len(values))


def _token_shares(context: Context, one: Tensor, other: Tensor) -> str:
    """Whether tokens are numbered anew: as many are as frequent, and others are."""
    if not (are_tokens(one) and are_tokens(other)):
        return ""
    least = min(int(one.min()), int(other.min()))
    most = max(int(one.max()), int(other.max())) - least + 1
    if most > min(one.numel(), other.numel()) / PER_TOKEN:
        return ""
    counts = [torch.bincount(t.long().flatten() - least, minlength=most) for t in (one, other)]
    shares = torch.stack([c.double() / c.sum() for c in counts])
    apart, sorted_apart = (
        float((s[0] - s[1]).abs().sum() / 2) for s in (shares, shares.sort(1).values)
    )
    limit = context.limit("max_tokens")
    if apart <= limit or sorted_apart > apart / 3:
        return ""
    token = int((shares[0] - shares[1]).abs().argmax())
    return (
        f"in which tokens are frequent: {apart:.0%} of them would have to be others, and "
        f"{sorted_apart:.0%} if tokens were numbered anew (limit {limit:.0%}); token "
        f"{token + least} makes {float(shares[0, token]):.1%} of the one and "
        f"{float(shares[1, token]):.1%} of the other: each split may have a vocabulary of its own"
    )


def _class_shares(context: Context, one: Tensor, other: Tensor) -> str:
    least = min(int(one.min()), int(other.min()))
    most = max(int(one.max()), int(other.max())) - least + 1
    if most > min(len(one), len(other)) / 4:
        return ""
    shares = torch.stack(
        [torch.bincount(v - least, minlength=most).double() / len(v) for v in (one, other)]
    )
    if float(shares.max()) > 0.98 or bool(((shares == 0).sum(0) == 1).any()):
        return ""  # D004 says more about that
    variation = float((shares[0] - shares[1]).abs().sum() / 2)
    by_chance = (most / min(len(one), len(other))) ** 0.5
    limit = context.limit("max_classes")
    if variation <= limit + by_chance / 2:
        return ""
    return f"by {variation:.0%} of their classes' shares (limit {limit:.0%})"
