"""Threads that train, ended as the main one is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


@contextmanager
def quietly_ended(by: type[BaseException]) -> Iterator[None]:
    """A thread that this exception ends prints no traceback; any other is reported as before."""
    before = threading.excepthook

    def hook(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is not by:
            before(ended)

    with patch.object(threading, "excepthook", hook):
        yield
