"""What a person sees of a running search."""

from io import StringIO

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from ris_diag.search.table import SHOWN, shown

EPOCHS = 20


def trials(states: list[TrialState]) -> list[FrozenTrial]:
    study = optuna.create_study()
    for number, state in enumerate(states):
        study.add_trial(
            create_trial(
                state=state,
                params={"learning_rate": 0.01 * (number + 1)},
                distributions={"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1.0)},
                value=0.5 if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
                intermediate_values={1: 0.9, 2: 0.5 + number},
                user_attrs={"check": "G001", "cause": "lam_cov=0"} if state.name == "FAIL" else {},
            )
        )
    return study.get_trials()


def printed(*snapshots: list[FrozenTrial], terminal: bool) -> str:
    out = StringIO()
    with shown(Console(file=out, force_terminal=terminal, width=80), EPOCHS) as watch:
        for snapshot in snapshots:
            watch(snapshot)
    return out.getvalue()


def test_without_a_terminal_each_trial_that_ends_is_one_line() -> None:
    running = trials([TrialState.COMPLETE, TrialState.RUNNING])
    ended = trials([TrialState.COMPLETE, TrialState.FAIL])
    assert printed(running, ended, ended, terminal=False).splitlines() == [
        "trial   0  complete    2/20    0.5000  learning_rate=0.01",
        "trial   1  fail        2/20    0.9000  G001 lam_cov=0",
    ]


def test_the_live_table_shows_what_runs() -> None:
    text = printed(trials([TrialState.COMPLETE, TrialState.RUNNING]), terminal=True)
    assert "0      complete  2/20    0.5000  learning_rate=0.01" in text
    assert "1      running   2/20    0.9000  learning_rate=0.02" in text
    assert "1 of 2 trials ended" in text


def test_the_live_table_stays_on_the_screen() -> None:
    states = [TrialState.COMPLETE] * 20 + [TrialState.RUNNING, TrialState.WAITING]
    text = printed(trials(states), terminal=True)
    shown_numbers = {
        int(line.split()[0]) for line in text.splitlines() if line.split()[1:2] == ["complete"]
    }
    assert shown_numbers == set(range(20 - SHOWN + 1, 20))
    assert "20 of 22 trials ended" in text
