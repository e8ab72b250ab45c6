"""Faults in the data of a covariance learner: snapshots, side input and truth that don't agree."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ris_diag import Case
from tests.faults.healthy import small
from tests.faults.loop import HEALTHY_LOOP
from tests.faults.registry import fault
from tests.faults.zoo_parts import generator, healthy, loader_of

N, L = 16, 16
TRUTH = ("here", "truth")
SAMPLE = ("here", "sample")


class Line(NamedTuple):
    """Snapshots X [B, N, L], R_samp and R_true [B, N, N], number of sources K [B]."""

    X: Tensor
    R_samp: Tensor
    R_true: Tensor
    K: Tensor


def scaled(R: Tensor) -> Tensor:
    """R with trace N."""
    return N * R / R.diagonal(dim1=1, dim2=2).real.sum(1)[:, None, None]


def circular(*shape: int, source: torch.Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=source)


def symbols(size: int, source: torch.Generator) -> Tensor:
    """Drawn anew in every snapshot, [B, 3, L]."""
    return circular(size, 3, L, source=source)


def covariance(X: Tensor) -> Tensor:
    return X @ X.mH / L


def line(
    split: str,
    seed: int,
    size: int,
    symbols: Callable[[int, torch.Generator], Tensor] = symbols,
    covariance: Callable[[Tensor], Tensor] = covariance,
    noise: float = 0.3,
) -> Line:
    """One to three far sources in front of a line of 16 elements, in noise."""
    source = generator(split, seed)
    K = torch.randint(1, 4, (size,), generator=source)
    sine = 1.8 * torch.rand(size, 1, 3, generator=source) - 0.9
    A = torch.exp(1j * torch.pi * torch.arange(N)[:, None] * sine) / N**0.5
    A = A * (torch.arange(3) < K[:, None])[:, None, :]
    X = A @ symbols(size, source) + noise / 4 * circular(size, N, L, source=source)
    R_true = A @ A.mH + 0.3**2 / 16 * torch.eye(N)
    return Line(X, scaled(covariance(X)), scaled(R_true), K)


@healthy
def line_of_elements() -> Case:
    return lined(line)


def lined(data: Callable[[str, int, int], Line]) -> Case:
    case = small()
    assert case.covariance is not None
    assert case.declared is not None
    parts = replace(
        case.covariance,
        snapshots=lambda batch: batch.X,
        sources=lambda batch: batch.K,
        baselines={},
    )
    return replace(
        case,
        name="line_of_elements",
        batch=data,
        loader=loader_of(data),
        covariance=parts,
        fit=HEALTHY_LOOP,
        paths={"plain": HEALTHY_LOOP},
        declared=replace(case.declared, trace=float(N), batch_size=16),
    )


@fault(
    cause="snapshots-incoherent", place=("here", "snapshots"), healthy=line_of_elements, source="B4"
)
def symbols_are_held_constant() -> Case:
    def held(size: int, source: torch.Generator) -> Tensor:
        # planted: symbols_are_held_constant
        return circular(size, 3, 1, source=source).expand(size, 3, L)

    return lined(lambda split, seed, size: line(split, seed, size, symbols=held))


@fault(
    cause="snapshots-incoherent", place=("here", "snapshots"), healthy=line_of_elements, source="B4"
)
def noise_has_another_power_than_the_label() -> Case:
    # planted: noise_has_another_power_than_the_label
    return lined(lambda split, seed, size: line(split, seed, size, noise=3.0))


@fault(cause="side-input-useless", place=SAMPLE, healthy=line_of_elements, source="B4")
def sample_covariance_of_other_scenes() -> Case:
    def data(split: str, seed: int, size: int) -> Line:
        scenes = line(split, seed, size)
        # planted: sample_covariance_of_other_scenes
        return scenes._replace(R_samp=scenes.R_samp.roll(1, 0))

    return lined(data)


@fault(cause="side-input-useless", place=SAMPLE, healthy=line_of_elements, source="B4")
def side_input_is_noise() -> Case:
    def noise(X: Tensor) -> Tensor:
        X = torch.randn_like(X)  # planted: side_input_is_noise
        return covariance(X)

    def data(split: str, seed: int, size: int) -> Line:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            return line(split, seed, size, covariance=noise)

    return lined(data)


@fault(cause="conventions-differ", place=(*SAMPLE, "truth"), healthy=line_of_elements, source="B3")
def sample_covariance_is_conjugated() -> Case:
    def conjugated(X: Tensor) -> Tensor:
        return X.conj() @ X.mT / L  # planted: sample_covariance_is_conjugated

    return lined(lambda split, seed, size: line(split, seed, size, covariance=conjugated))


@fault(cause="conventions-differ", place=(*SAMPLE, "truth"), healthy=line_of_elements, source="B3")
def truth_is_transposed() -> Case:
    def data(split: str, seed: int, size: int) -> Line:
        scenes = line(split, seed, size)
        return scenes._replace(R_true=scenes.R_true.mT)  # planted: truth_is_transposed

    return lined(data)


@fault(cause="not-a-covariance", place=TRUTH, healthy=line_of_elements, source="B3")
def truth_is_not_scaled() -> Case:
    def data(split: str, seed: int, size: int) -> Line:
        scenes = line(split, seed, size)
        return scenes._replace(R_true=scenes.R_true / N)  # planted: truth_is_not_scaled

    return lined(data)
