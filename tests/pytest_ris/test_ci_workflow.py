"""`ris-diag ci`: what it prints is valid, and its steps do what they should."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from check_jsonschema import main as check_jsonschema  # type: ignore[import-untyped]  # no stubs
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from ris_diag.ci.workflow import PIP, install_command
from ris_diag.cli import main
from ris_diag.errors import RisDiagError
from ris_diag.gate import READY
from ris_diag.receipt import KIND

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "bare_loop"
# The gate is open for every case: what is tried are the steps, not the checks.
OPEN = """
from dataclasses import replace
from ris_diag import check as registry
from case import my_case

for entry in registry.all_checks():
    easy = replace(entry, needs=(), cuda="", function=lambda context: None)
    registry._REGISTRY[entry.id] = easy
"""
ODD = "pkg.mod:my 'case' # {x}: \"y\""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a small project that says what it needs."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "pyproject.toml").write_text('[tool.ris-diag]\ncase = "open:my_case"\n')
    (tmp_path / "requirements.txt").write_text("torch\nris-diag[laws]  # from the index\n")
    (tmp_path / "open.py").write_text(OPEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    return tmp_path


def ci(*options: str) -> Result:
    return CliRunner().invoke(main, ["ci", *options])


def parsed(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def complaints(schema: str, text: str) -> str:
    Path("workflow.yml").write_text(text, encoding="utf-8")
    options = ["--builtin-schema", f"vendor.{schema}", "workflow.yml"]
    result = CliRunner().invoke(check_jsonschema, options)
    return "" if result.exit_code == 0 else result.output


@pytest.fixture
def loaded(user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same; no case is loaded into this process, where the open gate would stay open."""
    monkeypatch.setattr("ris_diag.target.load_case", lambda target: None)
    return user


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("kind", "schema", "damage"),
    [
        ("github", "github-workflows", ("runs-on", "run-on")),
        ("gitlab", "gitlab-ci", ("when: always", "when: ever")),
    ],
)
@pytest.mark.parametrize("options", [(), ("--case", ODD)], ids=["pyproject", "odd"])
def test_the_schema_of_the_ci_holds(
    kind: str, schema: str, damage: tuple[str, str], options: tuple[str, ...]
) -> None:
    result = ci(kind, *options)
    assert result.exit_code == 0, result.output
    assert complaints(schema, result.stdout) == ""
    assert complaints(schema, result.stdout.replace(*damage)) != ""


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("kind", ["github", "gitlab", "pre-commit"])
def test_the_commands_ask_for_the_case(kind: str) -> None:
    def command(*options: str) -> list[str]:
        text = parsed(ci(kind, *options).stdout)
        if kind == "github":
            steps = text["jobs"]["gate"]["steps"]
            script = next(step["run"] for step in steps if step.get("name") == "Gate")
        elif kind == "gitlab":
            script = text["ris-diag"]["script"][0]
        else:
            script = text["repos"][0]["hooks"][0]["entry"]
        return shlex.split(script, comments=True)

    asked = command("--case", ODD)
    assert asked[asked.index("--case") + 1] == ODD
    assert command()[:2] == ["ris-diag", "check" if kind == "pre-commit" else "gate"]
    assert "--case" not in command()  # the gate reads pyproject.toml itself


@pytest.mark.usefixtures("loaded")
def test_what_the_gate_writes_is_kept() -> None:
    written = {"ris-diag-receipt.json", "ris-diag-report.json", "ris-diag-junit.xml"}
    github = parsed(ci("github").stdout)["jobs"]["gate"]["steps"]
    assert written <= set(github[-2]["run"].split())
    assert github[-1]["with"]["path"].split() == ["ris-diag-*.json", "ris-diag-*.xml"]
    assert "cancelled" in github[-1]["if"]  # a closed gate is what one wants to look at
    assert all("@v" in step["uses"] for step in github if "uses" in step)
    gitlab = parsed(ci("gitlab").stdout)["ris-diag"]
    assert written <= set(gitlab["script"][0].split())
    kept = {*gitlab["artifacts"]["paths"], gitlab["artifacts"]["reports"]["junit"]}
    assert kept == written


@pytest.mark.usefixtures("loaded")
def test_the_hook_is_one_of_this_machine() -> None:
    """What a hook must say by the documentation of pre-commit, which has no schema at hand."""
    (repository,) = parsed(ci("pre-commit").stdout)["repos"]
    assert repository["repo"] == "local"
    (hook,) = repository["hooks"]
    assert {"id", "name", "entry", "language"} <= hook.keys()
    assert (hook["language"], hook["pass_filenames"]) == ("system", False)
    assert hook["stages"] == ["pre-push"]


@pytest.mark.parametrize(
    ("pyproject", "requirements", "expected"),
    [
        ("", "ris-diag[laws]\n", "-r requirements.txt"),
        ("", "-e ../ris-diag\n", "-r requirements.txt"),
        ("", "./wheels/ris_diag-0.1.0-py3-none-any.whl\n", "-r requirements.txt"),
        ("", "ris-diag[laws] @ git+https://host/ris-diag#egg=ris-diag\n", "-r requirements.txt"),
        ('[build-system]\n[project]\ndependencies = ["ris-diag"]\n', None, "-e ."),
        (
            '[build-system]\n[project.optional-dependencies]\ndev = ["ris-diag"]\nx = ["y"]\n',
            None,
            "-e '.[dev]'",
        ),
        ('[project]\ndependencies = ["torch>=2", "ris-diag"]\n', None, "'torch>=2' ris-diag"),
        (
            '[project]\ndependencies = ["torch"]\n[dependency-groups]\ndev = ["ris-diag"]\n',
            None,
            "torch --group dev",
        ),
    ],
)
def test_what_is_installed(
    tmp_path: Path, pyproject: str, requirements: str | None, expected: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(pyproject)
    if requirements is not None:
        (tmp_path / "requirements.txt").write_text(requirements)
    assert install_command(tmp_path) == f"{PIP} {expected}"


@pytest.mark.parametrize("requirements", [None, "torch\n", "torch  # not ris-diag\n"])
def test_where_the_toolkit_comes_from_must_be_said(
    tmp_path: Path, requirements: str | None
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ris-diag]\ncase = "case:my_case"\n')
    if requirements is not None:
        (tmp_path / "requirements.txt").write_text(requirements)
    with pytest.raises(RisDiagError, match=r"neither requirements\.txt nor pyproject\.toml here"):
        install_command(tmp_path)


@pytest.mark.usefixtures("project")
def test_the_case_is_loaded() -> None:
    assert ci("pre-commit", "--case=tiny:bare").exit_code == 0
    result = ci("pre-commit", "--case=tiny:crashes")
    assert result.exit_code == 2
    assert "no data folder" in result.stderr


def test_wrong_requests(user: Path) -> None:
    result = ci("github", "--case=nowhere:case")
    assert result.exit_code == 2
    assert "case target 'nowhere:case': nowhere does not import" in result.stderr
    (user / "pyproject.toml").unlink()
    result = ci("github")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no case: name the training under test" in result.stderr
    assert ci("jenkins").exit_code == 2


def steps_of(text: str) -> list[tuple[str, str]]:
    """Name and script of each step that runs something."""
    steps = parsed(text)["jobs"]["gate"]["steps"]
    return [(step["name"], step["run"]) for step in steps if "run" in step]


def run_steps(user: Path, text: str) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run the steps as GitHub's runner does, up to the first that fails.

    One thing is other: pip may neither download nor install. It finds everything there, or fails.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **dict.fromkeys(("PIP_NO_INDEX", "PIP_NO_DEPS", "PIP_DRY_RUN"), "1"),
        **dict.fromkeys(("PIP_FIND_LINKS", "PIP_CONSTRAINT"), ""),
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(user),
        "GITHUB_STEP_SUMMARY": str(user / "summary.md"),
    }
    done = {}
    for name, script in steps_of(text):
        (user / "step.sh").write_text(script, encoding="utf-8")
        done[name] = subprocess.run(
            ["bash", "-e", "step.sh"],
            cwd=user, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done[name].returncode:
            break
    return done


@pytest.mark.slow
def test_the_steps_open_the_gate(loaded: Path) -> None:
    done = run_steps(loaded, ci("github").stdout)
    assert done["Install"].returncode == 0, done["Install"].stdout + done["Install"].stderr
    assert list(done) == ["Install", "Gate"]
    assert "Requirement already satisfied: " in done["Install"].stdout
    assert done["Gate"].returncode == 0, done["Gate"].stdout + done["Gate"].stderr
    assert (loaded / "summary.md").read_text().startswith(f"## {READY}\n\ncase bare-loop, cpu, ")
    assert json.loads((loaded / "ris-diag-report.json").read_text())["ok"] is True
    receipt = json.loads((loaded / "ris-diag-receipt.json").read_text())
    assert (receipt["kind"], receipt["ready"]) == (KIND, True)
    suite = ET.parse(loaded / "ris-diag-junit.xml").getroot()[0]  # noqa: S314  # our own file
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")


@pytest.mark.slow
def test_the_steps_fail_for_a_broken_training(loaded: Path) -> None:
    user = loaded
    source = user.joinpath("training.py").read_text()
    broken = source.replace("            optimizer.step()\n", "", 1)
    broken = broken.replace(
        "        history.append(", "        optimizer.step()\n        history.append("
    )
    assert broken.count("optimizer.step()") == 1
    (user / "training.py").write_text(broken)
    # The install step is that of the test above: it costs seconds and can't differ.
    text = ci("github", "--case=case:my_case").stdout
    done = run_steps(user, text.replace(PIP, "echo"))
    assert list(done) == ["Install", "Gate"]
    assert done["Gate"].returncode == 1
    line = broken.splitlines().index("        optimizer.step()") + 1
    log = done["Gate"].stdout.splitlines()
    title = "C072 steps-missing%2C 98%25 sure"
    assert any(f"::error file=training.py,line={line},title={title}::" in entry for entry in log)
    summary = (user / "summary.md").read_text()
    assert summary.startswith("## NOT READY: L009 not passed; ")
    assert "### Diagnosis: C072 steps-missing, 98% sure\n" in summary
    assert f"- Place: training.py:{line}\n" in summary
    assert "| L009 one-step-a-batch | 4 optimiser steps for 12 batches (4 epochs)" in summary
    assert json.loads((user / "ris-diag-receipt.json").read_text())["ready"] is False
    suite = ET.parse(user / "ris-diag-junit.xml").getroot()[0]  # noqa: S314  # our own file
    assert suite.get("failures") == "1"
