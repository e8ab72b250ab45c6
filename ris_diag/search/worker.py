"""One worker of a search: takes trials, trains them, tells what came out."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from ris_diag.errors import SearchError
from ris_diag.randomness import derived_seed
from ris_diag.search.checkpoint import save, writing
from ris_diag.search.claims import JUDGED, Claim, claimed, over
from ris_diag.search.failure import Failure, failure_of
from ris_diag.search.pruning import pruner_of
from ris_diag.search.searchable import Searchable, load_searchable
from ris_diag.search.space import Space, make_space
from ris_diag.search.storage import Store
from ris_diag.search.training import Conditions, train

log = logging.getLogger("ris_diag")
CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
STARTUP = 8  # trials that are drawn at random before the sampler learns from them
POLL = 0.5  # s


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is told: plain data, which another process can read.

    Attributes:
        space: as in the file, parameter to its entry.
        url: of the database; None is the journal in `folder`.
        threads: of torch.
    """

    study: str
    target: str
    space_name: str
    space: Mapping[str, Any]
    conditions: Conditions
    pruner: str
    folder: Path
    url: str | None
    threads: int

    def described(self) -> dict[str, Any]:
        """For a report: everything but where it is kept."""
        return {"target": self.target, "pruner": self.pruner, **asdict(self.conditions)}


def work(order: Order) -> None:
    """Take trials until none waits or runs.

    Raises:
        SearchError: the storage can't be opened, a checkpoint or the journal can't be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(order.threads)
    searchable = load_searchable(order.target)
    space = make_space(order.space_name, order.space, searchable.defaults)
    store = Store(order.url, order.folder)
    study = optuna.load_study(
        study_name=order.study,
        storage=store.storage,
        pruner=pruner_of(order.pruner, order.conditions.epochs),
    )
    while True:
        with writing(store.shown), claimed(study, store) as claim:
            if claim is not None:
                _run(claim, order, searchable, space, store, study)
                continue
        if over(study):
            return
        time.sleep(POLL)  # another worker has the last ones, which may come back


def trial_seed(order_seed: int, origin: int) -> int:
    """The seed of a trial: the same for whoever takes it, and when it is repeated."""
    return derived_seed(order_seed, "trial", str(origin))


def sampler_of(seed: int, origin: int) -> optuna.samplers.BaseSampler:
    """TPE, whose random numbers are the trial's own: no two workers begin alike."""
    return optuna.samplers.TPESampler(
        seed=derived_seed(seed, "sampler", str(origin)),
        n_startup_trials=STARTUP,
        constant_liar=True,
    )


def _run(
    claim: Claim, order: Order, searchable: Searchable, space: Space, store: Store,
    study: optuna.Study,
) -> None:  # fmt: skip
    trial, conditions = claim.trial, order.conditions
    study.sampler = sampler_of(conditions.seed, claim.origin)
    folder = store.trial_folder(claim.origin)
    state, value, failure = TrialState.COMPLETE, math.nan, None
    parameters: dict[str, Any] = {}

    def on_epoch(epoch: int, metric: float) -> None:
        with writing(store.shown):
            if epoch not in claim.reported:
                trial.report(metric, epoch)
            if epoch < conditions.epochs and trial.should_prune():
                raise optuna.TrialPruned

    started = time.monotonic()
    try:
        parameters = space.suggest(trial)
        case = searchable.case(parameters)
        progression = train(
            case,
            conditions,
            trial_seed(conditions.seed, claim.origin),
            on_epoch=on_epoch,
            checkpoint=folder / CHECKPOINT,
        )
        value = progression.value
        with writing(folder / BEST):
            save(folder / BEST, progression.best)
        trial.set_user_attr("best_epoch", progression.best_epoch)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except SearchError:
        raise  # the disk is full or read-only: not the trial's fault, and no worker can go on
    except UpdateFinishedTrialError:
        log.warning("trial %d was taken over by another worker", claim.number)
        return
    except optuna.exceptions.OptunaError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever the code under test raises
        state, failure = TrialState.FAIL, failure_of(error, searchable, parameters, conditions)
    _tell(claim, store, study, state, value, failure, time.monotonic() - started)
    (folder / CHECKPOINT).unlink(missing_ok=True)  # nobody resumes what is over


def _tell(
    claim: Claim, store: Store, study: optuna.Study, state: TrialState, value: float,
    failure: Failure | None, seconds: float,
) -> None:  # fmt: skip
    try:
        claim.trial.set_user_attr("seconds", round(seconds, 3))
        if failure is not None:
            for key, text in (
                (JUDGED, failure.check),
                ("cause", failure.cause),
                ("place", failure.place),
            ):
                claim.trial.set_user_attr(key, text)
        values = None
        if state == TrialState.COMPLETE:
            values = [value]
        elif state == TrialState.PRUNED and (last := claim_last(study, claim)) is not None:
            values = [last]
        store.storage.set_trial_state_values(claim.trial_id, state=state, values=values)
    except UpdateFinishedTrialError:
        log.warning("trial %d was taken over by another worker", claim.number)


def claim_last(study: optuna.Study, claim: Claim) -> float | None:
    """The metric that a trial reported last."""
    reported = study.get_trials(deepcopy=False)[claim.number].intermediate_values
    return reported[max(reported)] if reported else None
