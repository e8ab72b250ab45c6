"""What stands behind a loader: the data set that it reads, and samples from all over it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from ris_diag.context import Subject, to_device
from ris_diag.samples import in_rows, lent_of, named_tensors, rows_of_batch

SPREAD = 64


@dataclass(frozen=True, kw_only=True)
class Store:
    """Samples of a data set that a loader goes through, in this order where it doesn't shuffle."""

    data: Any
    index: Sequence[int]

    def same_as(self, other: "Store") -> bool:
        """Whether both read one data set: one object, or tensors in one place."""
        if isinstance(self.data, TensorDataset) and isinstance(other.data, TensorDataset):
            first, second = self.data.tensors[0], other.data.tensors[0]
            return first.shape == second.shape and first.data_ptr() == second.data_ptr()
        return self.data is other.data

    @property
    def keeps(self) -> bool:
        """Whether the same sample is read the second time: it is stored, not drawn."""
        first, second = (self._tensors(0) for _ in range(2))
        return bool(first) and all(
            first[name].shape == second[name].shape and torch.equal(first[name], second[name])
            for name in first.keys() & second.keys()
        )

    def _tensors(self, position: int) -> dict[str, Tensor]:
        batch = torch.utils.data.default_collate([self.data[self.index[position]]])
        return in_rows(named_tensors(batch), 1)


def store_of(loader: Any) -> Store | None:
    """What a DataLoader reads; None where it draws, or picks its samples in a way of its own."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if loader.batch_size is None or not hasattr(loader.dataset, "__len__"):
        return None
    data: Any = loader.dataset
    sampler: Any = loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        index: Sequence[int] = list(sampler.indices)
    elif isinstance(sampler, RandomSampler | SequentialSampler):
        index = range(len(data))
    else:
        return None
    while isinstance(data, Subset):
        index = [data.indices[k] for k in index]
        data = data.dataset
    return Store(data=data, index=index) if len(index) else None


def spread(subject: Subject) -> list[dict[str, Tensor]]:
    """Rows from all over what the loader serves for training, in its order; measured once.

    Empty where the order is not the data's own, or can't be seen without going through it all.
    """
    return subject.once("spread samples", _spread)


def _spread(subject: Subject) -> list[dict[str, Tensor]]:
    lent, loader = lent_of(subject), subject.case.loader
    served: Iterable[Any] | None = None if lent is None else lent.loader
    if loader is not None:
        served = loader("train", subject.seed)
    if isinstance(served, list | tuple):
        step = -(-len(served) // SPREAD)
        picked = islice(served, 0, None, step)
        return [rows_of_batch(subject, to_device(batch, subject.device)) for batch in picked]
    if not isinstance(served, DataLoader) or not isinstance(served.sampler, SequentialSampler):
        return []
    if served.batch_size is None:  # a batch sampler of its own picks the samples
        return []
    data: Any = served.dataset
    count = len(data)
    samples = [data[k * count // SPREAD] for k in range(min(SPREAD, count))]
    if len(samples) < 2:
        return []
    return [rows_of_batch(subject, to_device(served.collate_fn(samples), subject.device))]
