"""Every sample that is stored, not some of them: finite, and in one split alone. B4."""

from hashlib import blake2b

import torch

from ris_diag.case import Batch
from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.scenes import Offenders, named_tensors, pieces, splits


@check(
    "D018",
    "stored-samples-are-finite",
    title="No sample that is stored holds NaN or infinity",
    what="Reads all samples of training, validation and test, piece by piece.",
    why="One file of a hundred was written while a disk was full; it is met in the third epoch, "
    "and the loss is NaN from then on.",
    sources=("B4",),
    signs=("nan-in-data",),
    needs=("stored",),
    thresholds=(
        Threshold(name="max_samples", value=0, unit="samples", why="each of them ends a training"),
    ),
)
def stored_samples_are_finite(context: Context) -> None:
    subject = context.subject
    for split in splits(subject):
        found: dict[str, Offenders] = {}
        for name, batch in pieces(subject, split):
            for key, tensor in named_tensors(batch):
                finite = torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
                found.setdefault(key, Offenders()).add(name, ~finite)
        for key, offenders in found.items():
            if len(offenders) > context.limit("max_samples"):
                context.problem(
                    f"split {split}: NaN or infinity in {key} of {offenders}, limit 0",
                    place=offenders.first,
                    next_step="write these samples anew, and look at what was written beside them",
                )
        context.measure(**{split: max((o.looked_at for o in found.values()), default=0)})


@check(
    "D019",
    "stored-splits-are-apart",
    title="No sample that is stored stands in two splits, or twice in one",
    what="Compares all samples of training, validation and test, every bit of every array.",
    why="A handful of training samples in the validation set is met by no spot check, and it is "
    "the validation loss that chooses the model.",
    sources=("B4",),
    signs=("splits-overlap", "samples-repeated"),
    needs=("stored",),
    thresholds=(
        Threshold(name="max_shared", value=0, unit="samples", why="splits share nothing"),
        Threshold(
            name="max_repeated",
            value=0.01,
            unit="of the samples of a split",
            why="a repetition within a split is a heavier weight, and no leak",
        ),
    ),
)
def stored_splits_are_apart(context: Context) -> None:
    subject = context.subject
    first: dict[bytes, tuple[str, str]] = {}  # the content of a sample to its split and place
    shared: dict[tuple[str, str], list[str]] = {}
    for split in splits(subject):
        repeated, count = [], 0
        for name, batch in pieces(subject, split):
            for row, content in enumerate(_contents(batch)):
                count += 1
                earlier, place = first.setdefault(content, (split, f"{name}: {row}"))
                if earlier != split:
                    shared.setdefault((earlier, split), []).append(f"{place} is {name}: {row}")
                elif place != f"{name}: {row}":
                    repeated.append(f"{place} is {name}: {row}")
        context.measure(**{split: count})
        if len(repeated) > context.limit("max_repeated") * count:
            context.problem(
                f"split {split}: {len(repeated)} of {count} samples stand there twice "
                f"({listed(repeated)}), limit {context.limit('max_repeated'):.0%}",
                sign="samples-repeated",
                place=f"split {split}",
                next_step="look at what was concatenated or written twice",
            )
    for (earlier, later), pairs in shared.items():
        if len(pairs) > context.limit("max_shared"):
            context.problem(
                f"{len(pairs)} samples of split {later} stand in split {earlier}, too "
                f"({listed(pairs)}), limit 0",
                sign="splits-overlap",
                place=f"split {later}",
                next_step="split once, by scene, and write each split from seeds of its own",
            )


def _contents(batch: Batch) -> list[bytes]:
    """What each sample holds, as a hash of all its bits."""
    tensors = [t for _, t in named_tensors(batch) if t.ndim]
    hashes = [blake2b(digest_size=16) for _ in range(len(tensors[0]) if tensors else 0)]
    for tensor in tensors:
        rows = tensor.detach().cpu().resolve_conj().reshape(len(tensor), -1).contiguous()
        for own, row in zip(hashes, rows.view(torch.uint8).numpy(), strict=True):
            own.update(row.data)
    return [own.digest() for own in hashes]
