"""Every link of every document leads somewhere, every file that a document names is there."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.docs.api import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ROOMS = ("model", "ris_diag", "pytest_ris", "tests", "docs")
# Files of a reader's own, and those that commands write.
READERS = {"train.py", "my_case.py"}
MARKDOWN = MarkdownIt("commonmark").enable("table")
BY_NAME = {path.name for room in ROOMS for path in (ROOT / room).rglob("*.*")}


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a document, those inside of paragraphs too."""
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def links(text: str) -> list[str]:
    """Targets of links and pictures; blocks of code have none."""
    found = []
    for token in tokens(text):
        target = token.attrGet("href") or token.attrGet("src")
        if target:
            found.append(str(target))
        if token.type in ("html_inline", "html_block"):
            found += re.findall(r"(?:href|src)=\"([^\"]+)\"", token.content)
    return found


def anchors(text: str) -> set[str]:
    """What a `#` may name: headings, as GitHub spells them."""
    inline = [b for a, b in pairs(list(MARKDOWN.parse(text))) if a.type == "heading_open"]
    seen: Counter[str] = Counter()
    found = set()
    for heading in inline:
        plain = "".join(child.content for child in heading.children or ())
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def pairs(items: list[Token]) -> Iterator[tuple[Token, Token]]:
    return pairwise(items)


def wrong_link(document: Path, target: str) -> str:
    """What is wrong with a link, or nothing. Of other sites only the spelling is judged."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        fine = parts.scheme in ("http", "https") and re.fullmatch(r"[\w.\-]+\.\w+", parts.netloc)
        return "" if fine else f"{target}: expected https://..."
    file = document.parent / unquote(parts.path) if parts.path else document
    if not file.exists():
        return f"{target}: no such file"
    if parts.fragment and parts.fragment not in anchors(file.read_text(encoding="utf-8")):
        return f"{target}: no such heading"
    return ""


def lost_files(document: Path) -> list[str]:
    """Files of the project that a text names between backticks, and that aren't there."""
    lost = []
    for token in tokens(document.read_text(encoding="utf-8")):
        name = token.content.partition(":")[0]
        if token.type != "code_inline" or not re.fullmatch(r"[a-z_][\w/.\-]*\.(py|md|toml)", name):
            continue
        if name.startswith(tuple(f"{room}/" for room in ROOMS)):
            places = [ROOT / name, document.parent / name, *(ROOT / r / name for r in ROOMS)]
            lost += [] if any(place.exists() for place in places) else [name]
        elif "/" not in name and name.endswith(".py"):
            known = name in BY_NAME | READERS or (ROOT / name).exists()
            lost += [] if known else [name]
    return lost


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    targets = links(document.read_text(encoding="utf-8"))
    assert [wrong for wrong in (wrong_link(document, t) for t in targets) if wrong] == []
    assert lost_files(document) == []


def test_every_document_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop().resolve()
        if document in reached or document.suffix != ".md":
            continue
        reached.add(document)
        targets = [urlsplit(t) for t in links(document.read_text(encoding="utf-8"))]
        waiting += [document.parent / t.path for t in targets if t.path and not t.netloc]
    assert {path.relative_to(ROOT) for path in DOCUMENTS if path not in reached} == set()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](two.md) [b](two.md#a-part) ![c](two.md) [d](#here)\n\n# Here", ""),
        ("[a](https://pytorch.org/docs)", ""),
        ("```\n[a](none.md)\n```\n`[a](none.md)`", ""),
        ("[a](none.md)", "none.md: no such file"),
        ("| a |\n|---|\n| [a](none.md) |", "none.md: no such file"),
        ('<img src="none.png">', "none.png: no such file"),
        ("[a](two.md#another)", "two.md#another: no such heading"),
        ("[a](#there)\n\n# Here", "#there: no such heading"),
        ("[a](htps://pytorch.org)", "htps://pytorch.org: expected https://..."),
        ("[a](https:/pytorch.org)", "https:/pytorch.org: expected https://..."),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "one.md").write_text(text, encoding="utf-8")
    (tmp_path / "two.md").write_text("# A part\n", encoding="utf-8")
    found = [wrong_link(tmp_path / "one.md", target) for target in links(text)]
    assert [w for w in found if w] == ([wrong] if wrong else [])


def test_headings_are_spelled_as_on_github() -> None:
    text = "# `gate`, the *last* word\n## A b\n## A b\n## nmse_forms: it's [x](y.md)\n"
    assert anchors(text) == {"gate-the-last-word", "a-b", "a-b-1", "nmse_forms-its-x"}


def test_a_lost_file_is_found(tmp_path: Path) -> None:
    text = "`ris_diag/none.py`, `model/case.py:7`, `nowhere.py`, `cli.py`, `a/b.md`\n"
    document = tmp_path / "one.md"
    document.write_text(text, encoding="utf-8")
    assert lost_files(document) == ["ris_diag/none.py", "nowhere.py"]
