"""The command line: list, explain and verify; the other commands have modules of their own."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from ris_diag import __version__
from ris_diag.ci.command import ci
from ris_diag.commands import (
    CLOSED,
    case_options,
    check,
    data,
    device_name,
    gate,
    target_of,
)
from ris_diag.diff import diff
from ris_diag.errors import RequestError, RisDiagError
from ris_diag.launch import speaks_another
from ris_diag.search.command import hpo

USAGE, INTERRUPTED = 2, 130


class _Refused(click.ClickException):
    """A wrong request: one line and exit code 2."""

    exit_code = USAGE


class _Group(click.Group):
    """Turns the toolkit's errors into refusals."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RisDiagError as error:
            if speaks_another():
                raise SystemExit(USAGE) from None
            raise _Refused(str(error)) from error
        except KeyboardInterrupt:  # in front of a run, or beside one
            click.echo("interrupted: no verdict", err=True)
            raise SystemExit(INTERRUPTED) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ris-diag")
def main() -> None:
    """Checks for the training of neural networks, to be green before a hyper-parameter search."""


for command in (check, data, gate, hpo, ci, diff):
    main.add_command(command)


@main.command("list")
def list_command() -> None:
    """Show every check with its source."""
    from rich.console import Console
    from rich.table import Column, Table

    from ris_diag.check import all_checks
    from ris_diag.render import listing

    slug = Column("check", no_wrap=True)  # what is cut off can't be asked for
    table = Table("ID", slug, "source", "what it makes sure of", box=None, pad_edge=False)
    for row in listing(all_checks()):
        table.add_row(*row)
    Console().print(table)


@main.command()
@click.argument("check_id", metavar="ID")
def explain(check_id: str) -> None:
    """Tell what a check does, why, and its limits; or what a cause is, and how it is known."""
    from ris_diag.render import explained

    click.echo(explained(check_id))


@main.command()
@click.argument("receipt", type=click.Path(path_type=Path), required=False, metavar="[RECEIPT]")
@case_options
@click.option("--max-age", metavar="24h", help="30m, 24h, 7d: an older one isn't valid.")
@click.option(
    "--signers", type=click.Path(path_type=Path), metavar="FILE",
    help="Allowed signers, as ssh-keygen reads them: one of them must have signed it.",
)  # fmt: skip
def verify(
    receipt: Path | None,
    case: str | None,
    gpu: bool,
    device: str | None,
    max_age: str | None,
    signers: Path | None,
) -> None:
    """Tell whether a gate's receipt is valid for a case as it is now; exit 1 where it isn't."""
    from ris_diag.receipt import default_receipt, judged

    name = device_name(device, gpu)  # it needn't be there: a receipt can be read anywhere
    target, path = target_of(case), receipt or default_receipt()
    age = _duration(max_age)
    problems, git = judged(path, target=target, device=name, max_age=age, signers=signers)
    lines = [f"{path}: not valid" if problems else f"{path}: valid for {target} on {name}"]
    click.echo("\n".join([*lines, *(f"  {line}" for line in problems)]))
    if git:
        click.echo(f"  {git}")
    if problems:
        raise SystemExit(CLOSED)


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if found is None:
        raise RequestError(f"--max-age {text}: expected a number and m, h or d, as 24h")
    unit = {"m": "minutes", "h": "hours", "d": "days"}[found.group(2)]
    return timedelta(**{unit: int(found.group(1))})
