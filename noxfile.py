"""The suite on each Python and torch that is declared: `nox -s python-3.12`, `nox -s "torch(2.6)"`.

docs/versions.md says which of them were run.
"""

import nox

nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["python"]
QUICK = ("-n", "2", "-m", "not slow")


@nox.session(python=["3.11", "3.12", "3.13"])
def python(session: nox.Session) -> None:
    """With the versions that the project is developed with."""
    session.install("--constraint", "constraints.txt", "--editable", ".[dev]")
    session.run("pytest", *(session.posargs or QUICK))


@nox.session(python="3.11")
@nox.parametrize("torch", ["2.6", "2.15"], ids=["2.6", "2.15"])
def torch(session: nox.Session, torch: str) -> None:
    """With the oldest torch that is declared, and the newest that there is."""
    session.install(f"torch=={torch}.*", "--editable", ".[dev]")
    session.run("pytest", *(session.posargs or QUICK))
