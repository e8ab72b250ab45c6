"""What holds for every test."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _not_on_github() -> Iterator[None]:
    """Runs inside of tests add nothing to the summary of a job that runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS", "GITHUB_WORKSPACE"):
            patch.delenv(name, raising=False)
        yield
