"""What is built to be installed elsewhere: whole, nothing beside it, by both ways, typed."""

import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("model", "ris_diag", "pytest_ris")
pytestmark = pytest.mark.slow


def build(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an sdist, and of the wheel that comes from it."""
    folder = tmp_path_factory.mktemp("dist")
    build("--outdir", folder, ROOT)
    return folder


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def the_wheel(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_is_the_three_packages_with_their_data(built: Path) -> None:
    expected = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    shipped = content(the_wheel(built))
    packages = {name: data for name, data in shipped.items() if ".dist-info/" not in name}
    assert packages.keys() == expected.keys()
    assert packages == expected
    assert {f"{room}/py.typed" for room in ROOMS} <= packages.keys()
    assert {"model/spaces/narrow.toml", "model/spaces/wide.toml"} <= packages.keys()


def test_a_wheel_from_the_sources_is_that_of_the_sdist(built: Path, tmp_path: Path) -> None:
    build("--wheel", "--outdir", tmp_path, ROOT)
    assert content(the_wheel(tmp_path)) == content(the_wheel(built))


def test_the_sdist_has_what_its_documents_and_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kept = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "noxfile.py")
    assert {*kept, "conftest.py", "constraints.txt", "docs/index.md", "tests/wheel.py"} <= names


def test_the_wheel_declares_what_it_needs(built: Path) -> None:
    files = content(the_wheel(built))
    (metadata,) = (data for name, data in files.items() if name.endswith("/METADATA"))
    declared = message_from_bytes(metadata)
    assert declared["Requires-Python"] == ">=3.11"
    assert {"all", "bench", "hpo", "laws"} <= set(declared.get_all("Provides-Extra") or ())
    needed = declared.get_all("Requires-Dist") or []
    core = {line.split(">")[0] for line in needed if "extra ==" not in line}
    assert core == {"torch", "numpy", "pytest", "rich", "click"}


USER = """\
import ris_diag
from model.nmse import nmse
from pytest_ris import parametrize_with_checks

case = ris_diag.Case(name="mine")
report = ris_diag.run(case, select="guard")
reveal_type(report)
reveal_type(nmse)
reveal_type(parametrize_with_checks)
ris_diag.Case(name=3)
ris_diag.run(case, slect="guard")
"""


def test_a_users_mypy_sees_types(built: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    venv.create(environment)
    (site,) = (environment / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(the_wheel(built)) as archive:
        archive.extractall(site)  # noqa: S202  # built above; as pip does, but for its script
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    python = environment / "bin" / "python"
    # Torch isn't in that environment: what mypy says of it is not what is asked here.
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "user.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = [line.partition(": ")[2] for line in run.stdout.splitlines()]
    assert 'note: Revealed type is "ris_diag.result.Report"' in told
    assert any("note: Revealed type is" in line and "w_diag: float =" in line for line in told)
    assert any("note: Revealed type is" in line and "Case" in line for line in told)
    errors = [line for line in told if line.startswith("error")]
    assert len(errors) == 2, run.stdout
    assert "[arg-type]" in errors[0]
    assert 'Unexpected keyword argument "slect"' in errors[1]
