"""One browser for all tests of a session, and pages written once."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium, without a window."""
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs chromium (apt-get install chromium)")
    # Its sandbox doesn't start for root; the pages are ours.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages by name."""
    from ris_diag.report.page import write_page
    from tests.report.runs import failing, healthy, hostile

    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "healthy": [healthy()],
        "failing": [failing()],
        "hostile": [hostile()],
        "several": [healthy(), failing()],
    }
    for name, reports in pages.items():
        write_page(folder / f"{name}.html", reports)
    return {name: folder / f"{name}.html" for name in pages}
