"""Training and validation: apart, and alike. B4."""

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, islice

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_values import SPLITS, samples_or_none
from ris_diag.context import Context, Subject, to_device
from ris_diag.lent import Lent
from ris_diag.samples import (
    PROBED,
    first_batches,
    hashes,
    is_continuous,
    lent_of,
    not_judged,
    numbers_of,
    place_of_loader,
    place_of_samples,
    roles,
    rows_of_batch,
    samples,
    splits_apart,
)
from ris_diag.stores import store_of

log = logging.getLogger("ris_diag")
Rows = dict[str, Tensor]

MOST_REPEATED = 0.1
MOST_MULTIPLIED = 0.6  # of rows that were multiplied; what repeats more often is a small set
NO_CHANCE = 0.1
TOLD_APART, MOST_COLUMNS = 0.95, 256
FEWEST_TWINS = 2
MOST_SERVED = 8  # batches
ONE_SOURCE = "one source of samples is lent for every split, which can't be told from an overlap"


@check(
    "D008",
    "splits-are-disjoint",
    title="No sample of one split stands in another",
    what="Compares the hashes of the inputs of some hundred samples of each split, from several "
    "seeds and from the loaders, in whatever order, and what two lent DataLoaders read. Small "
    "discrete inputs meet by chance: an overlap counts where it is five times what repeats within "
    "a split. Where one feature tells nearly all samples apart, none meet by chance, and a tenth "
    "counts however many repeat: rows that were multiplied before the split. A function that "
    "doesn't look at the name of the split is judged by what it gives under other seeds: new "
    "samples every time are apart, one fixed batch for all can't be told from a task that has no "
    "other. Samples that differ in a single bit, augmented or noisy "
    "copies, are out of reach, and so is the share of a large data set that wasn't seen.",
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
    subject, lent = context.subject, lent_of(context.subject)
    apart = splits_apart(subject)
    if not apart and (lent is not None or subject.once("one batch for all", _one_batch)):
        return not_judged(context, ONE_SOURCE)
    if lent is not None and _read_together(context, lent):
        return None
    names = SPLITS if apart and lent is None else ("train", "validation")
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


def _one_batch(subject: Subject) -> bool:
    """Whether the case has the same samples for every seed."""
    first, second = (
        set(hashes(rows_of_batch(subject, subject.batch("train", PROBED, offset=offset))))
        for offset in (1, 2)
    )
    return first == second


def _read_together(context: Context, lent: Lent) -> bool:
    """Whether both loaders read the same samples of one data set; reported."""
    train, validation = store_of(lent.loader), store_of(lent.validation)
    if train is None or validation is None or not train.same_as(validation):
        return False
    wanted = set(validation.index)
    both = len(wanted.intersection(train.index))
    share = both / len(wanted)
    context.measure(read_by_both=both, of=len(wanted))
    if share <= context.limit("max_share") or not (train.keeps and validation.keeps):
        return False
    context.problem(
        f"{both} of {len(wanted)} validation samples stand in train, too ({share:.0%}, limit "
        f"{context.limit('max_share'):.0%}): both loaders read them from one "
        f"{type(train.data).__name__}",
        sign="splits-overlap",
        place=place_of_samples(context.subject, "validation"),
        next_step="split once, by sample, as torch.utils.data.random_split does, and give each "
        "loader its own part",
    )
    return True


def _compare(context: Context, one: str, other: str, seen: dict[str, list[int]]) -> None:
    first, second = set(seen[one]), set(seen[other])
    both = len(first & second)
    share = both / min(len(first), len(second))
    repeated = max(1 - len(set(seen[s])) / len(seen[s]) for s in (one, other))
    context.measure(**{f"{one}_{other}": {"overlap": share, "repeated": repeated}})
    marked = repeated <= MOST_MULTIPLIED and all(
        _told_apart(_inputs(context.subject, samples(context.subject, s).rows))
        for s in (one, other)
    )
    usual = min(5 * repeated, NO_CHANCE) if marked else 5 * repeated
    if both < FEWEST_TWINS or share <= max(context.limit("max_share"), usual):
        return
    if both <= 3 * _by_chance(context.subject, seen, len(first) * len(second)):
        not_judged(context, f"{one} and {other}: inputs of few values meet by chance")
        return
    if repeated > MOST_REPEATED and not marked:
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
        place=_place(context.subject, other, first & second),
        next_step="split once, by sample, before anything is shuffled or augmented; give each "
        "split seeds of its own",
    )


def _place(subject: Subject, split: str, both: set[int]) -> str:
    """The loader, where it alone serves what stands in both."""
    drawn = both.intersection(hashes(_inputs(subject, samples(subject, split).rows)))
    return place_of_samples(subject, split) if drawn else place_of_loader(subject)


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


def _told_apart(rows: Rows) -> bool:
    """Whether a single feature has another value in nearly every sample that is another one."""
    if not rows:
        return False
    first = {row: number for number, row in reversed([*enumerate(hashes(rows))])}
    chosen = sorted(first.values())
    columns = torch.cat(
        [numbers_of(tensor[chosen])[:, :MOST_COLUMNS] for tensor in rows.values()], 1
    )
    ordered = columns.sort(0).values
    different = 1 + (ordered[1:] != ordered[:-1]).sum(0)
    return bool((different >= TOLD_APART * len(chosen)).any())


def _hashes(subject: Subject, split: str) -> list[int]:
    """Of the inputs of a split's samples, those of one batch or epoch with their repeats."""
    found = hashes(_inputs(subject, samples(subject, split).rows))
    served: Sequence[Rows] = (first_batches(subject) or ()) if split == "train" else ()
    if split == "validation" and subject.case.loader is not None:
        served = subject.once("served validation", _served_validation)
    more = {row for rows in served for row in hashes(_inputs(subject, rows))}
    return found + list(more.difference(found))


def _inputs(subject: Subject, rows: Rows) -> Rows:
    """Those of the tensors that are inputs; all where that isn't known."""
    known = roles(subject).inputs
    return {name: t for name, t in rows.items() if not known or name in known}


def _served_validation(subject: Subject) -> list[Rows]:
    """The first batches that the loader serves for validation; none if it ignores the split."""
    loader = subject.case.loader
    if loader is None:
        return []
    found: dict[str, list[Rows]] = {}
    for split in ("train", "validation"):
        with subject.seeded("loader of a split"):
            try:
                batches = [*islice(loader(split, subject.seed), MOST_SERVED)]
            except (KeyError, ValueError, IndexError) as error:
                log.info("no loader of split %s: %s", split, error)
                return []
        found[split] = [rows_of_batch(subject, to_device(b, subject.device)) for b in batches]
    train, validation = ([hashes(rows) for rows in found[split]] for split in found)
    return [] if train == validation else found["validation"]


def _one_set(subject: Subject, one: str, other: str) -> bool:
    """Whether both splits have the same inputs in the same order and other labels or masks."""
    known = roles(subject)
    first, second = (samples(subject, split) for split in (one, other))
    if hashes(first.of(known.inputs)) != hashes(second.of(known.inputs)):
        return False
    return hashes(first.rows) != hashes(second.rows)
