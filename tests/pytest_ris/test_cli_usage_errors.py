"""Wrong requests on the command line: exit code 2, one Error line, no traceback."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ris_diag import report
from ris_diag.cli import main
from ris_diag.cuda import absent, found

pytestmark = pytest.mark.usefixtures("project")


def refusal(*args: str) -> str:
    """The error line of a refused call, and whatever follows it."""
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert sum(line.startswith("Error: ") for line in result.stderr.splitlines()) == 1
    return result.stderr.split("\n\n")[-1].removeprefix("Error: ").rstrip("\n")


@pytest.mark.parametrize(
    "args",
    [
        ("check", "--select=Z9"),
        ("check", "--ignore=G,Z9"),
        ("check", "--case=tiny:learns", "--select=L001", "--select=Z9"),
    ],
    ids=" ".join,
)
def test_unknown_check(args: tuple[str, ...]) -> None:
    assert refusal(*args).startswith("unknown check 'Z9': expected an ID, a prefix of IDs, a slug")


def test_explain_names_checks_and_causes() -> None:
    said = "unknown check or cause {}: expected an ID or a slug; {}`ris-diag list` shows the checks"
    assert refusal("explain", "Z9").startswith(said.format("'Z9'", ""))
    meant = "did you mean 'one-step-a-batch'? "
    assert refusal("explain", "one-step-batch").startswith(said.format("'one-step-batch'", meant))
    assert ", causes are C001 to C" in refusal("explain", "Z9")


def test_a_name_that_is_nearly_right() -> None:
    said = refusal("check", "--select=litmuss")
    assert said.startswith("unknown check 'litmuss': expected an ID, a prefix of IDs, a slug")
    assert said.endswith("; did you mean 'litmus'? `ris-diag list` shows all")


def test_no_check_left() -> None:
    assert refusal("check", "--select=G", "--ignore=G") == "--select and --ignore leave no check"


@pytest.mark.parametrize("command", ["check", "gate"])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "tiny",
            "case target 'tiny': expected a module and a function, tiny:my_case, or a script, "
            "tiny.py",
        ),
        (
            "nowhere:case",
            "case target 'nowhere:case': nowhere does not import (ModuleNotFoundError: No module "
            "named 'nowhere'); the working folder is {folder}",
        ),
        (
            "tiny:lerns",
            "case target 'tiny:lerns': tiny has no 'lerns'; did you mean 'learns'?",
        ),
        (
            "tiny:number",
            "case target 'tiny:number': number is an int, not a function that returns a "
            "ris_diag.Case",
        ),
        (
            "tiny:not_callable",
            "case target 'tiny:not_callable': not_callable is a str, not a function that returns "
            "a ris_diag.Case",
        ),
        (
            "tiny:crashes",
            "case target 'tiny:crashes': crashes() raised RuntimeError: no data folder "
            "(tiny.py:{line}, in crashes)",
        ),
        (
            "tiny:gives_a_number",
            "case target 'tiny:gives_a_number': gives_a_number() returned int (3), not a "
            "ris_diag.Case",
        ),
    ],
)
def test_wrong_target(command: str, target: str, message: str) -> None:
    lines = Path("tiny.py").read_text(encoding="utf-8").splitlines()
    (line,) = [n for n, text in enumerate(lines, 1) if "no data folder" in text]
    expected = message.format(folder=Path.cwd(), line=line)
    assert refusal(command, f"--case={target}") == expected


@pytest.mark.parametrize("command", ["check", "gate"])
def test_no_target(command: str) -> None:
    assert refusal(command).splitlines() == [
        "no case: name the training under test:",
        "    ris-diag check --case my_package.my_module:my_case   (or --case train.py)",
        "    pytest --ris-case my_package.my_module:my_case",
        'or once in pyproject.toml: [tool.ris-diag] case = "my_package.my_module:my_case"',
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[tool.ris-diag]\ncase = 3\n", "[tool.ris-diag] case = 3: expected pkg.mod:factory"),
        ("[tool.ris-diag\n", "pyproject.toml: "),
    ],
)
def test_wrong_pyproject(project: pytest.Pytester, content: str, message: str) -> None:
    project.makepyprojecttoml(content)
    assert message in refusal("check")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("option", ["--gpu", "--device=cuda", "--device=cuda:3"])
@pytest.mark.parametrize("command", ["check", "gate"])
def test_cuda_that_is_not_there(command: str, option: str) -> None:
    device = option.partition("=")[2] or "cuda"
    assert refusal(command, "--case=tiny:learns", option) == absent(device, found())
    assert refusal(command, "--case=nowhere:case", option) == absent(device, found())


@pytest.mark.parametrize("command", ["check", "gate", "hpo"])
def test_a_case_that_stands_alone(command: str) -> None:
    message = refusal(command, "train.py")
    assert message == f"train.py: expected ris-diag {command} --case train.py"


@pytest.mark.parametrize("command", ["check", "gate", "hpo"])
def test_devices_that_contradict_each_other(command: str) -> None:
    message = refusal(command, "--case=tiny:learns", "--gpu", "--device=cpu")
    assert message == "--gpu beside --device cpu: expected one of them"


@pytest.mark.parametrize("device", ["tpu9", "meta"])
def test_wrong_device(device: str) -> None:
    message = refusal("check", "--case=tiny:learns", f"--device={device}")
    assert message == f"device '{device}': expected cpu, cuda or cuda:N"


def test_seed_is_a_number() -> None:
    message = "Invalid value for '--seed': 'many' is not a valid integer."
    assert refusal("check", "--seed=many") == message


def test_json_that_is_a_folder() -> None:
    message = "Invalid value for '--json': File '.' is a directory."
    assert refusal("check", "--case=tiny:learns", "--json=.") == message


@pytest.mark.parametrize("command", ["check", "gate"])
def test_html_in_a_folder_that_is_not_there(command: str) -> None:
    message = "--html nowhere/page.html: expected a file in a folder that exists"
    assert refusal(command, "--case=tiny:learns", "--html=nowhere/page.html") == message


def test_html_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "NEEDED", ("no_such_module",))
    message = "--html: needs pip install 'ris-diag[report]'"
    assert refusal("gate", "--case=tiny:learns", "--html=page.html") == message


def test_json_in_a_folder_that_is_not_there() -> None:
    args = ["check", "--case=tiny:learns", "--select=L009", "--json=nowhere/out.json"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: --json nowhere/out.json: ")
    assert "Traceback" not in result.output
