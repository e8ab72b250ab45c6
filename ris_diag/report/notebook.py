"""A report in a notebook: a table in the notebook's own style, made of nothing but text."""

from collections import Counter
from html import escape

from ris_diag.render import diagnosis_lines
from ris_diag.result import Report, Result
from ris_diag.verdict import verdict_on

# Inline, so that nothing else in the notebook is restyled; readable on light and on dark.
COLOURS = {"bad": "color: #cf4a57", "good": "color: #2f9e5b", "open": ""}
LEFT = "text-align: left; vertical-align: top"
SHOWN_OPEN = ("fail", "error")
HEADS = ("status", "check", "what was found", "place", "s")


def as_html(report: Report) -> str:
    """Verdict, diagnosis, and the checks: those that failed at once, all of them on a click."""
    tone, verdict = verdict_on(report.results, complete=report.complete)
    counts = Counter(result.shown_status for result in report.results)
    shown = ", ".join(f"{count} {status}" for status, count in counts.items())
    failed = [result for result in report.results if result.status in SHOWN_OPEN]
    told = f"{report.case}, {report.device}, seed {report.seed}: {shown or 'no check ran'}"
    pieces = [
        f"<p><strong>{escape(told)}</strong><br>"
        f'<span style="{COLOURS[tone]}">{escape(verdict)}</span></p>'
    ]
    lines = diagnosis_lines(report.diagnosis)
    if lines:
        text = escape("\n".join(lines))
        pieces.append(f'<pre style="white-space: pre-wrap">{text}</pre>')
    if failed:
        pieces.append(_table(failed))
    pieces.append(
        f"<details><summary>All {len(report.results)} checks</summary>"
        f"{_table(report.results)}</details>"
    )
    return f"<div>{''.join(pieces)}</div>"


def _table(results: list[Result]) -> str:
    heads = "".join(f'<th scope="col" style="{LEFT}">{word}</th>' for word in HEADS)
    rows = "".join(map(_row, results))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def _row(result: Result) -> str:
    status = result.shown_status
    colour = COLOURS["bad"] if status in SHOWN_OPEN else ""
    cells = (result.name, result.cause or result.title, result.place, f"{result.seconds:.1f}")
    rest = "".join(f'<td style="{LEFT}">{escape(cell)}</td>' for cell in cells)
    return f'<tr><td style="{LEFT}; {colour}">{status}</td>{rest}</tr>'
