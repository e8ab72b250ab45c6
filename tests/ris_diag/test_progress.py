"""Progress: bars where a person looks, nothing where a file is written, nothing left behind."""

import io
import re
import time

import pytest

from ris_diag import progress
from ris_diag.progress import ProgressFactory, bar, for_stream, silent


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """What is left on it: lines that aren't empty, as a terminal shows them."""
        rows, row, column = [""] * 99, 0, 0
        for code, up, sign in re.findall(
            r"(\x1b\[(\d*)[?\d;]*[A-Za-z])|(.)", self.getvalue(), re.S
        ):
            if code.endswith("A"):
                row -= int(up or 1)
            elif code == "\x1b[2K":
                rows[row] = ""
            elif sign == "\n":
                row, column = row + 1, 0
            elif sign == "\r":
                column = 0
            elif sign:
                rows[row] = rows[row][:column].ljust(column) + sign + rows[row][column + 1 :]
                column += 1
        return [line.rstrip() for line in rows if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_nothing_where_nobody_looks(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert for_stream(io.StringIO()) is silent
    assert for_stream(terminal, quiet=True) is silent
    monkeypatch.setenv("CI", "true")
    assert for_stream(terminal) is silent
    with silent("checks", 3) as advance:
        advance("L001")


@pytest.mark.parametrize("term", ["dumb", "unknown", None])
def test_plain_lines_where_the_cursor_stays(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    if term is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", term)
    shown = for_stream(terminal)
    with shown("loading train.py", None) as advance:
        advance("")
    with shown("memorising", 20) as advance:
        for step in range(20):
            advance("", step=0)
            advance(f"loss {step}" if step != 3 else "")
    lines = terminal.getvalue().splitlines()
    assert lines[:3] == ["loading train.py", "memorising: 2/20  loss 1", "memorising: 4/20"]
    assert lines[-1] == "memorising: 20/20  loss 19"
    assert len(lines) == 11


def work(shown: ProgressFactory, terminal: Terminal, *, until: str = "") -> None:
    """Two bars, one inside of the other, until a text is shown: that is ten times a second."""
    with shown("checks", 116) as outer:
        outer("O001 memorises", step=34)
        outer("O001 memorises", step=0)
        with shown("memorising", 200) as inner:
            inner("loss 0.5", step=100)
            deadline = time.monotonic() + 60
            while until not in terminal.getvalue() and time.monotonic() < deadline:
                time.sleep(0.02)


@pytest.mark.parametrize("no_color", [False, True])
def test_bars_vanish(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, *, no_color: bool
) -> None:
    monkeypatch.setattr(progress, "LATE", 0.0)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    work(bar(terminal), terminal, until="100/200")
    text = terminal.getvalue()
    assert terminal.screen() == []
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    for shown in ("checks", "34/116", "memorising", "100/200", "loss 0.5", "O001 memorises"):
        assert shown in text
    colours = {int(c) for codes in re.findall(r"\x1b\[([\d;]+)m", text) for c in codes.split(";")}
    assert not colours & {30, 37, 38, 40, 47, 48, 97, 107}  # black, white, more than 16 colours
    assert (not colours & set(range(31, 37))) is no_color


def test_a_bar_vanishes_behind_an_error(terminal: Terminal) -> None:
    def broken() -> None:
        with bar(terminal)("checks", 2) as advance:
            advance("L001")
            raise ValueError("cut")

    with pytest.raises(ValueError, match="cut"):
        broken()
    assert terminal.screen() == []
    with bar(terminal)("again", 2) as advance:
        advance("")


def test_what_is_quick_shows_no_bar_inside_of_another(terminal: Terminal) -> None:
    work(bar(terminal), terminal)
    assert "checks" in terminal.getvalue()
    assert "memorising" not in terminal.getvalue()


def test_a_line_that_was_begun_is_ended_in_front_of_a_bar(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    shown = bar(terminal, begin=lambda: begun.append(1))
    with shown("examples", 10) as advance:
        advance("")
    assert (begun, terminal.getvalue()) == ([], "")
    monkeypatch.setattr(progress, "LATE", 0.0)
    with shown("overfit", 10) as advance:
        advance("")
    assert begun == [1]


@pytest.mark.parametrize("columns", [20, 40, 200])
def test_a_bar_stays_in_its_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with bar(terminal)("loading my_package.my_module:my_case", None) as advance:
        advance("")
    with bar(terminal)("litmus", 63) as advance:
        advance("L019 a-name-that-is-as-long-as-they-come")
    plain = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "\n", terminal.getvalue())
    assert max(map(len, re.split(r"[\r\n]", plain))) <= columns
    assert "\x1b[1A" not in terminal.getvalue()
