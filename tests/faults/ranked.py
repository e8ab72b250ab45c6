"""Runs cases of several processes, all in one launch.

python -m torch.distributed.run --standalone --nproc-per-node=2 -m tests.faults.ranked FILE
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 12.0  # seconds; less than a user has
Told = dict[str, dict[str, Any]]


def target_of(factory: Callable[[], Any]) -> str:
    """`module:factory`."""
    return f"{factory.__module__}:{factory.__name__}"


def launch(
    targets: Iterable[str], families: Sequence[str] = ("litmus",), *, ranks: int = 2
) -> Told:
    """Target of a case to what `Report.to_json` says of it, the seconds, and what it does.

    "outcome" is that of the case, "twin" that of its healthy twin, or of the case once more.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder, "asked.json"), Path(folder, "told.json")
        asked.write_text(json.dumps([list(targets), list(families)]), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={ranks}", "-m", "tests.faults.ranked", str(asked), str(told)),
        ]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(run.stdout + run.stderr)
        found: Told = json.loads(told.read_text(encoding="utf-8"))
        return found


def _main(asked: Path, told: Path) -> None:
    import torch

    from ris_diag.check import select_checks
    from ris_diag.ranks import launched_ranks
    from ris_diag.runner import Runner
    from tests.faults.all import RANKED_FAULTS
    from tests.faults.ranked_effects import outcome_of_rank

    twins = {target_of(fault.plant): fault.healthy for fault in RANKED_FAULTS}

    torch.set_num_threads(1)
    targets, families = json.loads(asked.read_text(encoding="utf-8"))
    found: Told = {}
    with launched_ranks(PATIENCE) as ranks:
        assert ranks is not None
        for target in targets:
            module, _, name = target.partition(":")
            factory = getattr(importlib.import_module(module), name)
            start = time.process_time()
            ranks.patience = PATIENCE
            runner = Runner(factory(), ranks=ranks, target=target)
            report = runner.run(select_checks(families))
            seconds = time.process_time() - start
            found[target] = {**report.to_json(), "seconds": seconds}
            for key, each in (("outcome", factory), ("twin", twins.get(target, factory))):
                found[target][key] = ranks.share(key, outcome_of_rank(each, ranks))
        if ranks.rank == 0:
            told.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
