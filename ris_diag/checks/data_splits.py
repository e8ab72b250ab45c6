"""Training and validation: apart, and alike. B4."""

from collections import Counter
from itertools import combinations

from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_values import SPLITS, samples_or_none
from ris_diag.context import Context, Subject
from ris_diag.samples import (
    first_batches,
    hashes,
    is_continuous,
    lent_of,
    not_judged,
    place_of_samples,
    roles,
    samples,
    splits_apart,
)

SEED_LOOKS = 3
MOST_REPEATED = 0.1
FEWEST_TWINS = 2
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
        if samples_or_none(context, split) is not None:
            seen[split] = _hashes(subject, split)
    context.measure(**{f"{split}_samples": len(set(found)) for split, found in seen.items()})
    if not all(seen.values()):
        return not_judged(context, "no tensor with one row a sample")
    for one, other in combinations(seen, 2):
        _compare(context, one, other, seen)
    return None


def _compare(context: Context, one: str, other: str, seen: dict[str, list[int]]) -> None:
    first, second = set(seen[one]), set(seen[other])
    both = len(first & second)
    share = both / min(len(first), len(second))
    repeated = max(1 - len(set(seen[s])) / len(seen[s]) for s in (one, other))
    context.measure(**{f"{one}_{other}": {"overlap": share, "repeated": repeated}})
    if both < FEWEST_TWINS or share <= max(context.limit("max_share"), 5 * repeated):
        return
    if both <= 3 * _by_chance(context.subject, seen, len(first) * len(second)):
        not_judged(context, f"{one} and {other}: inputs of few values meet by chance")
        return
    if repeated > MOST_REPEATED:
        not_judged(context, f"{one} and {other}: {repeated:.0%} of the inputs repeat anyhow")
        return
    if "train" not in (one, other) and seen[one] == seen[other]:
        not_judged(context, f"{one} and {other} are served by one loader")
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


def _by_chance(subject: Subject, seen: dict[str, list[int]], pairs: int) -> float:
    """How many inputs of so many pairs are equal by chance, at most; 0 for real numbers.

    By the pairs within a split that are equal, with a margin of three standard errors.
    """
    rows = samples(subject, "train").rows
    known = roles(subject).inputs or tuple(rows)
    if any(is_continuous(rows[name]) for name in known if name in rows):
        return 0.0
    equal = sum(n * (n - 1) / 2 for found in seen.values() for n in Counter(found).values())
    tried = sum(len(found) * (len(found) - 1) / 2 for found in seen.values())
    return float((equal + 3 * equal**0.5 + 3) / max(tried, 1) * pairs)


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
