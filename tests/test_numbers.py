"""The numbers that the reference learner must reach, on several seeds. No timing here."""

import pytest

from model.array import PlanarArray
from model.case import Reference
from model.scene import SceneSettings
from ris_diag import Runner
from ris_diag.checks.overfit import generalised
from ris_diag.measure import litmus, short_fit

SEEDS = (0, 1, 2)
NOTE_TRAIN, NOTE_VALIDATION = 0.198, 0.187
FULL = Reference()
SMALL = Reference(scenes=SceneSettings(array=PlanarArray(n_h=4, n_v=4)), train_scenes=1024)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_litmus_falls_by_a_fifth_at_equal_beta(seed: int) -> None:
    first, last = litmus(Runner(FULL.case(), seed=seed).subject).equal_beta
    assert last <= 0.80 * first


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("reference", "share"), [(FULL, 0.95), (SMALL, 0.90)], ids=["144", "16"])
def test_overfit_reaches_the_note_and_beats_oas(
    reference: Reference, share: float, seed: int
) -> None:
    run = generalised(Runner(reference.case(), seed=seed).subject)
    means = {name: sum(values) / len(values) for name, values in run.per_scene.items()}
    last = run.fitted.epochs[-1]
    assert len(run.fitted.epochs) == 30
    assert len(run.per_scene["R_pred"]) >= 256
    assert last.train < NOTE_TRAIN
    assert last.validation is not None
    assert last.validation < NOTE_VALIDATION
    assert means["R_pred"] <= share * means["OAS"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_sixteen_scenes_are_memorised(seed: int) -> None:
    result = Runner(FULL.case(), seed=seed).run_check("O001")
    assert result.measurements["nmse_last"] <= 0.02


def test_same_seed_gives_the_same_losses_digit_for_digit() -> None:
    first, second = (short_fit(Runner(SMALL.case(), seed=5).subject) for _ in range(2))
    assert first.trace.losses == second.trace.losses
    assert first.epochs == second.epochs


def test_another_seed_gives_other_losses() -> None:
    first, second = (short_fit(Runner(SMALL.case(), seed=seed).subject) for seed in (5, 6))
    assert first.trace.losses != second.trace.losses
