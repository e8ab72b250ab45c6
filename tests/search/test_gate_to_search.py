"""The whole way: the gate, its receipt, the search that asks for it; an edit, and all is closed."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ris_diag.cli import main

TRAINING = """\
import ris_diag
import torch
from labels_of_whole import truth
from torch import nn


def batch(split, seed, size):
    x = torch.randn(size, 8, generator=torch.Generator().manual_seed(seed % 2**31))
    return x, truth(x)


class Loader:
    def __init__(self, split, seed):
        self.x, self.y = batch(split, seed, 128)
        self.generator = torch.Generator().manual_seed(seed % 2**31)

    def __len__(self):
        return 8

    def __iter__(self):
        order = torch.randperm(128, generator=self.generator)
        return iter([(self.x[i], self.y[i]) for i in order.split(16)])


def wrong(scores, y):
    return (scores.argmax(1) != y).float().mean()


def case(*, learning_rate: float = 1e-2, width: int = 32):
    return ris_diag.Case(
        name="three-classes",
        model=lambda: nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3)),
        batch=batch,
        loader=Loader,
        loss=lambda model, batch, progress: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=learning_rate),
        predict=lambda model, batch: model(batch[0]),
        truth=lambda batch: batch[1],
        metric=lambda model, batch: wrong(model(batch[0]), batch[1]),
        baselines={"always class 0": lambda batch: (batch[1] != 0).float().mean()},
        declared=ris_diag.Declared(learning_rate=learning_rate, batch_size=16),
        exempt=dict.fromkeys(("covariance", "distance", "stored"), "classes are drawn"),
    )
"""


def ris_diag(*words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--case", "training_of_whole:case"])


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_gate_verify_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("training_of_whole", "labels_of_whole"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    Path("training_of_whole.py").write_text(TRAINING)
    labels = Path("labels_of_whole.py")
    labels.write_text("def truth(x):\n    return x[:, :3].argmax(1)\n")
    Path("space.toml").write_text("learning_rate = [0.01, 0.02]\n")
    few = ("--space", "space.toml", "--n-trials", "1", "--epochs-per-trial", "1")

    refused = ris_diag("hpo", *few)
    assert refused.exit_code == 2
    assert (
        ".ris-diag/receipt.json: No such file or directory. Run `ris-diag gate`" in refused.output
    )
    gate = ris_diag("gate")
    assert gate.exit_code == 0, gate.output
    assert "READY FOR FULL HPO" in gate.output.splitlines()
    assert ris_diag("verify").exit_code == 0
    search = ris_diag("hpo", *few)
    assert search.exit_code == 0, search.output
    assert "best: trial 0" in search.output
    assert ris_diag("verify").exit_code == 0  # a search is no change

    labels.write_text(labels.read_text().replace("argmax", "argmin"))
    said = "other sources (changed: labels_of_whole.py)"
    verify = ris_diag("verify")
    assert verify.exit_code == 1
    assert verify.output == f".ris-diag/receipt.json: not valid\n  {said}\n"
    refused = ris_diag("hpo", *few)
    assert refused.exit_code == 2
    assert f"no valid receipt for training_of_whole:case: {said}. Run `ris-diag gate`" in (
        refused.output
    )
