"""What a person sees of a running search: a live table, or a line for every trial that ends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ris_diag.search.study import Watch
    from ris_diag.search.winner import Comparison

SHOWN = 12  # trials in the live table, the last ones


def row(trial: "FrozenTrial", epochs: int) -> tuple[str, str, str, str, str]:
    """Number, state, epochs, metric, parameters or what went wrong."""
    reported = trial.intermediate_values
    best = min(reported.values(), default=None)
    told = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    if trial.state.name == "FAIL":
        attrs = trial.user_attrs
        told = f"{attrs.get('check', 'killed, its trial is repeated')} {attrs.get('cause', '')}"
    return (
        str(trial.number),
        trial.state.name.lower(),
        f"{max(reported, default=0)}/{epochs}",
        "-" if best is None else f"{best:.4f}",
        told.strip(),
    )


@contextmanager
def shown(console: Console, epochs: int) -> Iterator["Watch"]:
    """A function that shows the trials as they are now."""
    told: set[int] = set()

    def lines(trials: "list[FrozenTrial]") -> None:
        for trial in trials:
            if trial.state.is_finished() and trial.number not in told:
                told.add(trial.number)
                number, *rest = row(trial, epochs)
                state, reached, value, text = rest
                console.print(
                    f"trial {number:>3}  {state:<8}  {reached:>6}  {value:>8}  {text}",
                    markup=False, highlight=False, soft_wrap=True,
                )  # fmt: skip

    if not console.is_terminal:
        yield lines
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield lambda trials: live.update(_table(trials, epochs))


def _table(trials: "list[FrozenTrial]", epochs: int) -> Table:
    table = Table("trial", "state", "epochs", "metric", "parameters", box=None, pad_edge=False)
    begun = [trial for trial in trials if trial.state.name != "WAITING"]
    for trial in begun[-SHOWN:]:
        table.add_row(*row(trial, epochs))
    ended = sum(trial.state.is_finished() for trial in trials)
    table.caption = f"{ended} of {len(trials)} trials ended"
    return table


def comparison_lines(comparison: "Comparison") -> list[str]:
    """The winner beside what it must beat, and the verdict."""
    from ris_diag.search.winner import SEEDS, standard_error

    width = max(map(len, comparison.scores))
    lines = [f"{'on fresh samples':<{width}}    mean      +-se   ({SEEDS} seeds)"]
    for name, values in comparison.scores.items():
        mean = sum(values) / len(values)
        lines.append(f"{name:<{width}}  {mean:8.4f}  {standard_error(values):8.4f}")
    same = "the same to the digit" if comparison.repeats else f"not the same: {comparison.again!r}"
    lines.append(f"trained again: {comparison.value!r}, {same}")
    if comparison.better:
        lines.append("The winner is better than all of these, by more than two standard errors.")
    else:
        others = [n for n in list(comparison.scores)[1:] if comparison.margin(n) <= 0]
        lines.append(f"The winner is NOT shown to be better than {', '.join(others)}.")
    return lines


def parameter_lines(parameters: Mapping[str, Any], defaults: Mapping[str, Any]) -> Sequence[str]:
    """Every parameter beside its default."""
    return [
        f"  {name} = {_short(value)}  (default {_short(defaults[name])})"
        for name, value in parameters.items()
    ]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
