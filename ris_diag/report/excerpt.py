"""The lines that a place names, with those around them."""

import re
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

AROUND = 3
PLACE = re.compile(r"([^\s,:()]+\.py):(\d+)")
LONGEST = 160  # letters of a line; more is no source that was written by hand


class Line(NamedTuple):
    """A line of an excerpt; `marked` where it is the one that is meant."""

    number: int
    text: str
    marked: bool


class Excerpt(NamedTuple):
    """Lines of one file."""

    path: str
    lines: list[Line]


def excerpts(place: str) -> list[Excerpt]:
    """For every file:line in a place the lines around it; nothing for a file that isn't here."""
    found = []
    for path, line in dict.fromkeys(PLACE.findall(place)):
        text = _text(Path(path))
        marked = int(line)
        if not 1 <= marked <= len(text):
            continue
        first = max(1, marked - AROUND)
        shown = dedent("\n".join(text[first - 1 : marked + AROUND])).split("\n")
        lines = [
            Line(number, code[:LONGEST], number == marked)
            for number, code in enumerate(shown, start=first)
        ]
        found.append(Excerpt(path, lines))
    return found


def _text(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
