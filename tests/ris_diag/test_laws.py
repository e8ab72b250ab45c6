"""Laws accept the metrics that are right and refuse each wrong one for the right reason."""

import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor

import ris_diag
from model.nmse import nmse
from ris_diag.check import get_check
from ris_diag.proof import printed
from ris_diag.runner import Runner
from tests.faults import metrics
from tests.faults.metrics import WRONG, Metric

TWO_PARTS = {"M008": "diagonal and off-diagonal entries are weighted apart"}
DIVERGENCE = {"M002": "it is infinite at a singular estimate"}
RIGHT = [
    (nmse, TWO_PARTS),
    (metrics.frobenius_nmse, {}),
    (metrics.affine_invariant, DIVERGENCE),
]


@pytest.fixture
def few() -> Iterator[int]:
    """A profile of few examples."""
    before = hypothesis.settings.get_current_profile_name()
    hypothesis.settings.register_profile("few", hypothesis.settings(max_examples=20))
    hypothesis.settings.load_profile("few")
    yield 20
    hypothesis.settings.load_profile(before)


def laws(metric: Metric, **declared: dict[str, str]) -> ris_diag.Report:
    case = ris_diag.Case(name=metric.__name__, distance=metric, **declared)  # type: ignore[arg-type]  # by keyword
    return ris_diag.run(case, select="law")


@pytest.mark.parametrize(("metric", "exempt"), RIGHT, ids=lambda v: getattr(v, "__name__", ""))
def test_right_metrics_keep_every_law(metric: Metric, exempt: dict[str, str]) -> None:
    report = laws(metric, exempt=exempt)
    assert [r.message() for r in report.results if r.status in ("fail", "error")] == []
    assert {r.id: r.exempt for r in report.results if r.status == "skip"} == exempt
    assert len(report.results) == 13
    tried = [r.measurements["examples"] for r in report.results if r.status == "pass"]
    assert min(tried) >= hypothesis.settings().max_examples


@pytest.mark.parametrize("metric", WRONG, ids=lambda metric: metric.__name__)
def test_wrong_metrics_break_no_other_laws_than_theirs(metric: Metric, few: int) -> None:
    failed = {r.id: r.cause for r in laws(metric).results if r.status != "pass"}
    assert set(failed) <= set(WRONG[metric])  # tests/test_faults.py: they do break these
    assert {k: seen for k, seen in failed.items() if WRONG[metric][k] not in seen} == {}


def test_the_message_of_a_broken_law() -> None:
    result = laws(metrics.note_formula)["M003"]
    first, place, step, reproduce = result.message().splitlines()
    assert first.startswith(
        "M003 common-scale-changes-nothing: 0.85 became 0.848259 when both were multiplied by "
        "2^-16 = 2e-05 (limit 0.001), for estimate [[1, 0], [0, 1]] and truth [[2, 1], [1, 2]] "
        "(complex64). It looks like an absolute constant in a denominator: the value is 0.254 "
        "instead of 1.1 from a scale of 6e-08 down, where the truth's energy is 7e-13."
    )
    assert place.startswith("  Place: tests/faults/metrics.py:")
    assert "Try: divide by the truth's energy alone" in step
    assert "select='M003'" in reproduce


def test_one_value_for_a_batch_is_refused_with_a_hint() -> None:
    report = laws(metrics.one_value_for_the_batch)
    assert {r.status for r in report.results} == {"fail"}
    assert (
        "it gave a tensor [] for a batch of 1: expected real values [1]; one value for all of it: "
        "the batch is folded into the norm, for estimate [[2, 1], [1, 2]]" in report["M001"].cause
    )


def test_a_metric_that_raises_is_shown_the_example() -> None:
    result = laws(metrics.raises_on_large_matrices)["M001"]
    assert result.status == "fail"
    assert result.cause == (
        "it raised RuntimeError: only 2 x 2 is supported, for estimate "
        "[[2, 1, 1], [1, 2, 1], [1, 1, 2]] and truth [[2, 1, 1], [1, 2, 1], [1, 1, 2]] (complex64)"
    )
    assert result.place.startswith("tests/faults/metrics.py:")


def test_a_random_choice_is_named_and_nothing_else() -> None:
    report = laws(metrics.noisy)
    assert report["M001"].measurements["looks_like"] == ["a random choice in the distance"]
    assert report["M006"].measurements["looks_like"] == ["a random choice in the distance"]


def test_a_metric_that_changes_its_mind_is_named() -> None:
    answers = iter([1.0])

    def flaky(estimate: Tensor, truth: Tensor) -> Tensor:
        return metrics.frobenius_nmse(estimate, truth) + next(answers, 0.0)

    result = laws(flaky)["M001"]
    assert result.status == "fail"
    assert "different values for the same matrices" in result.cause


def test_the_same_seed_finds_the_same_example() -> None:
    case = ris_diag.Case(name="seeded", distance=metrics.batch_folded)
    first, again = (ris_diag.run(case, select="M006", seed=3)["M006"] for _ in range(2))
    assert first.measurements == again.measurements
    assert first.cause == again.cause


def test_random_states_are_left_alone() -> None:
    def states() -> tuple[object, str, list[int]]:
        return random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    laws(nmse, exempt=TWO_PARTS)
    assert states() == before


def test_the_profile_in_effect_sets_the_number_of_examples(few: int) -> None:
    tried = laws(metrics.frobenius_nmse)["M001"].measurements["examples"]
    assert few <= tried < 2 * few


def test_nothing_is_written_into_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    laws(metrics.root)
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_a_law_skips_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ris_diag.check.find_spec", lambda module: None)
    report = laws(nmse)
    assert {r.status for r in report.results} == {"skip"}
    assert report["M001"].cause == "did not run: needs pip install 'ris-diag[laws]'"


def test_a_limit_of_ones_own() -> None:
    case = ris_diag.Case(
        name="narrow",
        distance=metrics.squares_overflow,
        thresholds={
            f"{law}.decades": ris_diag.Override(value=15, reason="our gains are above 1e-15")
            for law in ("M009",)
        },
    )
    report = ris_diag.run(case, select="law")
    assert [r.message() for r in report.results if r.status != "pass"] == []


def test_an_exempt_law_is_reported_with_its_reason() -> None:
    result = Runner(ris_diag.Case(name="x", distance=nmse, exempt=TWO_PARTS)).run_check("M008")
    assert (result.status, result.exempt) == ("skip", TWO_PARTS["M008"])
    assert result.cause == "exempt: diagonal and off-diagonal entries are weighted apart"


def test_laws_declare_their_extra() -> None:
    assert get_check("M001").extra == "laws"


def test_matrices_are_printed_for_people() -> None:
    R = torch.tensor([[[2, 1j], [1 - 2.5j, 1 / 3]]], dtype=torch.complex128)
    assert printed(R) == "[[2, 1j], [1-2.5j, 0.3333]]"
    assert printed(R.repeat(2, 1, 1)).startswith("[[[2, 1j]")
