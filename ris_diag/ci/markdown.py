"""The job summary: a report in GitHub's Markdown, the verdict first."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ris_diag.ci.part import Part
from ris_diag.diagnosis import diagnose
from ris_diag.families import FAMILIES
from ris_diag.render import diagnosis_lines
from ris_diag.result import Result

LONGEST = 1000  # characters of one text: a message that holds a whole array is cut
STATUSES = ("pass", "fail", "error", "skip", "xfail")
CUT = "\n_Cut here: a job summary holds 1 MiB. The whole report is in the file of `--json`._\n"
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def summary(parts: Sequence[Part], room: int) -> str:
    """The parts in Markdown, not longer than `room` bytes; "" where nothing fits."""
    chunks: list[str] = []
    left = room - len(CUT.encode())
    for chunk in (chunk for part in parts for chunk in _chunks(part)):
        left -= len(chunk.encode())
        if left < 0:
            return "".join([*chunks, CUT]) if chunks else ""
        chunks.append(chunk)
    return "".join(chunks)


def escaped(text: str) -> str:
    """A text that Markdown shows letter by letter, in one line of a table or a list."""
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n"))
    if len(text) > LONGEST:
        text = text[:LONGEST] + " …"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "<br>")


def _chunks(part: Part) -> Iterator[str]:
    """Pieces behind any of which the text may end."""
    yield f"## {escaped(part.verdict)}\n\n"
    told = f"case {part.case}, {part.device}, {part.seconds:.0f} s"
    yield f"{escaped(told)}\n"
    for line in diagnosis_lines(diagnose(part.results)):
        shown = escaped(line.strip())
        yield f"- {shown}\n" if line.startswith(" ") else f"\n### {shown}\n\n"
    yield from _failed(part.red)
    yield from _counts(part.results)
    for result in part.results:
        yield from _estimators(result)
    yield "\n"


def _failed(results: list[Result]) -> Iterator[str]:
    head = _table("check", "measured, and the limit", "place", "next step")
    for result in results:
        again = f"\n{result.reproduce}" if result.reproduce else ""
        texts = (result.name, result.cause, result.place, result.next_step + again)
        yield head + _row(*texts)
        head = ""


def _counts(results: list[Result]) -> Iterator[str]:
    head = _table("family", *STATUSES, "seconds")
    for family in FAMILIES:
        own = [result for result in results if result.family == family.name]
        if own:
            counts = Counter(result.shown_status for result in own)
            numbers = [str(counts[status]) for status in STATUSES]
            yield head + _row(family.name, *numbers, f"{sum(r.seconds for r in own):.1f}")
            head = ""


def _estimators(result: Result) -> Iterator[str]:
    """The table of the estimators, which O002 measures."""
    means = result.measurements.get("nmse")
    errors = result.measurements.get("nmse_standard_error")
    if isinstance(means, Mapping) and isinstance(errors, Mapping):
        yield _table("NMSE on fresh scenes", "mean", "standard error")
        for name, mean in means.items():
            yield _row(str(name), _number(mean), _number(errors.get(name)))


def _number(value: Any) -> str:
    """A measurement, which is a text where it isn't finite."""
    return f"{value:.4f}" if isinstance(value, int | float) else str(value)


def _table(*names: str) -> str:
    return "\n" + _row(*names) + "|" + " --- |" * len(names) + "\n"


def _row(*texts: str) -> str:
    return "| " + " | ".join(map(escaped, texts)) + " |\n"
