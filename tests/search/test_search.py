"""A search: what is counted, what never wins, what is the same again."""

import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from ris_diag.errors import SearchError
from ris_diag.search.claims import claimed, retried
from ris_diag.search.searchable import load_searchable
from ris_diag.search.study import judged, open_study
from ris_diag.search.winner import Comparison, again_from, best_trial, keep
from ris_diag.search.worker import work
from tests.search.helpers import begun, order

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_a_search_ends_with_the_asked_number_of_trials(folder: Path) -> None:
    an_order = order(folder)
    study, _ = begun(an_order, 10)
    work(an_order)
    assert len(study.trials) == 10
    counts = judged(study.get_trials())
    assert counts["COMPLETE"] + counts["PRUNED"] == 10
    assert counts["PRUNED"] > 0
    assert study.trials[0].params == {"learning_rate": 1e-2, "momentum": 0.5}  # the default


def test_every_epoch_is_reported_and_the_pruner_prunes(folder: Path) -> None:
    an_order = order(folder, epochs=9, pruner="successive-halving")
    study, _ = begun(an_order, 10)
    work(an_order)
    for trial in study.trials:
        epochs = sorted(trial.intermediate_values)
        assert epochs == list(range(1, len(epochs) + 1))
        assert (len(epochs) < 9) == (trial.state == TrialState.PRUNED)
    best = best_trial(study)
    assert best.value == min(best.intermediate_values.values())


def test_a_search_goes_on_and_grows(folder: Path) -> None:
    an_order = order(folder)
    begun(an_order, 3)
    work(an_order)
    study, _ = begun(an_order, 5)
    work(an_order)
    assert len(study.trials) == 5
    fresh = order(folder.with_name("other"))
    other, _ = begun(fresh, 5)
    work(fresh)
    assert [t.params for t in other.trials] == [t.params for t in study.trials]
    assert [t.values for t in other.trials] == [t.values for t in study.trials]


@pytest.mark.parametrize(
    ("kind", "check", "cause"),
    [
        ("raises", "L0", "RuntimeError: no such layer"),
        ("late", "L0", "RuntimeError: too late"),
        ("nan", "L020", "the loss is nan at epoch 1, step 1"),
        ("metric", "L020", "the metric is nan behind epoch 1"),
        ("minus", "L020", "the metric is -inf behind epoch 1"),
    ],
)
def test_a_trial_that_breaks_fails_and_never_ranks(
    folder: Path, kind: str, check: str, cause: str
) -> None:
    an_order = order(
        folder, "tests.search.tiny:breaking", table={"kind": ["none", kind]}, pruner="none"
    )
    study, _ = begun(an_order, 6)
    work(an_order)
    broken = [trial for trial in study.trials if trial.params["kind"] == kind]
    assert broken
    for trial in broken:
        assert trial.state == TrialState.FAIL
        assert trial.user_attrs["check"].startswith(check)
        assert cause in trial.user_attrs["cause"]
    assert all("tests/search/tiny.py" in t.user_attrs["place"] for t in broken if kind == "raises")
    assert best_trial(study).params["kind"] == "none"
    assert len(study.trials) == 6  # what failed by itself isn't tried again


def test_where_everything_breaks_there_is_no_winner(folder: Path) -> None:
    an_order = order(
        folder, "tests.search.tiny:breaking", table={"kind": ["nan", "none", "raises"]}
    )
    study, _ = begun(an_order, 1)
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    with pytest.raises(SearchError, match="no trial came to its end"):
        best_trial(study)


def test_a_study_of_another_objective_is_refused(folder: Path) -> None:
    an_order = order(folder)
    _, store = begun(an_order, 1)
    with pytest.raises(SearchError) as caught:
        open_study(an_order, store, 1, {"objective": "two", "metric": "model/case.py:7"}, {})
    assert str(caught.value) == (
        "study 'small' is about something else: objective: one then, two now; metric: nothing "
        "then, model/case.py:7 now. Its trials can't be compared with new ones: name another "
        "--study, or go back to what it was"
    )


def test_a_trial_of_a_worker_that_died_is_repeated_once(folder: Path) -> None:
    study, store = begun(order(folder), 2)
    with store.mutex():
        waiting = study.get_trials(states=(TrialState.WAITING,))[0]
        store.storage.set_trial_state_values(waiting._trial_id, state=TrialState.RUNNING)
    with claimed(study, store) as first, claimed(study, store) as second:
        assert first is not None
        assert second is not None
        assert {first.origin, second.origin} == {0, 1}
        with claimed(study, store) as third:
            assert third is None
    assert [retried(trial) for trial in study.trials] == [[], [], [0]]


def test_best_json_gives_the_same_metric_to_the_digit(folder: Path) -> None:
    an_order = order(folder)
    study, store = begun(an_order, 6)
    work(an_order)
    best = best_trial(study)
    path = keep(best, an_order, load_searchable(an_order.target), store)
    kept = json.loads(path.read_text())
    assert kept["parameters"] == best.params
    assert kept["configuration"] == {
        **load_searchable(an_order.target).defaults, **best.params,
    }  # fmt: skip
    assert (folder / "best.pt").is_file()
    assert again_from(path) == best.value


def test_better_is_said_only_if_it_is() -> None:
    better = Comparison(1.0, 1.0, {"winner": [1.0, 1.1, 0.9], "default": [2.0, 2.1, 1.9]})
    assert better.better
    assert better.repeats
    noise = Comparison(1.0, 1.5, {"winner": [1.0, 1.1, 0.9], "default": [1.0, 1.5, 0.8]})
    assert not noise.better
    assert not noise.repeats
    assert not Comparison(1.0, 1.0, {"winner": [1.0] * 3, "OAS": [1.0] * 3}).better


def test_optuna_says_nothing_itself(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    an_order = order(folder)
    begun(an_order, 2)
    work(an_order)
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    assert capfd.readouterr().err == ""
