"""`ris-diag ci`: prints a workflow for the user's own project."""

from pathlib import Path

import click

from ris_diag.ci.workflow import TEMPLATES


@click.command()
@click.argument("kind", type=click.Choice(list(TEMPLATES)))
@click.option(
    "--case", metavar="PKG.MOD:FACTORY|FILE.py",
    help="The training under test; default: [tool.ris-diag] case in pyproject.toml.",
)  # fmt: skip
def ci(kind: str, case: str | None) -> None:
    """Print a workflow that runs the gate; the first line says which file it is."""
    from ris_diag.ci.workflow import workflow
    from ris_diag.commands import target_of
    from ris_diag.target import load_case

    load_case(target_of(case))  # what doesn't load here doesn't there
    click.echo(workflow(kind, case, Path.cwd()), nl=False)
