"""Wrong declarations are refused where they are made, all at once."""

import re
from typing import Any

import pytest

import ris_diag
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
