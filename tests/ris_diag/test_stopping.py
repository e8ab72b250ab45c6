"""Signals: the first stops, the second ends, and nothing of it stays behind."""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from ris_diag import stopping
from ris_diag.stopping import Interrupted, stoppable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _left_as_it_was() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS], sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before[0][0])
    assert ([signal.getsignal(number) for number in SIGNALS], sys.unraisablehook) == before


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_stops(number: int, status: int) -> None:
    with stoppable() as stop, pytest.raises(Interrupted):
        signal.raise_signal(number)
    assert stop.signal == number
    assert stop.status == status
    # Neither is what a training catches to save its weights.
    assert not issubclass(Interrupted, Exception | KeyboardInterrupt)


def test_the_second_ends_at_once(ends: list[int]) -> None:
    with stoppable():
        with contextlib.suppress(Interrupted):
            signal.raise_signal(signal.SIGINT)
        with contextlib.suppress(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert ends == [130]


def test_what_was_swallowed_is_found_later() -> None:
    with stoppable() as stop:
        stop.look()
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted):
            stop.look()


def test_it_waits_for_what_is_being_written() -> None:
    with stoppable() as stop:
        stop.held = True
        signal.raise_signal(signal.SIGINT)
        stop.look()
        assert stop.signal == signal.SIGINT


def test_what_was_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_signal_in_a_callback_comes_again(
    ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing raised there reaches anybody."""

    class Cell:
        pass

    def lose_one() -> None:
        cell = Cell()
        references.append(weakref.ref(cell, lambda _: signal.raise_signal(signal.SIGINT)))
        del cell
        gc.collect()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # one long sleep may begin just behind the signal
            time.sleep(0.01)

    references: list[weakref.ref[Cell]] = []
    with stoppable(), pytest.raises(Interrupted):
        lose_one()
    assert references[0]() is None
    assert ends == []
    assert capsys.readouterr().err == ""


def test_another_error_in_a_callback_is_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: told.append(args.exc_type))

    class Cell:
        def __del__(self) -> None:
            raise ValueError

    with stoppable():
        Cell()
        gc.collect()
    assert told == [ValueError]
    monkeypatch.undo()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_worker_ends_without_a_word_for_its_parent() -> None:
    for number, status in ((signal.SIGINT, 7), (signal.SIGTERM, 143)):
        with stoppable() as stop:
            child = os.fork()
            if child == 0:
                try:
                    signal.raise_signal(number)
                except KeyboardInterrupt:
                    os._exit(7)
                os._exit(8)
            _, code = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(code) == status
            assert stop.signal is None


def test_beside_the_main_thread_nothing_changes() -> None:
    seen: list[object] = []

    def body() -> None:
        with stoppable():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_an_end_shows_the_cursor(ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(os, "write", lambda number, text: written.append(text))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    stopping.end_at_once(signal.SIGINT, None)
    assert (written, ends) == ([b"\x1b[?25h"], [130])
