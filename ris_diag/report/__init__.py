"""A run as a page: one file for a browser, and a short form for a notebook."""

from importlib.util import find_spec
from pathlib import Path

from ris_diag.errors import ReportError

NEEDED = ("jinja2", "matplotlib")


def require_report(option: str, path: str | Path) -> None:
    """Refuse a page that couldn't be written in the end; nothing is imported.

    Args:
        option: by which it was asked for.

    Raises:
        ReportError: the extra isn't installed, or the path is no file in a folder that exists.
    """
    if not all(map(find_spec, NEEDED)):
        raise ReportError(f"{option}: needs pip install 'ris-diag[report]'")
    path = Path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise ReportError(f"{option} {path}: expected a file in a folder that exists")
