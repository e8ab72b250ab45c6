"""What the README tells a newcomer to do, done to the letter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import ris_diag
from ris_diag.ci.annotations import annotations
from ris_diag.ci.markdown import summary
from ris_diag.ci.part import part_of
from ris_diag.ci.workflow import workflow
from ris_diag.cli import main
from tests.faults.catalogue import one_step_an_epoch

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(beginning: str) -> str:
    """The code block that begins with a line."""
    found = re.findall(rf"```python\n({re.escape(beginning)}\n.*?)```", README, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["plain", "n2"])
def test_the_second_section_in_an_empty_folder(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "conftest.py").write_text(block("# conftest.py"), encoding="utf-8")
    assert "    pytest --pyargs pytest_ris.suite\n" in README
    command = [sys.executable, "-m", "pytest", "-v", "--pyargs", "pytest_ris.suite", *options]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "pass  L001 one-batch-learns" in run.stdout
    assert "pass  L014 parameters-get-gradient" in run.stdout
    assert "failed" not in run.stdout.splitlines()[-1]


@pytest.mark.usefixtures("one_thread")
def test_the_gate_opens_for_the_classification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "training.py").write_text(block("# training.py"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "training", raising=False)
    for command in ("gate", "verify"):
        line = f"ris-diag {command} --case training:my_case"
        assert f"    {line}\n" in README
        run = CliRunner().invoke(main, line.split()[1:])
        assert run.exit_code == 0, run.output
    assert run.output == ".ris-diag/receipt.json: valid for training:my_case on cpu\n"
    monkeypatch.delitem(sys.modules, "training")


def test_the_diagnosis_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    code = block('report = ris_diag.run(my_case(), select="guard,data,litmus")')
    exec(code, {"ris_diag": ris_diag, "my_case": one_step_an_epoch})  # noqa: S102  # the README's
    assert capsys.readouterr().out.startswith("The optimiser steps less often than it should 0.")


def test_declared_values() -> None:
    names: dict[str, object] = {"ris_diag": ris_diag}
    exec(block("declared = ris_diag.Declared("), names)  # noqa: S102  # the README's
    assert isinstance(names["declared"], ris_diag.Declared)


def test_laws_of_ones_own_loss(pytester: pytest.Pytester) -> None:
    pytester.mkpydir("my_package").joinpath("losses.py").write_text(
        "from model.nmse import nmse as my_nmse\n", encoding="utf-8"
    )
    pytester.makepyfile(test_my_loss=block("# test_my_loss.py"))
    pytester.syspathinsert()
    pytester.runpytest_inprocess("-p", "no:randomly").assert_outcomes(passed=1)


def test_the_page_for_a_ci_shows_the_workflow_as_it_is_printed(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("ris-diag[laws] @ git+https://git.example.org/x\n")
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    version = 'python-version: "[0-9.]+"'
    printed = workflow("github", None, tmp_path)
    assert re.sub(version, "", shown) == re.sub(version, "", printed)


def test_the_page_for_a_ci_shows_summary_and_annotation_as_they_are() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    report = ris_diag.run(one_step_an_epoch(), select=["guard", "litmus"])
    part = part_of(report)
    (place,) = {named.place for named in report.diagnosis.named}
    shown = page.replace("training.py:43", place).replace(
        "training.py,line=43", "{},line={}".format(*place.split(":"))
    )
    head = summary([part], 2**20).partition("### ")[2].partition("\n\n|")[0]
    assert head in shown
    assert next(annotations(part)) in shown
