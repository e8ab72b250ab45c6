"""The checks on the reference learner: `pytest -m guard`, `-m litmus`, `-m overfit`."""

from pytest_ris.suite import test_check

__all__ = ["test_check"]
