"""Wrong declarations are refused where they are made, all at once."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import ris_diag
from ris_diag.covariance import CovarianceParts
from ris_diag.errors import CaseError


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"accumulation": 0}, "accumulation=0: expected a whole number from 1"),
        ({"accumulation": 1.5}, "accumulation=1.5: expected a whole number from 1"),
        ({"frozen": "head.*"}, "frozen='head.*': expected a list of patterns, ['backbone.*']"),
        (
            {"tied": ["a.weight", "b.weight"]},
            "tied=['a.weight', 'b.weight']: expected groups of names, [['a.weight', 'b.weight']]",
        ),
        ({"learning_rate": "1e-3"}, "learning_rate='1e-3': expected a number, or step -> number"),
    ],
)
def test_wrong_declarations(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=re.escape(f"Declared: {message}")):
        ris_diag.Declared(**wrong)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(CaseError, match=r"model must be callable.*; fit must be callable"):
        ris_diag.Case(name="x", model=1, fit="train")  # type: ignore[arg-type]  # the mistake


def test_the_name_in_full() -> None:
    assert ris_diag.TrainingCase is ris_diag.Case


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"exempt": ["L001"]}, "exempt must be a dict, not ['L001']"),
        ({"declared": {"accumulation": 2}}, "declared must be a ris_diag.Declared, not {"),
        ({"paths": "train"}, "paths must be a dict, not 'train'"),
    ],
)
def test_parts_of_the_wrong_kind(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=re.escape(message)):
        ris_diag.Case(name="x", **wrong)


@pytest.mark.parametrize(
    "wrong", [{"floor": "x"}, {"learning_rate": float("nan")}, {"weights": {"a": float("nan")}}]
)
def test_numbers_are_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(CaseError, match="expected a number"):
        ris_diag.Declared(**wrong)


def test_a_watched_script_saves_nothing_and_may_exit(tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_text("kept")

    def main() -> None:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            torch.autograd.backward(model(torch.rand(4, 2)).square().mean())
            optimizer.step()
            torch.save(model.state_dict(), checkpoint)
        raise SystemExit(0)

    result = ris_diag.run(ris_diag.Case(name="script", main=main), select="L011")["L011"]
    assert (result.status, result.measurements["steps"]) == ("pass", 5)
    assert checkpoint.read_text() == "kept"
    torch.save(1, tmp_path / "behind.pt")
    assert (tmp_path / "behind.pt").exists()


def test_parts_of_a_covariance_that_cannot_be_called() -> None:
    with pytest.raises(CaseError) as refused:
        ris_diag.Covariance(sample=1, truth="R", baselines=[])  # type: ignore[arg-type]  # the mistake
    assert str(refused.value) == (
        "Covariance: sample must be callable, not 1; truth must be callable, not 'R'; "
        "baselines must be a dict, not []"
    )


def test_a_covariance_of_the_wrong_kind() -> None:
    with pytest.raises(CaseError, match=r"covariance must be a ris_diag\.Covariance, not \{\}"):
        ris_diag.Case(name="x", covariance={})  # type: ignore[arg-type]  # the mistake


def test_data_alone_unlock_what_reads_data_alone() -> None:
    case = ris_diag.Case(
        name="data", covariance=ris_diag.Covariance(sample=lambda b: b[0], truth=lambda b: b[1])
    )
    assert case.offers("covariance.sample")
    assert not case.offers("covariance.predict")
    assert not case.offers("prediction")


def test_reading_a_part_that_is_not_declared_is_said() -> None:
    parts = CovarianceParts(ris_diag.Covariance())
    with pytest.raises(CaseError, match=r"read Case\.covariance\.blend without declaring"):
        _ = parts.blend
