"""What the README tells a newcomer to do, done to the letter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ris_diag
from tests.faults.catalogue import one_step_an_epoch

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


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
