"""The table behind `make bench`."""

from typing import Any

import pytest


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [
        b.extra_info for b in getattr(session, "benchmarks", []) if "over_limit" in b.extra_info
    ]
    if not rows:
        return
    terminalreporter.section("NMSE kernel: times research and limit in the same interleaved run")
    terminalreporter.write_line(
        "(B,N)      dtype       direction           threads       kernel  "
        "x research  x limit  extra (research)   GB/s"
    )
    for row in rows:
        terminalreporter.write_line(line(row))


def line(row: dict[str, Any]) -> str:
    extra = "   ".join("-" if v is None else f"{v:.1f}" for v in row["extra_inputs"].values())
    return (
        f"({row['batch']},{row['size']})".ljust(11)
        + f"{row['dtype']:<12}{row['direction']:<20}{row['threads']:<12}"
        + f"{row['microseconds']['kernel']:>8.0f}us{row['over_research']:>11.1f}"
        + f"{row['over_limit']:>9.1f}  {extra:>16}{row['gigabytes_per_second']:>7.1f}"
    )
