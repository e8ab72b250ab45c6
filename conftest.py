"""The worked example: a user's conftest.py names the training under test like this."""

import pytest

import ris_diag
from model.case import reference

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def ris_case() -> ris_diag.Case:
    """The training that `pytest -m guard`, `-m litmus` and `-m overfit` check."""
    return reference()
