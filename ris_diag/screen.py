"""Fits lines to where they are written: its width, its encoding, its colours."""

import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import NamedTuple, TextIO

HANGING = 4  # columns by which what is wrapped stands to the right, in a block
KEPT = "\x1f"  # written as a space, at which no line is wrapped
SECONDS = re.compile(r"(?<=\d) (?=s\b)")
SPARKS = "▁▂▃▄▅▆▇█"
PLAIN = str.maketrans(dict(zip(SPARKS, "_.-:=+*#", strict=True)) | {"…": "..."})
COMMAND = "Reproduce: "


class Line(NamedTuple):
    """A line and its style: names of ANSI, as "bold red"; never black or white."""

    text: str
    style: str = ""


def fitted(lines: Iterable[Line], *, width: int | None, encoding: str | None) -> list[Line]:
    """Lines that a stream can hold, wrapped between words.

    Args:
        width: columns; None wraps nothing. A word that is longer, as a path, stays whole.
        encoding: of the stream; what it has no sign for is written in ASCII.
    """
    return [
        Line(part.replace(KEPT, " "), style)
        for text, style in lines
        for part in _wrapped(encodable(text, encoding), width)
    ]


def encodable(text: str, encoding: str | None) -> str:
    """The text in signs of an encoding."""
    encoding = encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    return text


def width_of(file: TextIO) -> int | None:
    """Columns of a terminal; None for a file or a pipe, whose lines stay as long as they are."""
    return shutil.get_terminal_size().columns if file.isatty() else None


def show(lines: Iterable[Line], file: TextIO) -> None:
    """Write lines to a file or terminal; no colours with NO_COLOR or on a pipe."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, highlight=False, soft_wrap=True)
    for text, style in fitted(lines, width=width_of(file), encoding=file.encoding):
        console.print(Text(text, style))


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None or len(text) <= width:
        return [text]
    indent = len(text) - len(text.lstrip()) or 2
    command = text.strip().startswith(COMMAND)
    parts = textwrap.wrap(
        SECONDS.sub(KEPT, text),
        width=width - 2 * command,
        subsequent_indent=" " * (indent + HANGING),
        break_long_words=False,
        break_on_hyphens=False,
    )
    # A shell reads on behind a backslash: what is copied runs.
    return [f"{part} \\" for part in parts[:-1]] + parts[-1:] if command else parts
