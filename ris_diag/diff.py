"""`ris-diag diff`: what changed between two runs. Nothing heavy at module level."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ris_diag.changes import Changes, Checked
    from ris_diag.saved import Group

WORSE = 1
SHOWN = 20  # measurements
SLOWER, SECONDS = 1.5, 1.0  # a check is listed whose time grew by this factor, and by this much
STYLES = {"worse": "bold red", "gone": "bold red", "better": "green"}


@click.command()
@click.argument("before", type=click.Path(path_type=Path), metavar="A.json")
@click.argument("after", type=click.Path(path_type=Path), metavar="B.json")
def diff(before: Path, after: Path) -> None:
    """Show what changed from one report to another; exit 1 if a check got worse."""
    from rich.console import Console

    from ris_diag.changes import changes
    from ris_diag.saved import read_report

    one, other = read_report(before), read_report(after)
    found = changes(one, other)
    console = Console(soft_wrap=True, highlight=False)
    for path, saved in ((before, one), (after, other)):
        groups = "; ".join(map(_told, saved.results)) or "no results"
        stopped = "" if saved.complete else ", interrupted"
        console.print(f"{path}: {groups}{stopped}", markup=False)
    for name, (old, new) in found.versions.items():
        console.print(f"{name}: {old} -> {new}", markup=False)
    _print_tables(console, found, several=max(map(len, (one.results, other.results))) > 1)
    console.print(f"\n{_summed_up(found)}", style="bold red" if found.worse else "bold green")
    if found.worse:
        raise SystemExit(WORSE)


def _print_tables(console: "Console", found: "Changes", *, several: bool) -> None:
    """Checks, causes, measurements and times, each where something differs."""

    def named(group: "Group", name: str) -> str:
        return f"{name} ({_told(group)})" if several else name

    _table(
        console,
        ("", "check", "before", "after", "cause"),
        [
            (c.word, named(c.group, c.name), c.before or "-", c.after or "-", _first_line(c))
            for c in found.changed
        ],
    )
    _table(
        console,
        ("diagnosis", "", "sure", "place"),
        [
            (
                "new" if c.came else "gone",
                named(c.group, c.name),
                f"{min(c.certainty, 0.99):.0%}",
                c.place,
            )
            for c in found.causes
        ],
    )
    rows = [
        (
            named(m.group, m.name),
            _short(m.before),
            _short(m.after),
            "" if m.change is None else f"{m.change:+.1%}",
        )
        for m in found.measurements
    ]
    _table(console, ("measurement", "before", "after", "change"), rows[:SHOWN])
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN} more measurements that changed less")
    slower = [c for c in found.checks if _is_slower(c)]
    _table(
        console,
        ("slower", "before", "after"),
        [(named(c.group, c.name), *(f"{s:.1f} s" for s in c.seconds)) for c in slower],
    )


def _table(console: "Console", names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row), style=STYLES.get(row[0]))
    console.print()
    console.print(table)


def _summed_up(found: "Changes") -> str:
    """One line: what got worse and better, and the time."""
    worse = sum(check.worse for check in found.checks)
    better = sum(check.word == "better" for check in found.checks)
    same = sum(check.before == check.after for check in found.checks)
    before, after = (sum(check.seconds[n] for check in found.checks) for n in (0, 1))
    stopped = "interrupted; " if found.stopped else ""
    counts = f"{worse} worse, {better} better, {same} as before"
    return f"{stopped}{counts}; {before:.0f} s -> {after:.0f} s"


def _is_slower(check: "Checked") -> bool:
    before, after = check.seconds
    return bool(check.before) and after > max(SLOWER * before, before + SECONDS)


def _first_line(check: "Checked") -> str:
    return check.cause.partition("\n")[0] if check.worse else ""


def _told(group: "Group") -> str:
    return f"{group.case}, {group.device}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
