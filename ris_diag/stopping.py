"""Ctrl-C and SIGTERM: the first stops a run where it stands, the second ends the process."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

SOON = 0.05  # seconds
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


class Interrupted(BaseException):
    """Ends what is at work; an `except KeyboardInterrupt` in a loop doesn't take it for its own."""


class Stop:
    """Whether a run was told to stop.

    Attributes:
        signal: the first that came; None without any.
        held: from now on a signal is noted only; what is being written is finished.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.held = False
        self._again: threading.Timer | None = None

    @property
    def status(self) -> int:
        """The exit code by which a shell tells the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or 0)

    def look(self) -> None:
        """Stop now where code under test has swallowed it.

        Raises:
            Interrupted: a signal came.
        """
        if self.signal is not None and not self.held:
            raise Interrupted

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Stop at the first signal, end at the second."""
        if self.signal is not None and self._again is None:
            end_at_once(number, frame)
        self.signal, self._again = number, None
        self.look()

    def lost(self, args: "sys.UnraisableHookArgs") -> bool:
        """Send a signal anew whose exception went nowhere, as in a weak reference's callback."""
        if args.exc_type is not Interrupted or self.signal is None:
            return False
        main = threading.main_thread().ident or 0
        self._again = threading.Timer(SOON, signal.pthread_kill, (main, self.signal))
        self._again.start()
        return True

    def over(self) -> None:
        """Nothing is sent any more."""
        if self._again is not None:
            self._again.cancel()


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A handler that ends this process without another word."""
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(2, SHOW_CURSOR)
    os._exit(128 + number)


@contextmanager
def stoppable(
    signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[Stop]:
    """In the `with`, a signal raises `Interrupted` and is noted; the old handlers come back.

    What is ignored stays so, as behind `nohup`; beside the main thread nothing changes.
    """
    stop, owner = Stop(), os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            stop.handle(number, frame)
        elif number == signal.SIGINT:  # a forked worker is its parent's to stop
            raise KeyboardInterrupt
        else:
            os._exit(128 + number)

    unraisable = sys.unraisablehook

    def hook(args: "sys.UnraisableHookArgs") -> None:
        if not stop.lost(args):
            unraisable(args)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: signal.getsignal(n) for n in signals}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    sys.unraisablehook = hook
    try:
        yield stop
    finally:
        stop.over()
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
