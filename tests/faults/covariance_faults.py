"""Faults in scenes, their labels and their conventions, planted in a simulator of another hand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ris_diag import Case, Covariance, Declared
from tests.faults import registry
from tests.faults.zoo_parts import generator

HISTORY = "the history behind the project (docs/design.md)"
fault = partial(registry.fault, source=HISTORY)


class Batch(NamedTuple):
    """Snapshots X [B, N, L], R_samp and R_true [B, N, N], K [B], positions [B, 3, 4]."""

    X: Tensor
    R_samp: Tensor
    R_true: Tensor
    K: Tensor
    positions: Tensor


@dataclass(frozen=True, kw_only=True)
class Field:
    """A far field in front of a line of elements. Every value at its default is healthy.

    Attributes:
        symbols: random numbers of a shape -> symbols of unit power.
        noise: the same for the noise.
        noise_power: factor on what the label says.
        label_noise: whether the truth holds the noise.
        trace: of the covariances; None leaves them as they are.
    """

    elements: int = 12
    snapshots: int = 16
    sources: tuple[int, int] = (1, 4)
    snr_db: tuple[float, float] = (-5.0, 20.0)
    symbols: Callable[[Any, tuple[int, int, int]], Tensor] = lambda rng, shape: circular(rng, shape)
    noise: Callable[[Any, tuple[int, int, int]], Tensor] = lambda rng, shape: circular(rng, shape)
    noise_power: Callable[[Tensor], Tensor] = lambda power: power
    label_noise: bool = True
    real: bool = False
    trace: float | None = 12.0

    def batch(self, split: str, seed: int, size: int) -> Batch:
        rng = generator(split, seed)
        low, high = self.sources
        most = 4
        K = torch.randint(low, high + 1, (size,), generator=rng)
        present = torch.arange(most) < K[:, None]
        azimuth = (torch.rand(size, most, generator=rng) - 0.5) * 2.1
        snr = self.snr_db[0] + (self.snr_db[1] - self.snr_db[0]) * torch.rand(size, generator=rng)
        n = torch.arange(self.elements)[:, None]
        A = torch.exp(1j * torch.pi * n * azimuth.sin()[:, None]) * present[:, None]
        if self.real:
            A = A.real.to(torch.complex64)
        power = present / K[:, None]
        noise = 10 ** (-snr / 10)
        S = self.symbols(rng, (size, most, self.snapshots)) * power.sqrt()[..., None]
        W = self.noise(rng, (size, self.elements, self.snapshots))
        X = A @ S + self.noise_power(noise).sqrt()[:, None, None] * W
        R_true = (A * power[:, None]) @ A.mH
        if self.label_noise:
            R_true = R_true + noise[:, None, None] * torch.eye(self.elements)
        R_samp = X @ X.mH / self.snapshots
        if self.trace is not None:
            R_samp, R_true = scaled(R_samp, self.trace), scaled(R_true, self.trace)
        positions = torch.stack([azimuth, azimuth / 2, 2 + azimuth], 1) * present[:, None]
        return Batch(X, R_samp, R_true, K, positions)


def circular(rng: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=rng)


def constant(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    return circular(rng, (*shape[:2], 1)).expand(shape)


def scaled(R: Tensor, trace: float) -> Tensor:
    return R * (trace / R.diagonal(dim1=1, dim2=2).real.sum(1))[:, None, None]


FIELD = Field()


def plain(batch: Callable[[str, int, int], Batch] = FIELD.batch, **parts: Any) -> Case:
    given: dict[str, Any] = {
        "sample": lambda batch: batch.R_samp,
        "truth": lambda batch: batch.R_true,
        "snapshots": lambda batch: batch.X,
        "sources": lambda batch: batch.K,
        "positions": lambda batch: batch.positions,
    }
    return Case(
        name="far-field",
        batch=batch,
        truth=lambda batch: batch.R_true,
        covariance=Covariance(**{**given, **parts}),
        declared=Declared(trace=12.0),
    )


# ---- the sample covariance and its truth


@fault(
    "D012",
    says="a constant (the mean of the other truths)",
    cause=("snapshots-incoherent", "side-input-useless"),
    healthy=plain,
)
def symbols_constant_and_centred() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = replace(FIELD, symbols=constant).batch(split, seed, size)
        X = served.X - served.X.mean(2, keepdim=True)  # planted: symbols_constant_and_centred
        return served._replace(X=X, R_samp=scaled(X @ X.mH, 12.0))

    return plain(batch)


@fault(
    "D015",
    "D012",
    says="independent signals",
    cause="snapshots-incoherent",
    healthy=plain,
)
def symbols_held_constant() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        field = replace(FIELD, symbols=constant)  # planted: symbols_held_constant
        return field.batch(split, seed, size)

    return plain(batch)


@fault(
    "D012",
    "D015",
    says="R_samp belongs to its truth",
    cause=("side-input-useless", "snapshots-incoherent"),
    healthy=plain,
)
def samples_of_other_scenes() -> Case:
    def sample(batch: Batch) -> Tensor:
        return batch.R_samp.roll(1, 0)  # planted: samples_of_other_scenes

    return plain(sample=sample)


@fault("D013", says="conj(R_samp) is nearer", cause="conventions-differ", healthy=plain)
def sample_is_conjugated() -> Case:
    def sample(batch: Batch) -> Tensor:
        return batch.X.conj() @ batch.X.mT / 16  # planted: sample_is_conjugated

    return plain(sample=sample)


@fault("D013", says="conj(R_samp) is nearer", cause="conventions-differ", healthy=plain)
def truth_is_transposed_in_validation() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        if split == "train":
            return served
        R_true = served.R_true.mT.contiguous()  # planted: truth_is_transposed_in_validation
        return served._replace(R_true=R_true)

    return plain(batch)


@fault("D013", says="by columns is nearer", cause="conventions-differ", healthy=plain)
def elements_by_columns() -> Case:
    order = torch.arange(12).view(3, 4).T.flatten()

    def sample(batch: Batch) -> Tensor:
        return batch.R_samp[:, order][:, :, order]  # planted: elements_by_columns

    return plain(sample=sample)


@fault("D013", says="16 times that of the truth", cause="conventions-differ", healthy=plain)
def snapshots_summed_and_blended() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = replace(FIELD, trace=None).batch(split, seed, size)
        return served._replace(
            R_samp=served.X @ served.X.mH
        )  # planted: snapshots_summed_and_blended

    case = plain(batch, blend=lambda R_pred, R_samp, beta: (1 - beta) * R_pred + beta * R_samp)
    return replace(case, declared=None)


@fault("D014", says="has a trace of 1.2 to 1.2", cause="not-a-covariance", healthy=plain)
def one_truth_of_another_trace() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        served.R_true[7] *= 0.1  # planted: one_truth_of_another_trace
        return served

    return plain(batch)


@fault("D014", says="R_samp is not Hermitian", cause="not-a-covariance", healthy=plain)
def one_triangle_filled() -> Case:
    def sample(batch: Batch) -> Tensor:
        return batch.R_samp.triu()  # planted: one_triangle_filled

    return plain(sample=sample)


@fault("D014", says="R_samp has negative eigenvalues", cause="not-a-covariance", healthy=plain)
def noise_subtracted() -> Case:
    def sample(batch: Batch) -> Tensor:
        return scaled(batch.R_samp - 0.3 * torch.eye(12), 12.0)  # planted: noise_subtracted

    return plain(sample=sample)


# ---- snapshots


@fault(
    "D015",
    says="but of centred snapshots",
    cause="snapshots-incoherent",
    healthy=plain,
)
def mean_removed() -> Case:
    def sample(batch: Batch) -> Tensor:
        X = batch.X - batch.X.mean(2, keepdim=True)  # planted: mean_removed
        return scaled(X @ X.mH, 12.0)

    return plain(sample=sample)


@fault("D015", says="sum to zero", cause="snapshots-incoherent", healthy=plain)
def snapshots_centred() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        X = served.X - served.X.mean(2, keepdim=True)  # planted: snapshots_centred
        return served._replace(X=X, R_samp=scaled(X @ X.mH, 12.0))

    return plain(batch)


@fault("D015", says="the rank of the snapshots is 8", cause="snapshots-incoherent", healthy=plain)
def snapshots_repeated() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        X = served.X[:, :, :8].repeat(1, 1, 2)  # planted: snapshots_repeated
        return served._replace(X=X, R_samp=scaled(X @ X.mH, 12.0))

    return plain(batch)


@fault("D015", says="independent signals", cause="snapshots-incoherent", healthy=plain)
def sources_coherent() -> Case:
    def one_signal(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
        return circular(rng, (shape[0], 1, shape[2])).expand(shape)

    def batch(split: str, seed: int, size: int) -> Batch:
        field = replace(FIELD, symbols=one_signal)  # planted: sources_coherent
        return field.batch(split, seed, size)

    return plain(batch)


@fault("D016", says="times their share", cause="snapshots-incoherent", healthy=plain)
def noise_parts_not_halved() -> Case:
    def loud(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
        return circular(rng, shape) * 2**0.5

    def batch(split: str, seed: int, size: int) -> Batch:
        field = replace(FIELD, noise=loud)  # planted: noise_parts_not_halved
        return field.batch(split, seed, size)

    return plain(batch)


@fault("D016", says="times their share", cause="snapshots-incoherent", healthy=plain)
def snr_taken_as_amplitude() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        field = replace(FIELD, noise_power=torch.sqrt)  # planted: snr_taken_as_amplitude
        return field.batch(split, seed, size)

    return plain(batch)


@fault("D016", says="the noise is not circular", cause="snapshots-incoherent", healthy=plain)
def noise_of_one_part() -> Case:
    def one_part(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
        return torch.randn(shape, generator=rng) * complex(1, 1) / 2**0.5

    def batch(split: str, seed: int, size: int) -> Batch:
        field = replace(FIELD, noise=one_part)  # planted: noise_of_one_part
        return field.batch(split, seed, size)

    return plain(batch)


# ---- labels


@fault("D017", says="is not the number of positions", cause="labels-contradict", healthy=plain)
def sources_of_other_scenes() -> Case:
    def sources(batch: Batch) -> Tensor:
        return batch.K.roll(1)  # planted: sources_of_other_scenes

    return plain(sources=sources)


@fault("D017", says="R_true has more signals than K", cause="labels-contradict", healthy=plain)
def truth_with_an_unlisted_source() -> Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        R_true = served.R_true.clone()
        R_true[::9] = (R_true[::9] + R_true[1::9][: len(R_true[::9])].mean(0)) / 2
        return served._replace(R_true=R_true)  # planted: truth_with_an_unlisted_source

    return plain(batch)


@fault("D017", says="R_true has fewer signals than K", cause="labels-contradict", healthy=plain)
def one_source_too_many_listed() -> Case:
    def sources(batch: Batch) -> Tensor:
        return batch.K + 1  # planted: one_source_too_many_listed

    return plain(sources=sources, positions=None)


# ---- stored scenes


def kept(stored: Callable[[str], list[tuple[str, Batch]]] | None = None) -> Case:
    return replace(plain(), stored=stored or in_parts)


def in_parts(split: str) -> list[tuple[str, Batch]]:
    return [(f"part {k}", FIELD.batch(split, k, 20)) for k in range(3)]


def in_one_file(split: str) -> list[tuple[str, Batch]]:
    return [(f"{split}.npz", FIELD.batch(split, 0, 40))]


def kept_in_one_file() -> Case:
    return kept(in_one_file)


@fault(
    "D018",
    says="NaN or infinity in X of 1 of",
    cause="nan-in-data",
    place="part 1",
    healthy=kept,
)
def one_stored_sample_is_nan() -> Case:
    def stored(split: str) -> list[tuple[str, Batch]]:
        parts = in_parts(split)
        parts[1][1].X[4, 0, 0] = torch.nan  # planted: one_stored_sample_is_nan
        return parts

    return kept(stored)


@fault(
    "D019",
    says="of split validation stand in split train",
    cause="splits-overlap",
    place="split validation",
    healthy=kept_in_one_file,
)
def two_stored_samples_in_both_splits() -> Case:
    def stored(split: str) -> list[tuple[str, Batch]]:
        served = FIELD.batch(split, 0, 40)
        if split == "validation":
            known = FIELD.batch("train", 0, 40)
            for part, taken in zip(served, known, strict=True):
                part[5:7] = taken[30:32]  # planted: two_stored_samples_in_both_splits
        return [(f"{split}.npz", served)]

    return kept(stored)


@fault(
    "D019",
    says="4 of 40 samples stand there twice",
    cause="samples-repeated",
    place="split train",
    healthy=kept_in_one_file,
)
def stored_samples_repeated() -> Case:
    def stored(split: str) -> list[tuple[str, Batch]]:
        served = FIELD.batch(split, 0, 40)
        if split == "train":
            for part in served:
                part[:4] = part[20:24]  # planted: stored_samples_repeated
        return [(f"{split}.npz", served)]

    return kept(stored)
