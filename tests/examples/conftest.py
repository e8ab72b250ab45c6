"""Projects of their own: tests/test_examples.py runs copies of them."""

from pathlib import Path

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if Path(__file__).parent in config.invocation_params.dir.parents else True
