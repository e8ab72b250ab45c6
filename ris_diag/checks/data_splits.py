"""Training and validation: apart, and alike. B4."""

from itertools import combinations

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_labels import class_numbers, samples_are_mixed
from ris_diag.context import Context, Subject
from ris_diag.measure import listed
from ris_diag.samples import (
    first_batches,
    hashes,
    lent_of,
    not_judged,
    numbers_of,
    place_of_samples,
    roles,
    samples,
    splits_apart,
)

SEED_LOOKS = 3
MOST_REPEATED = 0.1
FEWEST_TWINS = 2
FEWEST = 32
ERRORS = 8.0
ONE_SOURCE = "one source of samples is lent for every split, which can't be told from an overlap"


@check(
    "D008",
    "splits-are-disjoint",
    title="No sample of one split stands in another",
    what="Compares the hashes of the inputs of some hundred samples of each split, from several "
    "seeds and from the loader, in whatever order. Small discrete inputs meet by chance: an "
    "overlap counts where it is five times what repeats within a split. Samples that differ in a "
    "single bit, augmented or noisy copies, are out of reach; so are splits that one function "
    "gives without looking at their name, and the share of a large data set that wasn't seen.",
    why="A validation that holds training samples measures memory, and picks the network that has "
    "most of it.",
    sources=("B4",),
    signs=("splits-overlap",),
    needs=("batch",),
    thresholds=(
        Threshold(
            name="max_share",
            value=0.01,
            unit="of a split's samples in another one",
            why="data sets from the wild hold a few samples twice",
        ),
    ),
)
def splits_are_disjoint(context: Context) -> None:
    subject = context.subject
    if not splits_apart(subject):
        return not_judged(context, ONE_SOURCE)
    names = ("train", "validation") if lent_of(subject) is not None else SPLITS
    seen = {}
    for split in names:
        try:
            seen[split] = _hashes(subject, split)
        except (KeyError, ValueError, IndexError) as error:
            if split != "test":
                raise
            context.say(f"no test split: {type(error).__name__}: {error}")
    context.measure(**{f"{split}_samples": len(set(found)) for split, found in seen.items()})
    if not all(seen.values()):
        return not_judged(context, "no tensor with one row a sample")
    for one, other in combinations(seen, 2):
        _compare(context, one, other, seen)
    return None


SPLITS = ("train", "validation", "test")


def _compare(context: Context, one: str, other: str, seen: dict[str, list[int]]) -> None:
    first, second = set(seen[one]), set(seen[other])
    both = len(first & second)
    share = both / min(len(first), len(second))
    repeated = max(1 - len(set(seen[s])) / len(seen[s]) for s in (one, other))
    context.measure(**{f"{one}_{other}": {"overlap": share, "repeated": repeated}})
    if both < FEWEST_TWINS or share <= max(context.limit("max_share"), 5 * repeated):
        return
    if repeated > MOST_REPEATED:
        not_judged(context, f"{one} and {other}: {repeated:.0%} of the inputs repeat anyhow")
        return
    if _one_set(context.subject, one, other):
        not_judged(context, f"{one} and {other} are one data set in one order, masked by split")
        return
    context.problem(
        f"{both} of {len(second)} {other} samples stand in {one}, too ({share:.0%}, limit "
        f"{context.limit('max_share'):.0%}; {len(first)} {one} samples seen)",
        sign="splits-overlap",
        place=place_of_samples(context.subject, other),
        next_step="split once, by sample, before anything is shuffled or augmented; give each "
        "split seeds of its own",
    )


def _hashes(subject: Subject, split: str) -> list[int]:
    """Of the inputs of a split's samples, those of one batch or epoch with their repeats."""
    known = roles(subject)

    def inputs(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: t for name, t in rows.items() if not known.inputs or name in known.inputs}

    found = hashes(inputs(samples(subject, split).rows))
    served = (first_batches(subject) or ()) if split == "train" else ()
    more = {row for rows in served for row in hashes(inputs(rows))}
    return found + list(more.difference(found))


def _one_set(subject: Subject, one: str, other: str) -> bool:
    """Whether both splits have the same inputs in the same order and other labels or masks."""
    known = roles(subject)
    first, second = (samples(subject, split) for split in (one, other))
    if hashes(first.of(known.inputs)) != hashes(second.of(known.inputs)):
        return False
    return hashes(first.rows) != hashes(second.rows)


@check(
    "D009",
    "splits-are-alike",
    title="Training and validation have the same location and scale",
    what="Compares mean and standard deviation of every feature of the inputs, of real labels, and "
    "the shares of classes between training and validation: of most features, or of one by "
    "decades. A difference counts from eight standard errors, below 1 in 10^14 by chance.",
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
    differences = {}
    for name in (*known.inputs, *labels):
        one, other = train.rows.get(name), validation.rows.get(name)
        if one is None or other is None or one.shape[1:] != other.shape[1:]:
            continue
        text = _differs(context, name, one, other)
        if text:
            differences[name] = text
    if differences:
        context.problem(
            "training and validation differ: "
            + "; ".join(f"{name} {text}" for name, text in differences.items()),
            sign="splits-differ",
            place=place_of_samples(subject, "validation"),
            next_step="apply one preprocessing to all splits, with the training set's numbers",
        )
    return None


def _differs(context: Context, name: str, one: Tensor, other: Tensor) -> str:
    classes = [class_numbers(values) for values in (one, other)]
    if classes[0] is not None and classes[1] is not None and name in roles(context.subject).labels:
        return _class_shares(context, classes[0], classes[1])
    a, b = numbers_of(one), numbers_of(other)
    if not (a.isfinite().all() and b.isfinite().all()):
        return ""
    deviations = torch.stack([a.std(0), b.std(0)])
    varies = (deviations > 1e-9 * torch.stack([a.abs().amax(0), b.abs().amax(0)])).all(0)
    if not varies.any():
        return ""
    low, high = deviations[:, varies].min(0).values, deviations[:, varies].max(0).values
    fewest = min(len(a), len(b))
    ratio = high / low
    shift = (a.mean(0) - b.mean(0))[varies].abs() / high
    # Standard errors of log s and of the mean, from four moments: heavy tails have large ones.
    errors = _errors(a[:, varies], fewest) + _errors(b[:, varies], fewest)
    sure = ratio.log() > ERRORS * errors.sqrt()
    surely = shift > ERRORS * (2 / fewest) ** 0.5
    ratio, shift = torch.where(sure, ratio, 1.0), torch.where(surely, shift, 0.0)
    usual, moved = float(ratio.median()), float(shift.median())
    context.measure(**{name: {"ratio": usual, "shift": moved}})
    most = context.limit("max_feature")
    far = ((ratio > most) | ((a.mean(0) - b.mean(0))[varies].abs() / low > most) & surely).nonzero()
    if usual > context.limit("max_ratio"):
        means = " against ".join(f"{float(d[varies].median()):.3g}" for d in deviations)
        return f"by a factor of {usual:.3g} in spread, {means} (limit {ratio_text(context)})"
    if moved > context.limit("max_shift"):
        means = " against ".join(f"{float(v.mean(0)[varies].median()):.3g}" for v in (a, b))
        return (
            f"by {moved:.2g} standard deviations in location, {means} (limit "
            f"{context.limit('max_shift'):g})"
        )
    if len(far):
        shown = listed([str(int(varies.nonzero()[int(f[0]), 0])) for f in far])
        return f"by more than {most:g} times in feature {shown} (limit {most:g})"
    return ""


def ratio_text(context: Context) -> str:
    """The limit of the ratio."""
    return f"{context.limit('max_ratio'):g}"


def _errors(values: Tensor, count: int) -> Tensor:
    """Variance of log s of each column, from its kurtosis."""
    centred = values - values.mean(0)
    second = centred.square().mean(0)
    kurtosis = centred.pow(4).mean(0) / second.square()
    return (kurtosis - 1).clamp(min=0.1) / (4 * count)


def _class_shares(context: Context, one: Tensor, other: Tensor) -> str:
    least = min(int(one.min()), int(other.min()))
    most = max(int(one.max()), int(other.max())) - least + 1
    if most > min(len(one), len(other)) / 4:
        return ""
    shares = [torch.bincount(v - least, minlength=most).double() / len(v) for v in (one, other)]
    variation = float((shares[0] - shares[1]).abs().sum() / 2)
    by_chance = (most / min(len(one), len(other))) ** 0.5
    limit = context.limit("max_classes")
    if variation <= limit + by_chance / 2:
        return ""
    return f"by {variation:.0%} of their classes' shares (limit {limit:.0%})"
