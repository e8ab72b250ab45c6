"""One training of a search: metric every epoch, patience, resuming, what is not finite."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ris_diag.errors import SearchError
from ris_diag.search.checkpoint import load, save
from ris_diag.search.training import Conditions, NotFinite, train
from tests.search.tiny import breaking, own_loop, tiny

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


@pytest.mark.parametrize("stopped_at", [1, 3, 4])
def test_a_training_that_is_resumed_gives_the_same_to_the_digit(
    tmp_path: Path, stopped_at: int
) -> None:
    case, path = tiny(hidden=4), tmp_path / "checkpoint.pt"
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


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    train(tiny(), CONDITIONS, 7, checkpoint=path)
    state = torch.load(path, weights_only=True)
    assert state["epoch"] == 5
    assert {"model", "optimizers", "scheduler", "random", "values", "best"} <= state.keys()


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
