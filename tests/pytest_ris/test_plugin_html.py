"""--ris-html and --html: a page of a session, whoever ran its tests."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ris_diag.cli import main
from ris_diag.report import page as page_module  # once: pytester would load it every time

pytestmark = pytest.mark.slow
TWO = """\
import tiny
from pytest_ris import parametrize_with_checks

@parametrize_with_checks([tiny.learns, tiny.frozen])
def test_it(case, check):
    check(case)
"""


def headings(page: Path) -> list[str]:
    return re.findall(r'<h2 id="[^"]*">([^<]*) <small>', page.read_text(encoding="utf-8"))


def statuses(page: Path) -> dict[str, str]:
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r'<details id="([^"]*)" class="check" data-status="(\w+)"', text))


def test_page_of_a_session(project: pytest.Pytester, mode: list[str]) -> None:
    options = ("--ris-case=tiny:learns", "--ris-select=L001,L009", "--ris-html=page.html")
    project.runpytest_inprocess(*mode, *options).assert_outcomes(passed=2)
    page = project.path / "page.html"
    assert headings(page) == ["learns"]
    assert statuses(page) == {"L001": "pass", "L009": "pass"}
    assert 'id="flow-title"' in page.read_text(encoding="utf-8")


def test_two_cases_are_two_parts(project: pytest.Pytester, mode: list[str]) -> None:
    project.makepyfile(test_suite=TWO)
    project.makeini("[pytest]\nris_html = page.html\n")
    result = project.runpytest_inprocess(*mode, "--ris-select=L009")
    result.assert_outcomes(passed=1, failed=1)
    page = project.path / "page.html"
    assert headings(page) == ["frozen", "learns"]
    assert statuses(page) == {"L009": "fail", "p2-L009": "pass"}


def test_warnings_as_errors_leave_the_page_alone(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nfilterwarnings = error\n")
    options = ("--ris-case=tiny:learns", "--ris-select=L001", "--ris-html=page.html")
    project.runpytest_inprocess(*options).assert_outcomes(passed=1)
    assert headings(project.path / "page.html") == ["learns"]


def test_a_session_without_checks_has_a_page_that_says_so(project: pytest.Pytester) -> None:
    project.makepyfile(test_suite="def test_other(): pass")
    project.runpytest_inprocess("--ris-html=page.html").assert_outcomes(passed=1)
    assert "No check ran." in (project.path / "page.html").read_text(encoding="utf-8")


def test_an_old_page_stays_where_the_new_one_cannot_be_written(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = project.path / "page.html"
    page.write_text("old", encoding="utf-8")

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module, "write_atomically", full)
    options = ("--ris-case=tiny:learns", "--ris-select=L009", "--ris-html=page.html")
    result = project.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --ris-html page.html: No space left on device"])
    assert page.read_text(encoding="utf-8") == "old"


@pytest.mark.usefixtures("project")
def test_check_and_gate_write_it(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    args = ["check", "--case=tiny:frozen", "--select=L009", f"--html={page}"]
    assert CliRunner().invoke(main, args).exit_code == 1
    assert statuses(page) == {"L009": "fail"}
    receipt = tmp_path / "receipt.json"
    args = ["gate", "--case=tiny:frozen", f"--html={page}", f"--receipt={receipt}"]
    gated = CliRunner().invoke(main, args)
    assert isinstance(gated.exception, SystemExit)
    text = page.read_text(encoding="utf-8")
    assert "NOT READY" in text
    assert "Fingerprint of the receipt" in text
    assert '<th scope="row"><code>tiny.py</code></th>' in text


@pytest.mark.usefixtures("project")
def test_check_says_why_it_cannot_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module, "write_atomically", full)
    args = ["check", "--case=tiny:learns", "--select=L009", "--html=page.html"]
    refused = CliRunner().invoke(main, args)
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == "Error: --html page.html: No space left on device"
