"""What a CI reads of a run: properties of a test in JUnit XML, the job summary, annotations."""

import pytest

from pytest_ris.records import PROPERTY, Record, results_by_group
from pytest_ris.session import RisSession
from ris_diag.launch import speaks_another


def made_readable(report: pytest.TestReport) -> list[Record]:
    """The results that a test recorded.

    In the report, texts take their place: --junitxml would print the plain data as Python does.
    """
    own = [value for key, value in report.user_properties if key == PROPERTY]
    records = [value for value in own if isinstance(value, dict)]
    if records:
        from ris_diag.ci.junit import properties_of
        from ris_diag.result import Result

        others = [(key, value) for key, value in report.user_properties if key != PROPERTY]
        report.user_properties = others + [
            named
            for record in records
            for named in properties_of(record["case"], record["device"], Result(**record["result"]))
        ]
    return records


def publish(ris: RisSession, *, complete: bool) -> None:
    """Job summary and annotations for GitHub, of a run in which checks ran."""
    from ris_diag.ci.github import listens
    from ris_diag.ci.github import publish as to_github

    if not ris.records or speaks_another() or not listens():
        return
    from ris_diag.ci.part import Part
    from ris_diag.verdict import verdict_on

    reporter = ris.config.pluginmanager.getplugin("terminalreporter")
    parts = []
    for group, results in results_by_group(ris.records).items():
        verdict = verdict_on(results, complete=complete).text
        parts.append(Part(**group._asdict(), results=results, verdict=verdict))
    to_github(parts, reporter.write_line if reporter else lambda line: None)
