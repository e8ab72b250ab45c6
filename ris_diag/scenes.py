"""The covariances of a case's splits, drawn once for all checks that read them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ris_diag.case import Batch
from ris_diag.context import Subject, to_device
from ris_diag.errors import CaseError
from ris_diag.graph import tensors_in
from ris_diag.measure import listed, trace_n
from ris_diag.places import where

ENTRIES = 700_000  # of all truths of a split together: some tens of milliseconds
FEWEST, MOST = 16, 256
STRONG = 10.0  # an eigenvalue of signal, in units of the floor


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Distinct scenes of a split that can be judged: finite, with a positive trace.

    Attributes:
        truth, sample: scaled to trace N, complex [B, N, N].
        scale: trace of R_samp over that of R_true, as they are served, real [B].
        snapshots: complex [B, N, L]; None where the case has none.
    """

    split: str
    truth: Tensor
    sample: Tensor
    scale: Tensor
    snapshots: Tensor | None

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def enough(self) -> bool:
        """Whether means over these scenes mean something."""
        return len(self) >= FEWEST


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Eigenvalues of the truths, falling, and what they tell of signal and floor.

    Attributes:
        values: real [B, N]. vectors: complex [B, N, N].
        floor: the eigenvalue of noise, real [B]: the median of the lower half.
        signals: eigenvalues far above the floor, whole numbers [B].
        full: whether the truth can be inverted, bool [B].
    """

    values: Tensor
    vectors: Tensor
    floor: Tensor
    signals: Tensor
    full: Tensor


def splits(subject: Subject) -> tuple[str, ...]:
    """The splits that checks of data look at: all that are there, where samples are kept."""
    stored = subject.case.stored
    if stored is None:
        return ("train", "validation")
    names = ("train", "validation", "test")
    return subject.once(
        "stored splits", lambda _: tuple(s for s in names if next(iter(stored(s)), None))
    )


def pieces(subject: Subject, split: str) -> Iterator[tuple[str, Batch]]:
    """All samples of a split that is kept, by the name of the piece, else those of `drawn`."""
    stored = subject.case.stored
    if stored is None:
        yield "", drawn(subject, split)
        return
    for name, batch in stored(split):
        yield name, to_device(batch, subject.device)


def drawn(subject: Subject, split: str) -> Batch:
    """Samples of a split, as many as their size allows."""

    def draw(subject: Subject) -> Batch:
        few = subject.batch(split, FEWEST, offset=1)
        N = _matrices("R_true", subject.covariance.truth(few)).shape[-1]
        count = max(FEWEST, min(MOST, ENTRIES // N**2))
        return few if count == FEWEST else subject.batch(split, count, offset=1)

    return subject.once(f"drawn {split}", draw)


def scenes(subject: Subject, split: str) -> Scenes:
    """The scenes of a split, drawn once.

    Raises:
        CaseError: truth or sample are no matrices, or of different shape.
    """
    return subject.once(f"scenes {split}", lambda subject: _scenes(subject, split))


def _scenes(subject: Subject, split: str) -> Scenes:
    covariance, batch = subject.covariance, drawn(subject, split)
    truth = _matrices("R_true", covariance.truth(batch))
    sample = _matrices("R_samp", covariance.sample(batch))
    if truth.shape != sample.shape:
        raise CaseError(
            f"R_true {list(truth.shape)} and R_samp {list(sample.shape)} of split {split}: "
            "expected the same shape"
        )
    snapshots = None
    if covariance.given.snapshots is not None:
        snapshots = covariance.snapshots(batch).detach()
    traces = [R.diagonal(dim1=1, dim2=2).real.sum(1) for R in (truth, sample)]
    finite = torch.isfinite(truth.abs() + sample.abs()).flatten(1).all(1)
    kept = _distinct(truth, sample, finite & (traces[0] > 0) & (traces[1] > 0))
    return Scenes(
        split=split,
        truth=trace_n(truth[kept]),
        sample=trace_n(sample[kept]),
        scale=(traces[1] / traces[0])[kept],
        snapshots=None if snapshots is None else snapshots[kept],
    )


def _distinct(truth: Tensor, sample: Tensor, usable: Tensor) -> Tensor:
    """Index of the usable scenes, each once: a small data set serves some of them twice."""
    first: dict[tuple[bytes, bytes], int] = {}
    for index in usable.nonzero().flatten().tolist():
        key = (truth[index, 0].cpu().numpy().tobytes(), sample[index, 0].cpu().numpy().tobytes())
        first.setdefault(key, index)
    return torch.tensor(list(first.values()), dtype=torch.long, device=truth.device)


def _matrices(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 3 or value.shape[1] != value.shape[2]:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CaseError(f"{name} is {shape}: expected complex [B, N, N]")
    R: Tensor = value.detach()
    return R if R.is_complex() else R.to(torch.promote_types(R.dtype, torch.complex64))


def spectrum(subject: Subject, split: str) -> Spectrum:
    """Eigenvalues and eigenvectors of the truths of `scenes`, computed once."""

    def measure(subject: Subject) -> Spectrum:
        values, vectors = torch.linalg.eigh(scenes(subject, split).truth)
        values, vectors = values.flip(1), vectors.flip(2)
        N = values.shape[1]
        floor = values[:, N // 2 :].median(1).values
        least = torch.maximum(floor.clamp_min(0), 1e-4 * values[:, 0])
        return Spectrum(
            values=values,
            vectors=vectors,
            floor=floor,
            signals=(values > STRONG * least[:, None]).sum(1),
            full=values[:, -1] > 1e-5 * values[:, 0],
        )

    return subject.once(f"spectrum {split}", measure)


def place(subject: Subject, split: str, function: Callable[[Batch], Tensor]) -> str:
    """Where to look for what is wrong with a part of the batches of a split.

    The split, where samples are kept; else the function that gives the part, or the one that makes
    the batches where the part is found in them as it is.
    """
    if subject.case.offers("stored"):
        return f"split {split}"
    batch = drawn(subject, split)
    part = function(batch)
    served = any(t is part for t in tensors_in(batch))
    return where(subject.case.batch if served else function)


class Offenders:
    """Samples in which something is wrong, by the place where they are kept."""

    def __init__(self) -> None:
        self.looked_at = 0
        self.found: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.found.values()))

    def add(self, piece: str, offending: Tensor) -> None:
        """Enter the offending ones of all samples of a piece, bool [n]."""
        self.looked_at += len(offending)
        index = offending.nonzero().flatten().tolist()
        if index:
            self.found.setdefault(piece, []).extend(index)

    @property
    def first(self) -> str:
        """The piece of the first one."""
        return next(iter(self.found))

    def __str__(self) -> str:
        places = [
            f"{piece or 'index'}{':' if piece else ''} {listed([str(i) for i in index], 5)}"
            for piece, index in self.found.items()
        ]
        return f"{len(self)} of {self.looked_at} samples ({listed(places)})"


def mean_and_error_of(values: Tensor) -> tuple[float, float]:
    """Mean over scenes and its standard error."""
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def named_tensors(batch: Batch, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch with their keys, `x`, `labels.mask`, `0`."""
    if isinstance(batch, Tensor):
        yield name or "the batch", batch
        return
    if isinstance(batch, tuple) and hasattr(batch, "_asdict"):
        batch = batch._asdict()
    if isinstance(batch, list | tuple):
        batch = dict(enumerate(batch))
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from named_tensors(value, f"{name}.{key}" if name else str(key))
