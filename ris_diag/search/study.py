"""A search from its first look at the space to its last trial."""

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from ris_diag.errors import SearchError
from ris_diag.search.claims import enqueue, over, retried
from ris_diag.search.identity import refuse_another
from ris_diag.search.pruning import pruner_of
from ris_diag.search.storage import Store
from ris_diag.search.worker import Order, work

IDENTITY, WITHOUT_GATE = "fingerprint", "without_gate"
POLL = 0.3  # s
MOST_RESTARTS = 20  # of workers that were killed, in one search

Watch = Callable[[list[FrozenTrial]], None]


def open_study(
    order: Order, store: Store, count: int, identity: Mapping[str, str], first: Mapping[str, Any],
    without_gate: str | None = None,
) -> optuna.Study:  # fmt: skip
    """Make a study of `count` trials, or go on with it.

    Args:
        identity: what the study is about.
        first: parameters of the first trial, the default configuration.
        without_gate: why no receipt was asked for; stands in the study.

    Raises:
        SearchError: the study is about something else.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with store.mutex():
        study = optuna.create_study(
            study_name=order.study,
            storage=store.storage,
            direction="minimize",
            load_if_exists=True,
            pruner=pruner_of(order.pruner, order.conditions.epochs),
        )
        known = study.user_attrs.get(IDENTITY)
        if known is not None:
            refuse_another(order.study, known, identity)
        study.set_user_attr(IDENTITY, dict(identity))
        if without_gate is not None:
            study.set_user_attr(WITHOUT_GATE, without_gate)
        enqueue(study, count, dict(first))
    return study


def run_workers(order: Order, study: optuna.Study, count: int, watch: Watch) -> None:
    """Let `count` processes work until the search is over; one that is killed is replaced.

    Raises:
        SearchError: a worker ended by itself before the search was over.
    """
    context = multiprocessing.get_context("spawn")
    restarts = 0

    def start(number: int) -> BaseProcess:
        process = context.Process(target=work_quietly, args=(on_card(order, number),), daemon=True)
        process.start()
        return process

    workers = [start(number) for number in range(count)]
    try:
        while any(worker.is_alive() for worker in workers) or not over(study):
            for number, worker in enumerate(workers):
                if worker.is_alive() or worker.exitcode == 0:
                    continue
                if (worker.exitcode or 0) > 0:
                    raise SearchError(
                        f"worker {number} ended with exit code {worker.exitcode}; its message "
                        "stands above. The trials so far are kept: the same command goes on"
                    )
                restarts += 1
                if restarts > MOST_RESTARTS:
                    raise SearchError(f"{restarts} workers were killed: is there enough memory?")
                workers[number] = start(number)
            if all(worker.exitcode == 0 for worker in workers) and not over(study):
                workers[0] = start(0)  # a worker elsewhere died with the last trial
            watch(study.get_trials(deepcopy=False))
            time.sleep(POLL)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    watch(study.get_trials(deepcopy=False))


def work_quietly(order: Order) -> None:
    """A worker's process: an error that is the user's to mend is one line."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        work(order)
    except SearchError as error:
        os.write(2, f"{error}\n".encode())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(1) from None


def on_card(order: Order, number: int) -> Order:
    """The order with a GPU of the worker's own, where "cuda" was asked for."""
    if order.conditions.device != "cuda":
        return order
    device = f"cuda:{number % max(1, torch.cuda.device_count())}"
    return replace(order, conditions=replace(order.conditions, device=device))


def judged(trials: list[FrozenTrial]) -> dict[str, int]:
    """How many trials ended how; those that were repeated don't count."""
    repeated = {number for trial in trials for number in retried(trial)}
    counted = [trial for trial in trials if trial.number not in repeated]
    return {state.name: sum(trial.state == state for trial in counted) for state in TrialState}
