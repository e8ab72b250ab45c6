"""The toolkit's errors as pytest's."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def usage_errors(place: str = "") -> Iterator[None]:
    """Turns the toolkit's errors into one line, which begins with `place`, and exit code 4."""
    from ris_diag.errors import RisDiagError

    try:
        yield
    except RisDiagError as error:
        raise pytest.UsageError(f"{place}: {error}" if place else str(error)) from error


@contextmanager
def plain_failures() -> Iterator[None]:
    """Turns the toolkit's errors into the failure of a test, without a traceback."""
    from ris_diag.errors import RisDiagError

    try:
        yield
    except RisDiagError as error:
        pytest.fail(str(error), pytrace=False)
