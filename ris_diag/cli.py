"""The command line: list, explain, check, data, gate, hpo."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ris_diag import __version__
from ris_diag.errors import RisDiagError
from ris_diag.search.command import hpo

if TYPE_CHECKING:
    from ris_diag.result import Report, Result
    from ris_diag.runner import Runner

CLOSED, USAGE, INTERRUPTED = 1, 2, 130


class _Refused(click.ClickException):
    """A wrong request: one line and exit code 2."""

    exit_code = USAGE


class _Group(click.Group):
    """Turns the toolkit's errors into refusals."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RisDiagError as error:
            raise _Refused(str(error)) from error
        except KeyboardInterrupt:
            click.echo("interrupted: no verdict", err=True)
            raise SystemExit(INTERRUPTED) from None


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that can't be written before anything runs."""
    if path is not None and not path.parent.is_dir():
        raise _Refused(f"--json {path}: expected a file in a folder that exists")
    return path


def _case_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that runs checks."""
    for option in (
        click.option("--seed", default=0, show_default=True, help="Seed of every random choice."),
        click.option("--gpu", is_flag=True, help="Short for --device cuda."),
        click.option("--device", help="cpu, cuda or cuda:N; default: cpu."),
        click.option(
            "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path),
            help="Write the report to this file.", callback=_in_a_folder,
        ),
        click.option(
            "--case", metavar="PKG.MOD:FACTORY|FILE.py",
            help="The training under test; default: [tool.ris-diag] case in pyproject.toml.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ris-diag")
def main() -> None:
    """Checks for the training of neural networks, to be green before a hyper-parameter search."""


main.add_command(hpo)


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
@_case_options
@click.option("--select", multiple=True, metavar="ID,...", help="IDs, prefixes, slugs or families.")
@click.option("--ignore", multiple=True, metavar="ID,...", help="The same, to leave out.")
def check(
    case: str | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    device: str | None,
    gpu: bool,
    seed: int,
    json_file: Path | None,
) -> None:
    """Run checks on a case; exit 1 unless all that apply pass."""
    from ris_diag.check import select_checks

    checks = select_checks(select or None, ignore or None)
    if not checks:
        raise _Refused("--select and --ignore leave no check")
    runner = _runner(case, _device(device, gpu), seed)
    report = runner.run(checks, _print_result)
    _print_report(report)
    _write(report, json_file)
    if not report.ok:
        raise SystemExit(CLOSED)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--seed", default=0, show_default=True, help="Seed of every random choice.")
@click.option("--select", multiple=True, metavar="ID,...", help="IDs, prefixes, slugs or families.")
@click.option("--trace", type=click.FloatRange(min=0, min_open=True), help="Of each covariance.")
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report to this file.", callback=_in_a_folder,
)  # fmt: skip
def data(
    folder: Path, seed: int, select: tuple[str, ...], trace: float | None, json_file: Path | None
) -> None:
    """Check scenes in .npz files: DIR/train, DIR/val and DIR/test, or DIR itself."""
    from ris_diag.check import select_checks
    from ris_diag.progress import for_stream
    from ris_diag.runner import Runner
    from ris_diag.shards import open_folder

    checks = select_checks(select or "data")
    shards = open_folder(folder)
    counts = ", ".join(f"{shards.count(split)} {split}" for split in shards.splits)
    click.echo(f"{folder}: scenes: {counts}")
    command = f"ris-diag data {shlex.quote(str(folder))}" + (f" --trace {trace:g}" if trace else "")
    case = shards.case(trace=trace)
    runner = Runner(case, seed=seed, command=command, progress=for_stream())
    report = runner.run(checks, _print_result)
    _print_report(report)
    _write(report, json_file)
    if not report.ok:
        raise SystemExit(CLOSED)


@main.command()
@_case_options
def gate(
    case: str | None, device: str | None, gpu: bool, seed: int, json_file: Path | None
) -> None:
    """Run the families in their order; exit 0 only if a search is worth it."""
    from rich.console import Console

    from ris_diag.gate import gate as run_gate

    runner = _runner(case, _device(device, gpu), seed)
    verdict = run_gate(runner, _print_result)
    _print_report(verdict.report)
    _write(verdict.report, json_file)
    style = "bold green" if verdict.ready else "bold red"
    seconds = sum(result.seconds for result in verdict.report.results)
    Console().print(f"\n{verdict.text}", style=style, highlight=False)
    click.echo(f"case {verdict.report.case}, {verdict.report.device}, seed {seed}, {seconds:.0f} s")
    if not verdict.ready:
        raise SystemExit(CLOSED)


def _device(device: str | None, gpu: bool) -> str:
    """The device asked for, if it is there."""
    from ris_diag.cuda import usable_device
    from ris_diag.devices import is_cuda

    if gpu and device is not None and not is_cuda(device):
        raise _Refused(f"--gpu beside --device {device}: expected one of them")
    name = device if device is not None else "cuda" if gpu else "cpu"
    usable_device(name)
    return name


def _runner(target: str | None, device: str, seed: int) -> "Runner":
    from ris_diag.progress import for_stream
    from ris_diag.runner import Runner
    from ris_diag.target import EXAMPLE, configured_target, load_case

    target = target or configured_target()
    if target is None:
        raise _Refused(f"no case: {EXAMPLE}")
    return Runner(load_case(target), device=device, seed=seed, target=target, progress=for_stream())


def _print_result(result: "Result") -> None:
    from rich.console import Console

    from ris_diag.render import STYLES, result_line

    console = Console(soft_wrap=True, highlight=False)
    console.print(result_line(result), style=STYLES[result.status], markup=False)
    for line in result.lines:
        console.print(f"      {line}", markup=False)


def _print_report(report: "Report") -> None:
    """The diagnosis, then the message of every check that failed."""
    from rich.console import Console

    from ris_diag.render import diagnosis_lines

    console = Console(soft_wrap=True, highlight=False)
    lines = diagnosis_lines(report.diagnosis)
    if lines:
        console.print()
        console.print(lines[0], style="bold red", markup=False)
    for line in lines[1:]:
        console.print(line, markup=False)
    for result in report.results:
        if result.status in ("fail", "error"):
            console.print(f"\n{result.message()}", markup=False)
    if report.cards:
        console.print()
    for card in report.cards:
        console.print(str(card), markup=False)


def _write(report: "Report", json_file: Path | None) -> None:
    from ris_diag.result import write_json

    if json_file is None:
        return
    try:
        write_json(json_file, report.to_json())
    except OSError as error:
        raise _Refused(f"--json {json_file}: {error.strerror}") from error
