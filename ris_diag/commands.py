"""The commands that run checks: check, data, gate."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ris_diag.errors import RequestError
from ris_diag.launch import speaks_another
from ris_diag.report.command import html_option, write_report_page

if TYPE_CHECKING:
    from ris_diag.attended import Attended
    from ris_diag.result import Report
    from ris_diag.runner import Runner

CLOSED = 1


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that can't be written before anything runs."""
    if path is not None and not path.parent.is_dir():
        raise RequestError(f"{param.opts[0]} {path}: expected a file in a folder that exists")
    return path


_FILE = click.Path(dir_okay=False, path_type=Path)


def _shown(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that shows results."""
    for option in (
        html_option,
        click.option("-q", "--quiet", is_flag=True, help="Show the verdict and the first cause."),
        click.option("-v", "--verbose", is_flag=True, help="Show every check, with its lines."),
        click.option(
            "--junit", "junit_file", type=_FILE, callback=_in_a_folder,
            help="Write the results as JUnit XML to this file.",
        ),
        click.option(
            "--json", "json_file", type=_FILE, callback=_in_a_folder,
            help="Write the report to this file.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def case_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that is about a case on a device."""
    for option in (
        click.option("--gpu", is_flag=True, help="Short for --device cuda."),
        click.option("--device", help="cpu, cuda or cuda:N; default: cpu."),
        click.option(
            "--case", metavar="PKG.MOD:FACTORY|FILE.py",
            help="The training under test; default: [tool.ris-diag] case in pyproject.toml.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


# A case that stands alone, without --case, is refused in words of our own: `target_of`.
EXTRA_ARGS = {"allow_extra_args": True}
_seed = click.option("--seed", default=0, show_default=True, help="Seed of every random choice.")
_select = click.option(
    "--select", multiple=True, metavar="ID,...", help="IDs, prefixes, slugs or families."
)


@click.command(context_settings=EXTRA_ARGS)
@case_options
@_seed
@_select
@click.option("--ignore", multiple=True, metavar="ID,...", help="The same, to leave out.")
@_shown
def check(
    case: str | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    device: str | None,
    gpu: bool,
    seed: int,
    **shown: Any,
) -> None:
    """Run checks on a case; exit 1 unless all that apply pass."""
    name = device_name(device, gpu)
    with _attended(name, seed, **shown) as run:
        from ris_diag.check import select_checks

        checks = select_checks(select or None, ignore or None)
        if not checks:
            raise RequestError("--select and --ignore leave no check")
        run.planned = len(checks)
        with _runner(target_of(case), _there(name), seed, run) as runner:
            report = runner.run(checks, run.took)
            run.end(report)
    if not report.ok:
        raise SystemExit(CLOSED)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@_seed
@_select
@click.option("--trace", type=click.FloatRange(min=0, min_open=True), help="Of each covariance.")
@_shown
def data(
    folder: Path, seed: int, select: tuple[str, ...], trace: float | None, **shown: Any
) -> None:
    """Check scenes in .npz files: DIR/train, DIR/val and DIR/test, or DIR itself."""
    with _attended("cpu", seed, **shown) as run:
        from ris_diag.check import select_checks
        from ris_diag.progress import for_stream
        from ris_diag.runner import Runner
        from ris_diag.shards import open_folder

        checks = select_checks(select or "data")
        run.planned, run.doing = len(checks), f"while {folder} was opened"
        shards = open_folder(folder)
        counts = ", ".join(f"{shards.count(split)} {split}" for split in shards.splits)
        click.echo(f"{folder}: scenes: {counts}")
        command = f"ris-diag data {shlex.quote(str(folder))}"
        command += f" --trace {trace:g}" if trace else ""
        case = shards.case(trace=trace)
        run.runner = Runner(case, seed=seed, command=command, progress=for_stream())
        report = run.runner.run(checks, run.took)
        run.end(report)
    if not report.ok:
        raise SystemExit(CLOSED)


@click.command(context_settings=EXTRA_ARGS)
@case_options
@_seed
@click.option("--keep-going", is_flag=True, help="Run all families, whatever fails.")
@click.option(
    "--receipt", type=_FILE, callback=_in_a_folder,
    help="What `verify` and `hpo` ask for; default: .ris-diag/receipt.json of the project.",
)  # fmt: skip
@click.option(
    "--sign", "key", type=click.Path(path_type=Path), metavar="KEY",
    help="Sign the receipt with a private key of OpenSSH.",
)  # fmt: skip
@_shown
def gate(
    case: str | None,
    device: str | None,
    gpu: bool,
    seed: int,
    keep_going: bool,
    receipt: Path | None,
    key: Path | None,
    **shown: Any,
) -> None:
    """Run the families in their order, write a receipt; exit 0 only if a search is worth it."""
    name = device_name(device, gpu)
    with _attended(name, seed, **shown) as run:
        from ris_diag.check import all_checks
        from ris_diag.exemptions import advice
        from ris_diag.fingerprint import hashes
        from ris_diag.gate import gate as run_gate
        from ris_diag.gated import Kept
        from ris_diag.receipt import default_receipt

        run.planned = len(all_checks())
        target = target_of(case)
        _there(name)
        path = receipt or default_receipt()
        loaded_from = {} if speaks_another() else hashes(target)
        with _runner(target, name, seed, run) as runner:
            judge = partial(run_gate, runner, run.took, keep_going=keep_going)
            if speaks_another():  # the receipt is rank 0's
                verdict = judge()
            else:
                kept = Kept(path=path, target=target, loaded_from=loaded_from, key=key)
                verdict = kept.run(runner, judge)
                run.made_for = kept.made_for
            more = advice(runner.subject.case, verdict.report.results)
            run.verdict, run.notes = verdict.text, [*filter(None, [more]), f"receipt: {path}"]
            run.end(verdict.report)
    if not verdict.ready:
        raise SystemExit(CLOSED)


def target_of(case: str | None) -> str:
    """The target that was given, or that of pyproject.toml.

    Raises:
        RequestError: there is none, or it stands without --case.
    """
    from ris_diag.target import EXAMPLE, configured_target

    context = click.get_current_context()
    if context.args:
        alone = " ".join(context.args)
        raise RequestError(
            f"{alone}: expected ris-diag {context.info_name} --case {context.args[0]}"
        )
    target = case or configured_target()
    if target is None:
        raise RequestError(f"no case: {EXAMPLE}")
    return target


def device_name(device: str | None, gpu: bool) -> str:
    """The device asked for, be it there or not.

    Raises:
        RequestError: --gpu and another device.
    """
    from ris_diag.devices import is_cuda

    if gpu and device is not None and not is_cuda(device):
        raise RequestError(f"--gpu beside --device {device}: expected one of them")
    return device if device is not None else "cuda" if gpu else "cpu"


def _there(device: str) -> str:
    """The device, if it is there."""
    from ris_diag.cuda import usable_device

    usable_device(device)
    return device


@contextmanager
def _runner(target: str, device: str, seed: int, run: "Attended") -> Iterator["Runner"]:
    """The runner of a target; where torchrun started several processes, rank 0 alone prints."""
    from ris_diag.progress import for_stream, silent
    from ris_diag.ranks import launched_ranks
    from ris_diag.runner import Runner
    from ris_diag.target import load_case

    progress = silent if speaks_another() else for_stream()
    run.doing = f"while {target} was loaded"
    with ExitStack() as stack:
        ranks = stack.enter_context(launched_ranks())
        load = partial(load_case, target)
        with progress(f"loading {target}", None):
            case = load() if ranks is None else ranks.same("the case", load)
        run.stop.look()
        if speaks_another():
            stack.enter_context(redirect_stdout(StringIO()))
        run.runner = Runner(
            case,
            device=device if ranks is None else ranks.own_device(device),
            seed=seed,
            target=target,
            progress=progress,
            ranks=ranks,
        )
        yield run.runner


@contextmanager
def _attended(
    device: str, seed: int, *, quiet: bool, verbose: bool, **files: Path | None
) -> Iterator["Attended"]:
    """A run whose report is shown and written, also where it is stopped."""
    from ris_diag.attended import attended

    def hand_out(run: "Attended", report: "Report", stopped: str) -> None:
        if not speaks_another():
            _show(run, report, stopped, verbosity=verbose - quiet)
            _write(run, report, **files)

    with attended(hand_out, device=device, seed=seed) as run:
        yield run


def _show(run: "Attended", report: "Report", stopped: str, *, verbosity: int) -> None:
    from ris_diag.screen import Line, show
    from ris_diag.summary import summary

    seconds = sum(result.seconds for result in report.results)
    told = f"case {report.case}, {report.device}, seed {report.seed}, {seconds:.0f} s"
    lines = summary(
        report.results,
        told=told if report.results else "",
        gate=run.verdict,
        stopped=stopped,
        verbosity=verbosity,
        cards=report.cards,
    )
    if run.notes and not stopped and verbosity >= 0:
        lines += [Line(""), *(Line(text) for note in run.notes for text in note.splitlines())]
    show(lines, sys.stdout)


def _write(
    run: "Attended",
    report: "Report",
    *,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
) -> None:
    """The files that were asked for, and what the CI listens to."""
    from ris_diag.ci.github import publish
    from ris_diag.ci.junit import write_junit
    from ris_diag.ci.part import part_of
    from ris_diag.result import write_json

    parts = [part_of(report, run.verdict)]
    try:
        option, path = "--json", json_file
        if path is not None:
            write_json(path, report.to_json())
        option, path = "--junit", junit_file
        if path is not None:
            write_junit(path, parts)
    except OSError as error:
        raise RequestError(f"{option} {path}: {error.strerror}") from error
    write_report_page(report, html_file, run.made_for, run.verdict)
    publish(parts, click.echo)
