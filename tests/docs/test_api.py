"""The reference of the API: complete, and what the code says now."""

from pathlib import Path

import griffe
import pytest

import ris_diag
from tests.docs.api import PAGES, ROOT, Member, entry, fixtures, pages, public, undocumented

PUBLIC = {thing.path: thing for page in PAGES for thing in public(page)}
FIXTURES = {fixture.name: fixture for fixture in fixtures()}


def visited(code: str, folder: Path) -> Member:
    """The first thing in a module of its own."""
    (folder / "example.py").write_text(code, encoding="utf-8")
    module = griffe.load("example", search_paths=[folder], docstring_parser="google")
    found: Member = next(iter(module.members.values()))
    return found


def test_the_reference_is_current() -> None:
    folder = ROOT / "docs" / "api"
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    assert committed == pages(), "run `make docs`"


def test_every_public_name_is_there() -> None:
    assert {f"ris_diag.{name}" for name in ris_diag.__all__} <= PUBLIC.keys()
    assert "model.nmse.nmse" in PUBLIC
    assert "ris_diag.strategies.covariances" in PUBLIC
    assert FIXTURES.keys() == {"ris_case", "ris_device", "ris_runner", "ris_run", "ris_check"}


@pytest.mark.parametrize("thing", [*PUBLIC.values(), *FIXTURES.values()], ids=lambda t: t.name)
def test_every_public_name_is_documented(thing: Member) -> None:
    assert undocumented(thing) == []


@pytest.mark.parametrize(
    ("code", "lacking"),
    [
        ("def f(): ...", ["example.f"]),
        ('class A:\n    """An A."""\n    def f(self): ...', ["example.A.f"]),
        ('class A:\n    """An A."""\n    size: int = 0', ["example.A.size"]),
        (
            'class A:\n    """An A.\n\n    Attributes:\n        size: [m].\n    """\n    size: int',
            [],
        ),
        ('class A:\n    """An A of a size."""\n    size: int\n    def _f(self): ...', []),
    ],
)
def test_what_lacks_documentation_is_found(tmp_path: Path, code: str, lacking: list[str]) -> None:
    assert undocumented(visited(code, tmp_path)) == lacking


def test_an_entry_tells_types_units_errors_and_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.docs.api.ROOT", tmp_path)
    code = '''\
def power(x: Tensor, *, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Power of snapshots.

    Args:
        x: complex [B, L].
        low, high: limits [dB].

    Returns:
        real [B],
        one a sample.

    Raises:
        ValueError: low above high.
    """
'''
    assert entry(visited(code, tmp_path)) == [
        "## power",
        "In [`example.py`](../../example.py).",
        "```python\npower(x: Tensor, *, low: float = 0.0, high: float = 1.0) -> Tensor\n```",
        "Power of snapshots.",
        "| argument | meaning |\n| --- | --- |\n"
        "| `x` | complex [B, L]. |\n| `low, high` | limits [dB]. |",
        "Returns real [B], one a sample.",
        "| raises | where |\n| --- | --- |\n| `ValueError` | low above high. |",
    ]
