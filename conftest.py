"""The worked example: a user's conftest.py names the training under test like this."""

import os

import hypothesis
import pytest
import torch

import ris_diag

# Laws and property tests: `--hypothesis-profile nightly` tries ten times as many examples.
hypothesis.settings.register_profile("ci", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("ci")

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def ris_case() -> ris_diag.Case:
    """The training that `pytest -m guard`, `-m litmus` and `-m overfit` check."""
    from model.case import reference  # not above: your own model.py may stand in its place

    return reference()


def pytest_configure() -> None:
    """Share the cores among xdist's workers: threads of all would wait for each other."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
