"""The command line: list, explain, check, data, gate, verify, hpo."""

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ris_diag import __version__
from ris_diag.errors import RisDiagError
from ris_diag.report.command import html_option, write_report_page
from ris_diag.search.command import hpo

if TYPE_CHECKING:
    from ris_diag.gate import Verdict
    from ris_diag.result import Report, Result
    from ris_diag.runner import Runner

CLOSED, USAGE, INTERRUPTED = 1, 2, 130


class _Refused(click.ClickException):
    """A wrong request: one line and exit code 2."""

    exit_code = USAGE


def _is_quiet() -> bool:
    """Whether another process of the same launch speaks for this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("RANK", "0") != "0"


class _Group(click.Group):
    """Turns the toolkit's errors into refusals."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RisDiagError as error:
            if _is_quiet():
                raise SystemExit(USAGE) from None
            raise _Refused(str(error)) from error
        except KeyboardInterrupt:
            click.echo("interrupted: no verdict", err=True)
            raise SystemExit(INTERRUPTED) from None


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that can't be written before anything runs."""
    if path is not None and not path.parent.is_dir():
        raise _Refused(f"{param.opts[0]} {path}: expected a file in a folder that exists")
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
        html_option,
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
    html_file: Path | None,
) -> None:
    """Run checks on a case; exit 1 unless all that apply pass."""
    from ris_diag.check import select_checks

    checks = select_checks(select or None, ignore or None)
    if not checks:
        raise _Refused("--select and --ignore leave no check")
    with _runner(case, _device(device, gpu), seed) as runner:
        report = runner.run(checks, _print_result)
        _print_report(report)
        _write(report, json_file)
        write_report_page(report, None if _is_quiet() else html_file)
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
@click.option("--keep-going", is_flag=True, help="Run all families, whatever fails.")
@click.option(
    "--receipt", type=click.Path(dir_okay=False, path_type=Path), callback=_in_a_folder,
    help="Write to this file what `ris-diag verify` and `ris-diag hpo` ask for.",
)  # fmt: skip
def gate(
    case: str | None,
    device: str | None,
    gpu: bool,
    seed: int,
    json_file: Path | None,
    html_file: Path | None,
    keep_going: bool,
    receipt: Path | None,
) -> None:
    """Run the families in their order; exit 0 only if a search is worth it."""
    from rich.console import Console

    from ris_diag.fingerprint import fingerprint
    from ris_diag.gate import gate as run_gate

    name, target = _device(device, gpu), _target(case)
    # In front of the checks: what is edited while they run wasn't judged.
    made_for = fingerprint(target, device=name) if receipt is not None else {}
    with _runner(target, name, seed) as runner:
        verdict = run_gate(runner, _print_result, keep_going=keep_going)
        _print_report(verdict.report)
        _write(verdict.report, json_file)
        write_report_page(verdict.report, None if _is_quiet() else html_file, made_for)
        _hand_out(receipt, verdict, made_for)
        style = "bold green" if verdict.ready else "bold red"
        seconds = sum(result.seconds for result in verdict.report.results)
        Console().print(f"\n{verdict.text}", style=style, highlight=False)
        told = f"case {verdict.report.case}, {verdict.report.device}, seed {seed}, {seconds:.0f} s"
        click.echo(told)
    if not verdict.ready:
        raise SystemExit(CLOSED)


@main.command()
@click.argument("receipt", type=click.Path(path_type=Path), metavar="RECEIPT")
@click.option("--case", metavar="PKG.MOD:FACTORY|FILE.py", help="As for the gate.")
@click.option("--gpu", is_flag=True, help="Short for --device cuda.")
@click.option("--device", help="For which it was made; default: cpu.")
@click.option("--max-age", metavar="24h", help="30m, 24h, 7d: an older one isn't valid.")
def verify(
    receipt: Path, case: str | None, gpu: bool, device: str | None, max_age: str | None
) -> None:
    """Tell whether a gate's receipt is valid for a case as it is now; exit 1 where it isn't."""
    from ris_diag.receipt import problems_of

    name = _device_name(device, gpu)  # it needn't be there: a receipt can be read anywhere
    problems = problems_of(receipt, target=_target(case), device=name, max_age=_duration(max_age))
    if problems:
        click.echo("\n".join([f"{receipt}: not valid", *(f"  {line}" for line in problems)]))
        raise SystemExit(CLOSED)
    click.echo(f"{receipt}: valid for {_target(case)} on {name}")


def _hand_out(receipt: Path | None, verdict: "Verdict", made_for: dict[str, Any]) -> None:
    """Write the receipt, also of a closed gate: an older one must not stand for it."""
    from ris_diag.receipt import write_receipt

    if receipt is None or _is_quiet():
        return
    try:
        write_receipt(receipt, verdict, made_for)
    except OSError as error:
        raise _Refused(f"--receipt {receipt}: {error.strerror}") from error


def _duration(text: str | None) -> timedelta | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([mhd])", text)
    if found is None:
        raise _Refused(f"--max-age {text}: expected a number and m, h or d, as 24h")
    unit = {"m": "minutes", "h": "hours", "d": "days"}[found.group(2)]
    return timedelta(**{unit: int(found.group(1))})


def _target(target: str | None) -> str:
    """The target that was given, or that of pyproject.toml."""
    from ris_diag.target import EXAMPLE, configured_target

    target = target or configured_target()
    if target is None:
        raise _Refused(f"no case: {EXAMPLE}")
    return target


def _device(device: str | None, gpu: bool) -> str:
    """The device asked for, if it is there."""
    from ris_diag.cuda import usable_device

    name = _device_name(device, gpu)
    usable_device(name)
    return name


def _device_name(device: str | None, gpu: bool) -> str:
    from ris_diag.devices import is_cuda

    if gpu and device is not None and not is_cuda(device):
        raise _Refused(f"--gpu beside --device {device}: expected one of them")
    return device if device is not None else "cuda" if gpu else "cpu"


@contextmanager
def _runner(target: str | None, device: str, seed: int) -> Iterator["Runner"]:
    """The runner of a target; where torchrun started several processes, rank 0 alone prints."""
    from ris_diag.progress import for_stream, silent
    from ris_diag.ranks import launched_ranks
    from ris_diag.runner import Runner
    from ris_diag.target import load_case

    target = _target(target)
    with ExitStack() as stack:
        ranks = stack.enter_context(launched_ranks())
        load = partial(load_case, target)
        case = load() if ranks is None else ranks.same("the case", load)
        if _is_quiet():
            stack.enter_context(redirect_stdout(StringIO()))
        yield Runner(
            case,
            device=device if ranks is None else ranks.own_device(device),
            seed=seed,
            target=target,
            progress=silent if _is_quiet() else for_stream(),
            ranks=ranks,
        )


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

    if json_file is None or _is_quiet():
        return
    try:
        write_json(json_file, report.to_json())
    except OSError as error:
        raise _Refused(f"--json {json_file}: {error.strerror}") from error
