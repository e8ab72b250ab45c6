"""Which trial a worker takes next. Every trial of a search waits from the beginning.

The number of trials is therefore exact, whoever takes them, and the number of a trial, from which
its seeds derive, owes nothing to the number of workers.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from ris_diag.search.storage import HEARTBEAT, MOST_RETRIES, FileLock, Store

JUDGED = "check"  # attribute of a trial that failed by itself; one whose worker died lacks it


@dataclass
class Claim:
    """A trial that belongs to this worker.

    Attributes:
        origin: number of the trial, or of the one that it repeats, whose seeds it has.
    """

    trial: optuna.Trial
    trial_id: int
    number: int
    origin: int
    reported: dict[int, float]


def enqueue(study: optuna.Study, count: int, first: dict[str, Any]) -> None:
    """Let trials wait until the study has `count`; the first one has the default parameters."""
    have = sum(1 for trial in study.get_trials(deepcopy=False) if not retried(trial))
    for number in range(have, count):
        study.enqueue_trial(first if number == 0 else {})


def retried(trial: FrozenTrial) -> list[int]:
    """Numbers of the trials that it repeats, the first one first."""
    return list(trial.system_attrs.get("retry_history", []))


def over(study: optuna.Study) -> bool:
    """Whether nothing waits or runs."""
    states = (TrialState.WAITING, TrialState.RUNNING)
    return not study.get_trials(deepcopy=False, states=states)


@contextmanager
def claimed(study: optuna.Study, store: Store) -> Iterator[Claim | None]:
    """The next trial that waits, held until the end of the scope; None if there is none now."""
    with ExitStack() as held:
        with store.mutex():
            _fail_those_that_died(study, store)
            _requeue_lost(study)
            claim = _take(study, store, held)
        if claim is not None and store.beats:
            held.enter_context(_heartbeat(store, claim.trial_id))
        yield claim


def _take(study: optuna.Study, store: Store, held: ExitStack) -> Claim | None:
    """The claim; its lock is released with `held`, also if the storage raises meanwhile."""
    storage = store.storage
    for waiting in study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        if not store.beats:
            lock = _lock_of(store, waiting.number)
            if not lock.acquire(wait=False):
                continue
            held.callback(lock.release)
        store.beat(waiting._trial_id)  # a claim whose answer is lost is stale one day
        if storage.set_trial_state_values(waiting._trial_id, state=TrialState.RUNNING):
            origin = (retried(waiting) or [waiting.number])[0]
            trial = optuna.Trial(study, waiting._trial_id)
            return Claim(
                trial, waiting._trial_id, waiting.number, origin, dict(waiting.intermediate_values)
            )
    return None


def _lock_of(store: Store, number: int) -> FileLock:
    return FileLock(store.trial_folder(number) / "worker.lock")


def _fail_those_that_died(study: optuna.Study, store: Store) -> None:
    if store.beats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)
        return
    for running in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lock = _lock_of(store, running.number)
        if not lock.acquire(wait=False):
            continue  # its worker lives
        try:
            store.storage.set_trial_state_values(running._trial_id, state=TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass  # it had told its result before the lock was free
        finally:
            lock.release()


def _requeue_lost(study: optuna.Study) -> None:
    """Repeat every trial that failed because its worker died, if nobody repeats it yet."""
    trials = study.get_trials(deepcopy=False)
    repeated = {number for trial in trials for number in retried(trial)}
    again = _retry()
    for trial in trials:
        lost = trial.state == TrialState.FAIL and JUDGED not in trial.user_attrs
        if lost and trial.number not in repeated:
            again(study, deepcopy(trial))  # it writes into the history of what it is given


def given_up(trial: FrozenTrial) -> bool:
    """Whether a trial is the last of its retries, and its worker died again."""
    lost = trial.state == TrialState.FAIL and JUDGED not in trial.user_attrs
    return lost and len(retried(trial)) >= MOST_RETRIES


def _retry() -> RetryHeartbeatStaleTrialCallback:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RetryHeartbeatStaleTrialCallback(
            max_retry=MOST_RETRIES, inherit_intermediate_values=True
        )


@contextmanager
def _heartbeat(store: Store, trial_id: int) -> Iterator[None]:
    ended = Event()

    def beats() -> None:
        while not ended.wait(HEARTBEAT):
            store.beat(trial_id)

    thread = Thread(target=beats, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
