"""Numbers by which tensors and samples of several processes are told apart, as plain data."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from ris_diag.case import Batch
from ris_diag.graph import tensors_in

Mark = list[float]  # norm and sum of a tensor


def mark(tensor: Tensor | None) -> Mark | None:
    """Norm and sum, by which two tensors are told apart; None for None."""
    if tensor is None:
        return None
    values = tensor.detach()
    values = values.coalesce().values() if values.is_sparse else values
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    wide = values.double()
    return [float(wide.norm()), float(wide.sum())]


def marks_of(tensors: Mapping[str, Any]) -> dict[str, Mark]:
    """Name to mark, of those that are there."""
    return {name: found for name, t in tensors.items() if (found := mark(t)) is not None}


def differing(marks: Iterable[dict[str, Any]], limit: float) -> dict[str, float]:
    """Name to the largest difference between ranks, of the norm, where it is above the limit.

    Args:
        marks: by rank, name to mark; a name that some rank lacks, or None, differs infinitely.
    """
    ranks = list(marks)
    names = dict.fromkeys(name for each in ranks for name in each)
    found = {name: _difference([each.get(name) for each in ranks]) for name in names}
    return {name: value for name, value in found.items() if value > limit}


def _difference(marks: list[Any]) -> float:
    if all(mark is None for mark in marks):
        return 0.0
    if any(mark is None for mark in marks):
        return math.inf
    if any(isinstance(number, str) for mark in marks for number in mark):  # NaN, infinities
        return 0.0 if all(mark == marks[0] for mark in marks) else math.inf
    scale = max(mark[0] for mark in marks)
    spread = max(max(mark[k] for mark in marks) - min(mark[k] for mark in marks) for k in range(2))
    return spread / scale if scale else 0.0


def sample_rows(batch: Batch) -> dict[int, Tensor]:
    """The tensors of a batch with one row a sample, by their number in it."""
    tensors = [t for t in tensors_in(batch) if t.ndim and not t.is_sparse]
    counts = Counter(len(t) for t in tensors)
    count = counts.most_common(1)[0][0] if counts else 0
    return {k: t for k, t in enumerate(tensors) if len(t) == count}


def digests(batch: Batch) -> list[int]:
    """A number for each sample, the same for equal values in every process."""
    rows = [t.detach().resolve_conj().cpu().contiguous() for t in sample_rows(batch).values()]
    if not rows:
        return []
    flat = [t.reshape(len(t), -1).view(torch.uint8).numpy() if t.numel() else None for t in rows]
    whole = [part for part in flat if part is not None]
    return [
        int.from_bytes(
            blake2b(b"".join(part[row].tobytes() for part in whole), digest_size=6).digest()
        )
        for row in range(len(rows[0]))
    ]
