"""The page: one file that opens from disk and asks for nothing else."""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ris_diag.case import unlocking
from ris_diag.check import Check, get_check
from ris_diag.diagnosis import Diagnosis
from ris_diag.families import FAMILIES
from ris_diag.report import drawn
from ris_diag.report.excerpt import Excerpt, excerpts
from ris_diag.result import Report, Result, write_atomically
from ris_diag.verdict import verdict_on

STATUSES = ("fail", "error", "xfail", "skip", "pass")  # what needs a look comes first


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check on the page."""

    result: Result
    check: Check
    status: str
    anchor: str
    excerpts: list[Excerpt]
    text: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """A case on a device, in what the template shows.

    Attributes:
        prefix: of its anchors and ids; "" for the first.
        tone: "good", "bad" or "open".
    """

    report: Report
    prefix: str
    tone: str
    verdict: str
    counts: dict[str, int]
    diagnosis: Diagnosis
    places: list[list[Excerpt]]
    losses: list[drawn.Drawn]
    flow: drawn.Flow
    scene: list[drawn.Drawn]
    estimators: tuple[drawn.Drawn, list[tuple[str, Any, Any]]]
    rows: list[Row]


def write_page(
    path: str | Path,
    reports: Sequence[Report],
    fingerprint: Mapping[str, Any] | None = None,
    gate: str = "",
) -> None:
    """Write the page at once or not at all.

    Args:
        reports: one for every case and device.
        fingerprint: what the verdict was given for, where a receipt was asked for.
        gate: the verdict of a gate on the one report.

    Raises:
        OSError: the folder doesn't exist or can't be written; an older file is untouched.
    """
    write_atomically(path, page(reports, fingerprint, gate))


def page(
    reports: Sequence[Report], fingerprint: Mapping[str, Any] | None = None, gate: str = ""
) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("ris_diag.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ids"] = linked
    environment.filters["digits"] = digits
    environment.filters["svg"] = lambda text: Markup(text)  # noqa: S704  # drawing.py escapes
    script = (files("ris_diag.report") / "page.js").read_text(encoding="utf-8")
    style = (files("ris_diag.report") / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    prefixes = ["", *(f"p{number}-" for number in range(2, len(reports) + 1))]
    return environment.get_template("page.html.j2").render(
        parts=[
            part(report, prefix, gate) for report, prefix in zip(reports, prefixes, strict=False)
        ],
        families=FAMILIES,
        statuses=STATUSES,
        unlocking=unlocking,
        fingerprint=dict(fingerprint or {}),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        script=Markup(script),  # noqa: S704  # a file of this package, as the next
        style=Markup(style),  # noqa: S704
        digest=digest,
    )


def part(report: Report, prefix: str, gate: str = "") -> Part:
    """What the template shows of one report."""
    results, diagnosis = report.results, report.diagnosis
    tone, verdict = verdict_on(results, complete=report.complete, gate=gate)
    statuses = Counter(result.shown_status for result in results)
    return Part(
        report=report,
        prefix=prefix,
        tone=tone,
        verdict=verdict,
        counts={status: statuses[status] for status in STATUSES if statuses[status]},
        diagnosis=diagnosis,
        places=[excerpts(named.place) for named in diagnosis.named],
        losses=drawn.losses(results, prefix),
        flow=drawn.flow(results, prefix),
        scene=drawn.scene(results, prefix),
        estimators=drawn.estimators(results, prefix),
        rows=[row(result, prefix) for result in results],
    )


def row(result: Result, prefix: str) -> Row:
    """A check on the page."""
    words = (result.name, result.title, result.cause, result.place, *result.lines)
    return Row(
        result=result,
        check=get_check(result.id),
        status=result.shown_status,
        anchor=f"{prefix}{result.id}",
        excerpts=excerpts(result.place),
        text=" ".join(words).lower(),
    )


def linked(text: str, part: Part) -> Markup:
    """A text in which the IDs of the checks on the page are links to them."""
    there = {row.result.id for row in part.rows}
    pieces = [Markup.escape(piece) for piece in re.split(r"\b([GMDLO]\d{3})\b", text)]
    for number in range(1, len(pieces), 2):
        if str(pieces[number]) in there:
            name = pieces[number]
            pieces[number] = Markup('<a href="#{}{}">{}</a>').format(part.prefix, name, name)
    return Markup("").join(pieces)


def digits(value: Any) -> str:
    """A number with three digits, a hyphen for none."""
    return "-" if value is None else f"{float(value):.3g}"
