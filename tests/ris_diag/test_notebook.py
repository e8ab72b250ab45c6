"""A report in a notebook."""

import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import ris_diag
from tests.faults.catalogue import one_step_an_epoch

VOID = {"br"}


class Tags(HTMLParser):
    """Tags that are open, and every tag that was met."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.met: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.met.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def failing() -> ris_diag.Report:
    return ris_diag.run(one_step_an_epoch(), select=["L001", "L009"])


def test_it_shows_verdict_diagnosis_and_the_failed_check() -> None:
    shown = failing()._repr_html_()
    for text in ("1 fail", "1 pass", "L009 not passed", "Diagnosis: C072 steps-missing"):
        assert text in shown
    assert shown.index("L009 one-step-a-batch") < shown.index("L001 one-batch-learns")
    tags = Tags(shown)
    assert tags.open == []
    assert not tags.met & {"style", "script", "link", "img"}
    assert not tags.attributes & {"class", "id"}


def test_what_the_user_wrote_stays_text() -> None:
    report = failing()
    bad = "<script>alert(1)</script>"
    results = [replace(result, cause=bad, place=bad) for result in report.results]
    shown = replace(report, case=bad, results=results)._repr_html_()
    assert "script" not in Tags(shown).met
    assert "&lt;script&gt;" in shown


def test_an_interrupted_run_is_not_ready() -> None:
    shown = replace(failing(), results=[], complete=False)._repr_html_()
    assert "READY" not in shown
    assert "no check ran" in shown


def test_it_needs_neither_templates_nor_plots() -> None:
    code = (
        "import ris_diag, sys; r = ris_diag.Report(case='c', device='cpu', seed=0, versions={}, "
        "results=[]); r._repr_html_(); sys.exit(bool({'jinja2', 'matplotlib'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    # Torch itself may load jinja2 one day; today nothing does.
    assert loaded.returncode == 0, loaded.stderr
