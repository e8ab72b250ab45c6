"""The page as text: one file, every section, nothing of the user's taken as markup."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

import ris_diag
from ris_diag import report
from ris_diag.gate import READY
from ris_diag.report import drawn, figures, require_report
from ris_diag.report.excerpt import excerpts
from ris_diag.report.page import page
from tests.report.runs import MARKUP, failing, healthy, hostile, measured

pytestmark = pytest.mark.slow
SECTIONS = (
    *("verdict", "diagnosis", "losses", "flow", "scene", "estimators", "checks", "environment"),
)
FIGURES = (
    *("litmus", "memorise", "overfit", "flow"),
    *("eigenvalues", "magnitudes", "music", "estimators"),
)


def ids(text: str) -> list[str]:
    return re.findall(r'\sid="([^"]*)"', text)


def test_a_healthy_run_has_every_section_and_every_figure() -> None:
    text = page([healthy()])
    assert {*SECTIONS, *(f"{name}-title" for name in FIGURES)} <= set(ids(text))
    assert len(text.encode()) < 2_000_000
    assert "Nothing was found that would need a cause." in text
    assert text.count("<svg") == len(FIGURES)


def test_ids_are_there_once_and_links_lead_somewhere() -> None:
    text = page([healthy(), failing()])
    assert len(ids(text)) == len(set(ids(text)))
    targets = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    assert targets - set(ids(text)) == set()
    assert {"L001", "p2-L001", "p2-diagnosis", "p2-flow-title"} <= set(ids(text))


def test_it_names_no_address_to_load_from() -> None:
    text = page([healthy()])
    loaded = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert [found for found in loaded if not found.startswith(("#", "data:"))] == []
    assert "@import" not in text
    assert "url(http" not in text
    assert "default-src 'none'" in text


def test_a_failing_run_says_what_it_lacks_and_shows_the_line() -> None:
    text = page([failing()])
    assert "C072 steps-missing" in text
    assert re.search(r"<mark>\s*optimizer\.step\(\)</mark>", text)
    assert "O002 didn&#39;t run: it wasn&#39;t asked for, or the gate closed" in text
    assert '<a href="#L009">L009</a> not passed' in text


def test_a_run_of_nothing_is_a_page_too() -> None:
    assert "No check ran." in page([])
    assert "<h2" in page([replace(healthy(), results=[])])


def test_what_the_user_wrote_stays_text() -> None:
    report = hostile()
    assert report["L001"].status == "error"
    text = page([report])
    assert MARKUP not in text
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert "<b onclick" not in text
    assert "&lt;b onclick=a()&gt;$_^{$" in text


@pytest.mark.parametrize("value", [None, "NaN", "Infinity", 0.0, -1.0])
@pytest.mark.filterwarnings("error")
def test_numbers_that_are_none_are_drawn_all_the_same(value: Any) -> None:
    rows = {key: [value] * 2 for key in ("gradient_norm", "update_to_weight", "zero_gradients")}
    results = [
        measured("L001", losses=[value] * 5, beta=[value] * 5, modules={"a": rows, "b": rows}),
        measured("O001", losses=[value] * 3, loss_steps=[1, 2, 3], loss_floor=value),
        measured(
            "O002",
            epoch_train=[value] * 30,
            epoch_validation=[None] * 30,
            nmse=dict.fromkeys(healthy()["O002"].measurements["nmse"], value),
            nmse_standard_error=dict.fromkeys(healthy()["O002"].measurements["nmse"], "NaN"),
        ),
    ]
    assert page([replace(healthy(), results=results)]).count("<svg") == len(FIGURES)


def test_a_case_without_a_scene_says_so() -> None:
    scene = {k: v for k, v in healthy()["O002"].measurements["scene"].items() if k != "music"}
    found = drawn.scene([measured("O002", scene=scene)], "")
    assert [bool(item.svg) for item in found] == [True, True, False]
    assert "Case.covariance.scene" in found[-1].text


def test_a_check_that_was_skipped_says_why() -> None:
    skipped = replace(healthy()["O002"], status="skip", measurements={}, cause="does not apply")
    assert drawn.losses([skipped], "")[-1].text == "O002 generalises was skipped: does not apply."


def test_maps_are_pictures_and_figures_are_small() -> None:
    drawing = figures.magnitudes(healthy()["O002"].measurements["scene"], "m")
    assert drawing.count("data:image/png;base64,") >= 4
    assert len(drawing) < 60_000


def test_drawing_leaves_the_settings_of_the_user_alone() -> None:
    with mpl.rc_context({"font.size": 3.0}):
        before = dict(mpl.rcParams)
        figures.eigenvalues(healthy()["O002"].measurements["scene"], "e")
        assert dict(mpl.rcParams) == before


def test_the_verdict_of_a_gate_stands_above_its_results() -> None:
    told = "NOT READY: changed while the gate ran: train.py"
    text = page([healthy()], gate=told)
    assert f'<p class="verdict bad">{told}</p>' in text
    assert f'<p class="verdict good">{READY}</p>' in page([healthy()], gate=READY)


def test_excerpts_mark_the_line_of_files_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "train.py"
    file.write_text("".join(f"    line {n}\n" for n in range(1, 10)), encoding="utf-8")
    (found,) = excerpts(f"{file}:5, steps at nowhere.py:3, {file}:99")
    assert [(line.number, line.text) for line in found.lines if line.marked] == [(5, "line 5")]
    assert [line.number for line in found.lines] == [2, 3, 4, 5, 6, 7, 8]
    assert excerpts("fc.weight") == []


def test_wrong_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ris_diag.RisDiagError, match=r"^--html \S+: expected a file in a folder"):
        require_report("--html", tmp_path / "nowhere" / "page.html")
    with pytest.raises(ris_diag.RisDiagError, match="expected a file"):
        require_report("--html", tmp_path)
    monkeypatch.setattr(report, "NEEDED", ("jinja2", "no_such_module"))
    with pytest.raises(ris_diag.RisDiagError) as refused:
        require_report("--html", tmp_path / "page.html")
    assert str(refused.value) == "--html: needs pip install 'ris-diag[report]'"


def test_numbers() -> None:
    assert math.isnan(figures.number(None))
    assert figures.numbers(["Infinity", 1]) == [math.inf, 1.0]
