"""The best trial: kept so that it can be had again, and measured beside what it must beat."""

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from shutil import copyfile
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from ris_diag.case import Batch, Case
from ris_diag.context import to_device
from ris_diag.errors import SearchError
from ris_diag.randomness import derived_seed
from ris_diag.result import write_json
from ris_diag.search.claims import retried
from ris_diag.search.searchable import Searchable, load_searchable
from ris_diag.search.storage import Store
from ris_diag.search.training import Conditions, fresh_samples, metric_of, train
from ris_diag.search.worker import BEST, Order, trial_seed
from ris_diag.versions import versions

SEEDS = 3
SCHEMA = 1
ERRORS = 2.0  # standard errors by which the winner must be better


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The complete trial with the lowest metric.

    Raises:
        SearchError: no trial is complete; says why the others aren't.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [
        trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None
    ]
    if not complete:
        failed = [
            f"trial {t.number}: {t.user_attrs.get('cause', 'its worker was killed')}"
            for t in trials
            if t.state == TrialState.FAIL
        ]
        raise SearchError(f"no trial came to its end; {'; '.join(failed[:5]) or 'all were pruned'}")
    return min(complete, key=lambda trial: (trial.value, trial.number))


def keep(trial: FrozenTrial, order: Order, searchable: Searchable, store: Store) -> Path:
    """Write `best.json` and `best.pt`, each as a whole; returns the first."""
    origin = (retried(trial) or [trial.number])[0]
    weights = store.trial_folder(origin) / BEST
    if weights.is_file():
        part = store.folder / ".best.pt.part"
        copyfile(weights, part)
        part.replace(store.folder / BEST)
    path = store.folder / "best.json"
    write_json(
        path,
        {
            "schema": SCHEMA,
            "study": order.study,
            "trial": trial.number,
            "parameters": trial.params,
            "configuration": searchable.effective(trial.params),
            "value": trial.value,
            "best_epoch": trial.user_attrs.get("best_epoch"),
            "threads": order.threads,
            "weights": BEST,
            "versions": versions(),
            **order.described(),
            "search_seed": order.conditions.seed,
            "seed": trial_seed(order.conditions.seed, origin),
        },
    )
    return path


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training for the comparison, in a process of its own."""

    order: Order
    parameters: Mapping[str, Any]
    seed: int
    data_seed: int | None = None
    fresh: int | None = None


def trained(job: Job) -> float:
    """The metric of a training: the best on validation, or with `fresh` on samples of "test"."""
    torch.set_num_threads(job.order.threads)
    case = load_searchable(job.order.target).case(job.parameters)
    conditions = job.order.conditions
    progression = train(case, conditions, job.seed, data_seed=job.data_seed)
    if job.fresh is None:
        return progression.value
    if case.model is None:
        raise SearchError("the case has no model")
    model = case.model()
    model.load_state_dict(progression.best)
    device = torch.device(conditions.device)
    return metric_of(case, model.to(device), to_device(fresh_samples(case, job.fresh), device))


@dataclass(frozen=True)
class Comparison:
    """The winner beside what it must beat, on fresh samples.

    Attributes:
        again: the winner's metric on validation when it was trained again, the first time's.
        scores: name to the metric for every seed, the winner first.
    """

    value: float
    again: float
    scores: Mapping[str, Sequence[float]]

    @property
    def repeats(self) -> bool:
        """Whether training again gave the same number."""
        return self.value == self.again

    @property
    def better(self) -> bool:
        """Whether the winner is better than all others, by two standard errors."""
        return all(self.margin(name) > 0 for name in list(self.scores)[1:])

    def margin(self, name: str) -> float:
        """How far another is worse, less two standard errors of the paired differences."""
        winner = next(iter(self.scores.values()))
        differences = [b - a for a, b in zip(winner, self.scores[name], strict=True)]
        return statistics.mean(differences) - ERRORS * standard_error(differences)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "value": self.value,
            "again": self.again,
            "scores": {name: list(values) for name, values in self.scores.items()},
            "better": self.better,
        }


def standard_error(values: Sequence[float]) -> float:
    """Of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def compare(
    trial: FrozenTrial, order: Order, searchable: Searchable, workers: int,
    advance: Callable[[str], None] = lambda status: None,
) -> Comparison:  # fmt: skip
    """Train winner and default on three more seeds each, and the winner once more as it was."""
    seed = order.conditions.seed
    origin = (retried(trial) or [trial.number])[0]
    jobs = [Job(order=order, parameters=trial.params, seed=trial_seed(seed, origin))]
    seeds = [derived_seed(seed, "winner", str(k)) for k in range(SEEDS)]
    jobs += [
        Job(order=order, parameters=parameters, seed=s, data_seed=s, fresh=s)
        for parameters in (trial.params, {})
        for s in seeds
    ]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        numbers = []
        for number in pool.map(trained, jobs):
            numbers.append(number)
            advance(f"{number:.4g}")
    case = searchable.case({})
    scores = {"winner": numbers[1 : 1 + SEEDS], "default": numbers[1 + SEEDS :]}
    for s in seeds:
        for name, value in classical(case, fresh_samples(case, s)).items():
            scores.setdefault(name, []).append(value)
    return Comparison(float(trial.value or math.nan), numbers[0], scores)


def classical(case: Case, batch: Batch) -> dict[str, float]:
    """The metric of every answer that needs no training."""
    found = {name: float(answer(batch)) for name, answer in case.baselines.items()}
    parts = case.covariance
    if parts is not None and parts.truth is not None and case.distance is not None:
        truth = parts.truth(batch)
        for name, estimator in (parts.baselines or {}).items():
            found[name] = float(case.distance(estimator(batch), truth).mean())
    return found


def again_from(path: Path) -> float:
    """Train what `best.json` describes once more, as it was; its metric on validation."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    conditions = Conditions(
        epochs=kept["epochs"], patience=kept["patience"], seed=kept["search_seed"],
        device=kept["device"],
    )  # fmt: skip
    before = torch.get_num_threads()
    torch.set_num_threads(kept["threads"])
    try:
        case = load_searchable(kept["target"]).case(kept["configuration"])
        return train(case, conditions, kept["seed"]).value
    finally:
        torch.set_num_threads(before)
