"""The checks of scenes: silent on many kinds of healthy scenes, exact about the others."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import ris_diag
from ris_diag.result import Result
from tests.faults.covariance_faults import FIELD, Batch, Field, circular, plain, scaled

CHECKS = "D012,D013,D014,D015,D016,D017,D018"


def quadrature(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    symbols: Tensor = torch.exp(0.5j * torch.pi * torch.randint(4, shape, generator=rng))
    return symbols


def binary(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    return (2.0 * torch.randint(2, shape, generator=rng) - 1).to(torch.complex64)


def heavy_tailed(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    power = torch.empty(shape).exponential_(1.0, generator=rng).square() / 2
    symbols: Tensor = circular(rng, shape) * power.sqrt()
    return symbols


def slowly_varying(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    fast = circular(rng, (*shape[:2], shape[2] + 1))
    symbols: Tensor = (fast[..., 1:] + 0.5 * fast[..., :-1]) / 1.25**0.5
    return symbols


def real(rng: torch.Generator, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(shape, generator=rng).to(torch.complex64)


HEALTHY = {
    "as it is": FIELD,
    "one source": replace(FIELD, sources=(1, 1)),
    "four sources": replace(FIELD, sources=(4, 4)),
    "weak": replace(FIELD, snr_db=(-20.0, -10.0)),
    "very strong": replace(FIELD, snr_db=(30.0, 40.0)),
    "two snapshots": replace(FIELD, snapshots=2),
    "four snapshots": replace(FIELD, snapshots=4),
    "200 snapshots": replace(FIELD, snapshots=200),
    "four elements": replace(FIELD, elements=4, trace=4.0),
    "64 elements": replace(FIELD, elements=64, trace=64.0),
    "prime number of elements": replace(FIELD, elements=13, trace=13.0),
    "trace one": replace(FIELD, trace=1.0),
    "not scaled": replace(FIELD, trace=None),
    "quadrature symbols": replace(FIELD, symbols=quadrature),
    "binary symbols": replace(FIELD, symbols=binary),
    "symbols of heavy tails": replace(FIELD, symbols=heavy_tailed),
    "impulsive noise": replace(FIELD, noise=heavy_tailed),
    "snapshots that depend on each other": replace(
        FIELD, symbols=slowly_varying, noise=slowly_varying
    ),
    "real signals": replace(FIELD, real=True, symbols=real, noise=real),
    "a label without noise": replace(FIELD, label_noise=False),
    "nothing but noise": replace(FIELD, snr_db=(-60.0, -60.0), snapshots=64),
}


def findings(case: ris_diag.Case, select: str = CHECKS, seed: int = 0) -> list[str]:
    results = ris_diag.run(case, select=select, seed=seed).results
    return [r.message() for r in results if r.status not in ("pass", "skip")]


def case_of(field: Field, **parts: Any) -> ris_diag.Case:
    declared = ris_diag.Declared(trace=field.trace) if field.trace else None
    return replace(plain(field.batch, **parts), declared=declared)


@pytest.mark.parametrize("name", [n for n in HEALTHY if n not in ("nothing but noise", "weak")])
def test_healthy_scenes_raise_no_alarm(name: str) -> None:
    for seed in range(3):
        assert findings(case_of(HEALTHY[name]), seed=seed) == []


def test_a_sample_that_informs_only_if_shrunk_is_said() -> None:
    result = run("D012", case_of(HEALTHY["weak"]))
    assert result.status == "pass"
    assert "R_samp informs only if shrunk" in result.lines[0]


def test_the_number_of_snapshots_is_found_where_it_is_not_given() -> None:
    case = case_of(replace(HEALTHY["weak"], snapshots=6), snapshots=None)
    result = run("D012", case)
    assert result.status == "pass"
    assert "is what 6 snapshots give" in result.lines[0]


def test_few_scenes_of_strong_and_weak_signals_raise_no_alarm() -> None:
    field = replace(FIELD, elements=144, trace=144.0, snr_db=(-10.0, 20.0))
    for seed in range(10):
        assert findings(case_of(field, snapshots=None), "D012", seed) == []


def test_noise_alone_informs_of_nothing() -> None:
    result = run("D012", case_of(HEALTHY["nothing but noise"]))
    assert result.status == "fail"


def run(check: str, case: ris_diag.Case) -> Result:
    return ris_diag.run(case, select=check)[check]


def test_double_precision_and_other_structures() -> None:
    def batch(split: str, seed: int, size: int) -> dict[str, Tensor]:
        served = FIELD.batch(split, seed, size)
        return {
            "S": served.R_samp.to(torch.complex128),
            "T": served.R_true.to(torch.complex128),
            "X": served.X.to(torch.complex128),
        }

    case = ris_diag.Case(
        name="dict",
        batch=batch,
        covariance=ris_diag.Covariance(
            sample=lambda b: b["S"], truth=lambda b: b["T"], snapshots=lambda b: b["X"]
        ),
    )
    assert findings(case) == []


def change(**parts: Callable[[Batch], Tensor]) -> ris_diag.Case:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        return served._replace(**{name: make(served) for name, make in parts.items()})

    return plain(batch)


def loaded(batch: Batch) -> Tensor:
    return scaled(batch.R_samp + 0.1 * torch.eye(12), 12.0)


def forward_backward(batch: Batch) -> Tensor:
    return (batch.R_samp + batch.R_samp.conj().flip(1, 2)) / 2


@pytest.mark.parametrize(
    ("sample", "said"),
    [(loaded, "with a changed diagonal"), (forward_backward, "averaged forward and backward")],
)
def test_usual_changes_of_the_sample_covariance_are_said(
    sample: Callable[[Batch], Tensor], said: str
) -> None:
    case = change(R_samp=sample)
    assert findings(case) == []
    assert said in run("D015", case).lines[0]


def test_columns_of_zeros_fill_up_scenes_of_fewer_snapshots() -> None:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        held = torch.arange(16) < 9 + torch.arange(size)[:, None] % 8
        X = served.X * held[:, None]
        return served._replace(X=X, R_samp=scaled(X @ X.mH, 12.0))

    assert findings(plain(batch)) == []


def test_a_handful_of_scenes_is_not_judged() -> None:
    def batch(split: str, seed: int, size: int) -> Batch:
        return FIELD.batch(split, 0, 10)

    result = run("D013", plain(batch))
    assert result.status == "pass"
    assert result.lines[0] == (
        "not judged: split train has 10 distinct scenes with finite covariances and a positive "
        "trace, 16 are needed"
    )


def test_scenes_that_are_served_twice_count_once() -> None:
    def batch(split: str, seed: int, size: int) -> Batch:
        few = FIELD.batch(split, 0, 10)
        return Batch(*(part[torch.arange(size) % 10] for part in few))

    assert "has 10 distinct scenes" in run("D012", plain(batch)).lines[0]


def test_real_truths_have_no_conjugate() -> None:
    result = run("D013", case_of(replace(FIELD, real=True)))
    assert (result.status, result.lines[0]) == (
        "pass",
        "not judged: the truths of split train are real, conjugation is nothing",
    )


def test_shapes_that_differ_are_an_error() -> None:
    result = run("D012", plain(sample=lambda batch: batch.R_samp[:, :4, :4]))
    assert result.status == "error"
    assert "R_true [256, 12, 12] and R_samp [256, 4, 4] of split train" in result.cause


def test_snapshots_of_another_shape_are_named() -> None:
    result = run("D015", plain(snapshots=lambda batch: batch.X.mT))
    assert "split train: snapshots are [256, 16, 12], expected [256, 12, L]" in result.cause


def test_a_scale_that_the_blend_takes_out_is_no_finding() -> None:
    def batch(split: str, seed: int, size: int) -> Batch:
        served = FIELD.batch(split, seed, size)
        return served._replace(R_samp=100 * served.R_samp)

    def naive(R_pred: Tensor, R_samp: Tensor, beta: float) -> Tensor:
        return (1 - beta) * R_pred + beta * R_samp

    def scaling(R_pred: Tensor, R_samp: Tensor, beta: float) -> Tensor:
        return naive(R_pred, scaled(R_samp, R_pred.shape[-1]), beta)

    assert run("D013", replace(plain(batch, blend=scaling), declared=None)).status == "pass"
    wrong = run("D013", replace(plain(batch, blend=naive), declared=None))
    assert "the trace of R_samp is 100 times that of the truth" in wrong.cause
    unblended = run("D013", replace(plain(batch), declared=None))
    assert unblended.status == "pass"
    assert unblended.lines[0] == "split train: the trace of R_samp is 100 that of the truth"


def test_all_that_is_wrong_with_covariances_is_said_at_once() -> None:
    def sample(batch: Batch) -> Tensor:
        R = batch.R_samp.clone()
        R[3] *= 2
        R[5, 0, 1] += 4
        R[6] -= 0.9 * torch.eye(12)
        R[6] = scaled(R[6:7], 12.0)[0]
        R[9, 2, 2] = torch.nan
        return R

    result = run("D014", plain(sample=sample))
    found = {finding["sign"]: finding["cause"] for finding in result.findings[:3]}
    assert found["trace-off"] == (
        "split train: R_samp has a trace of 24 to 24, declared 12, in 1 of 256 samples (index 3)"
    )
    assert found["not-hermitian"].endswith("in 1 of 256 samples (index 5)")
    assert found["negative-eigenvalues"].endswith("in 1 of 256 samples (index 6)")


def test_truths_are_looked_at_where_they_are_stored() -> None:
    def stored(split: str) -> list[tuple[str, Batch]]:
        parts = [(f"{split}/{k}.npz", FIELD.batch(split, k, 30)) for k in range(2)]
        parts[1][1].R_true[11, 0, 1] += 1
        return parts

    result = run("D014", replace(plain(), stored=stored))
    assert len(result.findings) == 3
    assert result.findings[0]["place"] == "train/1.npz"
    assert result.findings[0]["cause"].endswith("in 1 of 60 samples (train/1.npz: 11)")


def test_labels_that_nothing_is_known_of_are_not_judged() -> None:
    result = run("D017", plain(sources=None))
    assert result.lines == ["not judged: Case.covariance.sources (K of each scene) is not given"]


def test_truths_of_another_form_are_not_compared_with_the_sources() -> None:
    def coloured(batch: Batch) -> Tensor:
        n = torch.arange(12.0)
        return batch.R_true + torch.exp(-(n[:, None] - n).abs()) * (1 + batch.K[:, None, None])

    result = run("D017", change(R_true=coloured))
    assert result.status == "pass"
    assert "not K signals over an even floor" in result.lines[0]


def test_numbers_of_sources_that_cannot_be() -> None:
    def sources(batch: Batch) -> Tensor:
        K = batch.K.clone()
        K[4], K[8] = 0, 9
        return K

    result = run("D017", plain(sources=sources, positions=None))
    assert result.findings[0]["cause"] == (
        "split train: K is not a whole number from 1 to the most that there is room for in "
        "1 of 256 samples (index 4)"
    )
    with_positions = run("D017", plain(sources=sources))
    assert "in 2 of 256 samples (index 4, 8)" in with_positions.findings[0]["cause"]
