"""The option --html of the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ris_diag.errors import ReportError
from ris_diag.report import require_report
from ris_diag.result import Report


def _checked(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a page that can't be written before anything runs."""
    if path is not None:
        require_report(param.opts[0], path)
    return path


html_option = click.option(
    "--html",
    "html_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with figures to this file.",
    callback=_checked,
)


def write_report_page(
    report: Report,
    path: Path | None,
    fingerprint: Mapping[str, Any] | None = None,
    gate: str = "",
) -> None:
    """Write the page of a report, if it was asked for.

    Raises:
        ReportError: the file can't be written; an older one is untouched.
    """
    if path is None:
        return
    from ris_diag.report.page import write_page

    try:
        write_page(path, [report], fingerprint, gate)
    except OSError as error:
        raise ReportError(f"--html {path}: {error.strerror}") from error
