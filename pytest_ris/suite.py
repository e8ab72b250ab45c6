"""Ready-made test: run `pytest --pyargs pytest_ris.suite`, or import it into a test file."""

from pytest_ris.session import Run


def test_check(ris_check: str, ris_run: Run) -> None:
    """Run one check on the case under test; pytest makes one test of every check."""
    ris_run(ris_check)
