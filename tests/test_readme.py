"""What the README and the documents beside it tell a newcomer to do, done to the letter."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import ris_diag
from ris_diag import cause, check
from ris_diag.causes import loop as causes_of_loop
from ris_diag.checks import validation
from ris_diag.ci.annotations import annotations
from ris_diag.ci.markdown import summary
from ris_diag.ci.part import part_of
from ris_diag.ci.workflow import workflow
from ris_diag.cli import main
from ris_diag.measure import short_fit
from tests.faults import plant_loop, registry
from tests.faults.catalogue import one_step_an_epoch
from tests.shards import write

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "your-training.md").read_text(encoding="utf-8")
GATE = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")


def make_batch(split: str, seed: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(size, 3, generator=torch.Generator().manual_seed(seed))
    return x, x.sum(1, keepdim=True)


def block(beginning: str, document: str = README) -> str:
    """The code block that begins with a line."""
    found = re.findall(rf"```python\n({re.escape(beginning)}\n.*?)```", document, re.DOTALL)
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
    (tmp_path / "training.py").write_text(block("# training.py", GATE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "training", raising=False)
    for command in ("gate", "verify"):
        line = f"ris-diag {command} --case training:my_case"
        assert f"    {line}\n" in GATE
        run = CliRunner().invoke(main, line.split()[1:])
        assert run.exit_code == 0, run.output
    assert run.output == ".ris-diag/receipt.json: valid for training:my_case on cpu\n"
    monkeypatch.delitem(sys.modules, "training")


def test_the_diagnosis_in_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    code = block('report = ris_diag.run(my_case(), select="guard,data,litmus")', TRAINING)
    exec(code, {"ris_diag": ris_diag, "my_case": one_step_an_epoch})  # noqa: S102  # the README's
    assert capsys.readouterr().out.startswith("The optimiser steps less often than it should 0.")


def test_declared_values() -> None:
    names: dict[str, object] = {"ris_diag": ris_diag}
    exec(block("declared = ris_diag.Declared(", TRAINING), names)  # noqa: S102  # the README's
    assert isinstance(names["declared"], ris_diag.Declared)


def test_a_loop_of_ones_own() -> None:
    names: dict[str, Any] = {
        "ris_diag": ris_diag,
        "torch": torch,
        "make_model": lambda: torch.nn.Linear(3, 1),
        "make_batch": make_batch,
        "training_loss": lambda model, b, _: torch.nn.functional.mse_loss(model(b[0]), b[1]),
    }
    for beginning in ("def train(model, plan):", "def my_case() -> ris_diag.Case:"):
        exec(block(beginning, TRAINING), names)  # noqa: S102  # the document's
    report = ris_diag.run(names["my_case"](), select="L001,L008,L009,L014")
    assert {result.status for result in report.results} == {"pass"}


def test_watching_without_checks(capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Linear(3, 1)

    def train_for_a_while() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        model(torch.ones(2, 3)).mean().backward()
        optimizer.step()

    code = block("with ris_diag.observe(model) as trace:", TRAINING)
    names = {"ris_diag": ris_diag, "model": model, "train_for_a_while": train_for_a_while}
    exec(code, names)  # noqa: S102  # the document's
    assert capsys.readouterr().out.rstrip().endswith("[0.5] ['backward', 'step']")


def test_several_trainings_in_one_file(pytester: pytest.Pytester) -> None:
    cases = "from tests.faults.catalogue import one_step_an_epoch as mlp_case\n"
    code = block("from pytest_ris import parametrize_with_checks", TRAINING)
    pytester.makepyfile(cases + code.replace("mlp_case, cnn_case", "mlp_case"))
    result = pytester.runpytest_inprocess("-p", "no:randomly", "--ris-select=L009")
    result.assert_outcomes(failed=1)


def test_data_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    document = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"ris_diag": ris_diag}
    code = block("from ris_diag.shards import open_folder", document)
    exec(code, names)  # noqa: S102  # the document's
    assert names["data"].offers("covariance.sample")
    assert names["training"].offers("stored")


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


def test_the_check_of_the_instructions_finds_its_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONTRIBUTING.md, done under numbers that nobody has; every registry is put back."""
    document = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    document = document.replace("L045", "L999").replace("C090", "C999")
    for module, name in ((check, "_REGISTRY"), (cause, "_REGISTRY")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    monkeypatch.setattr(registry, "FAULTS", [])
    names = {**vars(plant_loop), **vars(validation), **vars(causes_of_loop), "short_fit": short_fit}
    for beginning in ('@fault("L999", says="nan"', "@check(\n", "cause(\n"):
        (code,) = re.findall(rf"```python\n({re.escape(beginning)}.*?)```", document, re.DOTALL)
        exec(code, names)  # noqa: S102  # the document's
    (fault,) = registry.FAULTS
    report = ris_diag.run(fault.plant(), select="L008,L056,L999")
    assert fault.says in report["L999"].message()
    assert report.diagnosis.named[0].cause.id == "C999"
    assert ris_diag.run(fault.healthy(), select="L999").ok  # type: ignore[misc]  # it has one
