"""What a fingerprint covers: every source of a case, what its functions hold, where git stands."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ris_diag
from ris_diag.configuration import configuration
from ris_diag.fingerprint import commit, differences, fingerprint, other_commit
from tests.expected import COUNT

SOURCES = {
    "pyproject.toml": "",
    "app/__init__.py": "",
    "app/case.py": "import ris_diag, torch\nfrom . import options_of_app\n\n\ndef mine():\n"
    "    from app.late import name\n    return ris_diag.Case(name=name)\n",
    "app/late.py": "import space_of_app.inner\nname = 'mine'\n",
    "app/options_of_app.py": "import pathlib\nown = pathlib.Path(__file__).with_name('own.toml')\n",
    "app/own.toml": "rate = 1\n",
    "app/other.toml": "rate = 1\n",
    "app/unused.py": "",
    "space_of_app/inner.py": "",  # in a folder without __init__.py
}
READ = {
    *("app/__init__.py", "app/case.py", "app/late.py", "app/options_of_app.py", "app/own.toml"),
    "space_of_app/inner.py",
}
BARE = ris_diag.Case(name="mine")


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in SOURCES.items():
        tmp_path.joinpath(name).parent.mkdir(exist_ok=True)
        tmp_path.joinpath(name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in ("app", "space_of_app")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def of_app() -> dict[str, Any]:
    return fingerprint("app.case:mine", case=BARE)


def test_sources_are_what_the_case_imports_and_settings_that_it_names(app: Path) -> None:
    assert set(of_app()["sources"]) == READ


@pytest.mark.parametrize("name", sorted(READ))
def test_a_comment_in_any_source_is_told_with_the_file(app: Path, name: str) -> None:
    before = of_app()
    with (app / name).open("a") as file:
        file.write("# a comment\n")
    assert differences(before, of_app()) == [f"other sources (changed: {name})"]


def test_what_is_not_imported_changes_nothing(app: Path) -> None:
    before = of_app()
    for name in ("app/unused.py", "app/other.toml"):
        (app / name).write_text("x = 1\n")
    assert differences(before, of_app()) == []


def test_new_and_renamed_imports_are_named(app: Path) -> None:
    before = of_app()
    (app / "app/options_of_app.py").rename(app / "app/options.py")
    case = app / "app/case.py"
    case.write_text(case.read_text().replace("import options_of_app", "import options"))
    assert differences(before, of_app()) == [
        "other sources (changed: app/case.py; gone: app/options_of_app.py; new: app/options.py)"
    ]


def test_a_script_is_a_source_with_what_lies_beside_it(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app / "scripts").mkdir()
    (app / "scripts/train.py").write_text("import helper_of_train\n")
    (app / "scripts/helper_of_train.py").write_text("")
    sources = {"scripts/train.py", "scripts/helper_of_train.py"}
    there = fingerprint("scripts/train.py", case=BARE)
    assert set(there["sources"]) == sources
    monkeypatch.chdir(app / "scripts")
    assert differences(there, fingerprint("train.py", case=BARE)) == []


def test_a_source_that_is_no_python_counts_by_its_bytes(app: Path) -> None:
    (app / "app/late.py").write_text("this is no Python\n")
    assert set(of_app()["sources"]) == READ - {"space_of_app/inner.py"}


def test_what_does_not_import_has_no_sources(app: Path) -> None:
    assert fingerprint("nowhere.at_all:case", case=BARE)["sources"] == {}
    assert fingerprint("nowhere.py", case=BARE)["sources"] == {}


def test_commit_and_changes_are_told_and_close_nothing(app: Path) -> None:
    def git(*command: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *command], cwd=app, check=True, capture_output=True)

    without = of_app()
    assert without["git"] == {}
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    before = of_app()
    assert before["git"]["dirty"] is False
    assert other_commit(before, of_app()) == ""
    first = commit()["commit"][:12]
    assert other_commit(without, before) == f"made at no commit, now at commit {first}"
    (app / "app/unused.py").write_text("x = 1\n")
    said = f"made at commit {first}, now at commit {first} with changes"
    assert other_commit(before, of_app()) == said
    assert differences(before, of_app()) == []


# ---- configuration


def held(**parts: Any) -> Any:
    return configuration(ris_diag.Case(name="c", **parts))


def test_what_a_function_holds_is_configuration() -> None:
    def make(width: int, *, depth: int = 2) -> Any:
        def model(bias: bool = True) -> int:
            return width * COUNT * depth

        return held(model=model)["model"]

    (inside,) = make(8).values()
    assert inside == {"width": 8, "depth": 2, "COUNT": COUNT, "default of bias": True}
    assert make(8) == make(8)
    assert make(8) != make(9)


def test_settings_that_a_file_gave_are_told_as_they_were(app: Path) -> None:
    def with_rate(rate: float) -> dict[str, Any]:
        case = ris_diag.Case(name="mine", optimizer=lambda model: rate)
        return fingerprint("app.case:mine", case=case)

    (said,) = differences(with_rate(0.1), with_rate(0.2))
    assert said.startswith("other configuration (changed: optimizer.")
    assert said.endswith(".rate, 0.1 then, 0.2 now)")


def test_a_secret_that_a_function_holds_is_not_written() -> None:
    def make(token: str) -> str:
        def model() -> str:
            return token

        return json.dumps(held(model=model))

    assert "ghp_0123456789abcdef" not in make("ghp_0123456789abcdef")
    assert make("ghp_0123456789abcdef") != make("ghp_0123456789abcdee")
    assert '"relu"' in make("relu")
    assert "a reason of some length" in json.dumps(held(exempt={"L001": "a reason of some length"}))


@pytest.mark.parametrize(
    "part",
    [
        {"declared": ris_diag.Declared(learning_rate=1e-3)},
        {"exempt": {"L001": "no loop"}},
        {"expected_failures": {"L001": "ticket"}},
        {"thresholds": {"L001.min_drop": ris_diag.Override(value=0.1, reason="small")}},
    ],
    ids=lambda part: next(iter(part)),
)
def test_declarations_are_configuration(part: dict[str, Any]) -> None:
    assert held(**part) != held()


def lent(width: int = 2, rate: float = 0.1, size: int = 4) -> Any:
    model = nn.Linear(3, width)
    loader = torch.utils.data.DataLoader([(torch.zeros(3), torch.zeros(2))] * 8, batch_size=size)  # type: ignore[arg-type, var-annotated]
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    case = ris_diag.Case.from_xy(model, loader, nn.functional.mse_loss, optimizer)
    return configuration(case)


def test_a_model_that_was_lent_is_known_by_its_layers_not_by_its_weights() -> None:
    assert lent() == lent()
    assert lent() != lent(width=3)
    assert lent() != lent(rate=0.2)
    assert lent() != lent(size=2)


def as_data(value: object) -> Any:
    return held(model=functools.partial(print, value))["model"]["of"][0][0]


def test_data_of_what_is_deep_long_or_holds_itself() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    assert as_data(loop) == [1, "..."]
    assert as_data(range) == "builtins.range"
    assert as_data(torch.float32) == "torch.float32"
    assert as_data(list(range(1000))) != as_data(list(range(1001)))
    assert as_data({"a": float("nan"), "b": {2, 1}}) == {"a": "NaN", "b": [1, 2]}


@pytest.mark.slow
def test_a_fresh_process_has_the_same() -> None:
    """The reference learner, whatever order sets have and whatever was imported before."""
    program = (
        "import json; from ris_diag.fingerprint import fingerprint;"
        "print(json.dumps(fingerprint('model.case:reference')))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", program]
    there = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(there.stdout) == fingerprint("model.case:reference")
