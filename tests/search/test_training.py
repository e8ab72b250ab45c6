"""One training of a search: metric every epoch, patience, resuming, what is not finite."""

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model.array import PlanarArray
from model.blend import BlendSchedule
from model.case import Reference
from model.scene import SceneSettings
from model.train import TrainSettings
from ris_diag.case import Case
from ris_diag.errors import CaseError, SearchError
from ris_diag.plan import Plan
from ris_diag.search.checkpoint import load, save
from ris_diag.search.training import Conditions, NotFinite, train
from tests.search.tiny import breaking, own_loop, own_loop_kept, tiny

CONDITIONS = Conditions(epochs=5, patience=5)


class Interrupted(Exception):  # noqa: N818  # it is no error
    pass


@pytest.mark.parametrize("factory", [tiny, own_loop])
def test_the_metric_is_told_behind_every_epoch(factory: object) -> None:
    told: list[tuple[int, float]] = []
    case = tiny() if factory is tiny else own_loop()
    progression = train(case, CONDITIONS, 1, on_epoch=lambda e, v: told.append((e, v)))
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4, 5]
    assert progression.values == [value for _, value in told]
    assert progression.value == min(progression.values) < progression.values[0]
    assert progression.best_epoch == 5
    assert progression.best.keys() == {"weight", "bias"}


def test_the_callers_random_state_stays() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    first = train(tiny(hidden=4), CONDITIONS, 1).values
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert before[0].equal(after[0])
    assert before[1:] == after[1:]
    assert train(tiny(hidden=4), CONDITIONS, 1).values == first
    assert train(tiny(hidden=4), CONDITIONS, 2).values != first


@pytest.mark.parametrize("factory", [tiny, own_loop])
def test_patience_ends_a_training_that_stands_still(factory: object) -> None:
    conditions = Conditions(epochs=50, patience=2)
    case = tiny(learning_rate=0.0) if factory is tiny else own_loop(learning_rate=0.0)
    assert len(train(case, conditions, 1).values) == 3


SMALL = Reference(
    scenes=SceneSettings(array=PlanarArray(n_h=4, n_v=4)),
    train=TrainSettings(schedule=BlendSchedule(jitter=0.05)),
    train_scenes=64,
)


@pytest.mark.parametrize("stopped_at", [1, 3, 5])
@pytest.mark.parametrize(
    "case",
    [tiny(hidden=4), own_loop_kept(), SMALL.case()],
    ids=["steps", "own loop", "reference"],
)
def test_a_training_that_is_resumed_gives_the_same_to_the_digit(
    tmp_path: Path, case: Case, stopped_at: int
) -> None:
    path = tmp_path / "checkpoint.pt"
    whole = train(case, CONDITIONS, 7)

    def stop(epoch: int, value: float) -> None:
        if epoch == stopped_at:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(case, CONDITIONS, 7, on_epoch=stop, checkpoint=path)
    told: list[int] = []
    resumed = train(case, CONDITIONS, 7, on_epoch=lambda e, v: told.append(e), checkpoint=path)
    assert resumed.values == whole.values
    assert all(resumed.best[name].equal(whole.best[name]) for name in whole.best)
    assert told == [1, 2, 3, 4, 5]  # the epochs behind it are told again


def test_a_resumed_training_takes_no_step_twice(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    steps: list[int] = []
    case = own_loop_kept()
    fit = case.fit

    def counted(model: nn.Module, plan: Plan) -> Any:
        assert fit is not None

        def heard(epoch: int, losses: Any) -> None:
            steps.append(epoch)
            plan.on_step(epoch, losses)

        return fit(model, replace(plan, on_step=heard))

    def stop(epoch: int, value: float) -> None:
        if epoch == 3:
            raise Interrupted

    case = replace(case, fit=counted)
    with pytest.raises(Interrupted):
        train(case, CONDITIONS, 7, on_epoch=stop, checkpoint=path)
    train(case, CONDITIONS, 7, checkpoint=path)
    assert steps == [epoch for epoch in (1, 2, 3, 4, 5) for _ in range(4)]


def test_another_loop_does_not_resume(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train(own_loop(), CONDITIONS, 7, checkpoint=path)
    whole = train(own_loop_kept(), CONDITIONS, 7)
    assert train(own_loop_kept(), CONDITIONS, 7, checkpoint=path).values == whole.values


def test_what_a_loop_keeps_must_be_one_that_can_be_kept(tmp_path: Path) -> None:
    def fit(model: nn.Module, plan: Plan) -> Any:
        plan.resume(model, [3])

    with pytest.raises(CaseError, match=r"plan\.resume: list \(\[3\]\) has no state_dict"):
        train(replace(own_loop(), fit=fit), CONDITIONS, 7, checkpoint=tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("case", [tiny(), own_loop_kept()], ids=["steps", "own loop"])
def test_a_checkpoint_holds_no_code(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "checkpoint.pt"
    train(case, CONDITIONS, 7, checkpoint=path)
    state = torch.load(path, weights_only=True)
    assert state["epoch"] == 5
    assert {"model", "kept", "random", "values", "best"} <= state.keys()


def test_a_checkpoint_that_can_not_be_read_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"PK\x03\x04 half a file")
    (tmp_path / ".unfinished-abc").write_bytes(b"of a process that was killed")
    assert load(path, torch.device("cpu")) is None
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert (
        train(tiny(), CONDITIONS, 7, checkpoint=path).values == train(tiny(), CONDITIONS, 7).values
    )


def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    save(path, {"epoch": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ris_diag.search.checkpoint.os.fsync", full)
    with pytest.raises(SearchError, match=r"checkpoint\.pt can't be written \(No space left"):
        train(tiny(), CONDITIONS, 7, checkpoint=path)
    assert load(path, torch.device("cpu")) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_what_is_not_finite_is_told_with_epoch_and_step() -> None:
    with pytest.raises(NotFinite, match="the loss is nan at epoch 1, step 1"):
        train(breaking(kind="nan"), CONDITIONS, 1)
    for kind in ("metric", "minus"):
        with pytest.raises(NotFinite, match=r"the metric is (nan|-inf) behind epoch 1"):
            train(breaking(kind=kind), CONDITIONS, 1)
    assert math.isfinite(train(breaking(), CONDITIONS, 1).value)
