"""What a search costs and saves: `python -m tests.bench.bench_search` prints three numbers.

Two workers against one on the same trials, the share of bookkeeping in a trial, and the epochs
that pruning saves. Each is a measurement of this machine, not a test.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import optuna

from ris_diag.search.searchable import load_searchable
from ris_diag.search.study import run_workers
from ris_diag.search.training import Conditions, train
from ris_diag.search.winner import best_trial
from ris_diag.search.worker import trial_seed, work
from tests.search.helpers import begun, order

TRIALS = 24


def searched(
    folder: Path,
    workers: int,
    pruner: str = "none",
    trials: int = TRIALS,
    epochs: int = 20,
    target: str = "tests.search.tiny:tiny",
) -> tuple[float, optuna.Study]:
    """Seconds and the study; workers of 0 is this process."""
    an_order = order(folder, target, epochs=epochs, patience=epochs, pruner=pruner)
    study, _ = begun(an_order, trials)
    start = time.perf_counter()
    if workers:
        run_workers(an_order, study, workers, lambda trials: None)
    else:
        work(an_order)
    return time.perf_counter() - start, study


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["TINY_WAIT"] = "0.2"  # an epoch's time, without a fight for the cores
        one, _ = searched(root / "one", 1)
        two, _ = searched(root / "two", 2)
        print(f"two workers against one: {one / two:.2f} x ({one:.1f} s, {two:.1f} s)")
        seconds, study = searched(root / "kept", 0, trials=6)
        bare = load_searchable("tests.search.tiny:tiny")
        start = time.perf_counter()
        for trial in study.trials:
            conditions = Conditions(epochs=20, patience=20)
            train(bare.case(trial.params), conditions, trial_seed(0, trial.number))
        alone = time.perf_counter() - start
        epochs = 20 * len(study.trials)
        print(
            f"bookkeeping: {1000 * (seconds - alone) / epochs:.1f} ms an epoch, "
            f"{100 * (seconds - alone) / seconds:.1f} % of epochs of {1000 * alone / epochs:.0f} ms"
        )
        os.environ["TINY_WAIT"] = "0"
        for target in ("tests.search.tiny:noisy", *sys.argv[1:]):
            _, whole = searched(root / f"{target}-whole", 0, target=target)
            _, pruned = searched(root / f"{target}-pruned", 0, "hyperband", target=target)
            counts = [sum(len(t.intermediate_values) for t in s.trials) for s in (whole, pruned)]
            values = [best_trial(s).value for s in (whole, pruned)]
            print(
                f"pruning, {target}: {counts[1]} of {counts[0]} epochs, "
                f"{100 * (1 - counts[1] / counts[0]):.0f} % saved; "
                f"best {values[1]:.5g} against {values[0]:.5g}"
            )


if __name__ == "__main__":
    main()
