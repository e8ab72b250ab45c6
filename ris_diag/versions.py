"""Versions of what results depend on; imports none of it."""

import platform
import sys
from importlib.metadata import version

from ris_diag import __version__


def versions() -> dict[str, str]:
    """Name to version, of torch and numpy as they are loaded."""
    return {
        "ris_diag": __version__,
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
    }


def _version(name: str) -> str:
    return getattr(sys.modules.get(name), "__version__", None) or version(name)
