"""Builds the wheel, installs it into a fresh environment and runs the suite from another folder.

Dependencies come from the environment that runs this script: nothing is downloaded but the build
backend. `make test-wheel` calls it.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What the tests read beside the installed packages. The packages themselves stay behind.
TAKEN = ("tests", "conftest.py", "pyproject.toml")


def run(*command: str | Path, cwd: Path) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ris diag wheel ") as folder:
        away = Path(folder)
        dist, environment, project = away / "dist", away / "venv", away / "project"
        run(sys.executable, "-m", "build", "--wheel", "--outdir", dist, ROOT, cwd=ROOT)
        # Of here on the folder is another one, and only the wheel itself is installed.
        for name in ("PIP_CONSTRAINT", "PYTHONPATH"):
            os.environ.pop(name, None)
        (wheel,) = dist.glob("*.whl")
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=away)
        _borrow_dependencies(environment)
        for package in ("model", "ris_diag", "pytest_ris"):
            code = f"import {package}, sys; sys.exit(not {package}.__file__.startswith(sys.prefix))"
            run(python, "-c", code, cwd=away)
        _use(environment, away)
        project.mkdir()
        for name in TAKEN:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, project / name)
        # What is about the repository, which is not here: rules of the house, documents, packages.
        names = ["test_house.py", "test_readme.py", "test_distribution.py", "docs"]
        # What the checks find of the catalogue was seen with the same files; a wheel adds nothing.
        names += ["test_faults.py", "test_catalogue.py", "test_names.py", "test_zoo.py"]
        left_out = [f"--ignore=tests/{name}" for name in names]
        run(python, "-m", "pytest", "-n", "2", *left_out, *sys.argv[1:], cwd=project)


def _use(environment: Path, away: Path) -> None:
    """Check a script where nothing else of this project is, by the command and by pytest."""
    folder = away / "user"
    shutil.copytree(ROOT / "tests" / "examples" / "script", folder)
    asked = ("--select", "litmus")
    run(environment / "bin" / "ris-diag", "check", "--case", "train.py", *asked, cwd=folder)
    python = environment / "bin" / "python"
    suite = ("-m", "pytest", "-q", "-p", "no:randomly", "--pyargs", "pytest_ris.suite")
    run(python, *suite, "--ris-case", "train.py", "--ris-select", "L009,L014", cwd=folder)


def _borrow_dependencies(environment: Path) -> None:
    """Let the fresh environment see the libraries of this one, behind its own."""
    site = next((environment / "lib").glob("python*/site-packages"))
    libraries = sysconfig.get_path("purelib")
    (site / "borrowed.pth").write_text(f"{libraries}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
