"""The tutorials, done to the letter in an empty folder."""

import re
from pathlib import Path

import pytest
from sybil.example import SybilFailure

from tests.docs.api import ROOT
from tests.docs.walk import walk

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_shows_what_happens(page: Path, tmp_path: Path) -> None:
    assert walk(page, tmp_path) >= 3


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_has_no_block_that_nobody_runs(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= {"python", "toml", "console"}
    assert set(fences[1::2]) == {""}


FILE = '```python\n# one.py\nprint("one")\n```\n'


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (FILE + "```console\n$ python one.py\none\n$ echo two\ntwo\n```", ""),
        (FILE + '```python\n# one.py\nprint(2)\n```\n```console\n$ python one.py\n2\n```', ""),
        ("```console\n$ seq 5\n1\n...\n5\n```", ""),
        ("```console\n$ false\n$ echo $?\n1\n```", ""),
        ("```console\n$ cat; echo a > b; pwd > c\n$ cat b\na\n```", ""),
        (FILE + "```console\n$ python one.py\ntwo\n```", "Got:\n    one"),
        ("```console\n$ seq 5\n1\n...\n4\n```", "Got:\n    1\n    2"),
        ("```console\n$ false\n$ echo a\na\n```", "ended with 1, which the page doesn't show"),
        ("```console\n$ false\n```", "the last command ended with 1"),
        ("```python\nprint(1)\n```", "name of a file"),
        ("```console\nls\n```", "begin with a command"),
        ("```console\n$ echo a >&2\na\n```", "Got nothing"),
    ],
)  # fmt: skip
def test_a_page_that_is_wrong_is_found(tmp_path: Path, text: str, wrong: str) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "folder"
    folder.mkdir()
    page.write_text(text + "\n", encoding="utf-8")
    if not wrong:
        walk(page, folder)
        return
    with pytest.raises((SybilFailure, AssertionError), match=re.escape(wrong)):
        walk(page, folder)
