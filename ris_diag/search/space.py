"""A space of parameters: data, from a file, validated against the factory it is meant for."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_diag.errors import SearchError
from ris_diag.search.searchable import Searchable

if TYPE_CHECKING:
    import optuna

KEYS = {"low", "high", "log", "step"}
EXPECTED = (
    "expected {low = 1e-4, high = 1e-2, log = true}, {low = 16, high = 64, step = 16} or a list"
)


@dataclass(frozen=True)
class Dimension:
    """Where a parameter lies: choices, or low <= value <= high, in steps or logarithmically."""

    name: str
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Lowest and highest value, or the choices."""
        return self.choices or (self.low, self.high)

    def suggest(self, trial: "optuna.Trial") -> Any:
        """A value for a trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.whole:
            return trial.suggest_int(
                self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def entry(self) -> Any:
        """As in a file."""
        if self.choices:
            return list(self.choices)
        step = {} if self.step is None else {"step": self.step}
        return {"low": self.low, "high": self.high, "log": self.log, **step}

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        if self.choices:
            return any(value == c and type(value) is type(c) for c in self.choices)
        if not _is_number(value) or (self.whole and not isinstance(value, int)):
            return False
        return self.low <= value <= self.high and _on_grid(value - self.low, self.step)

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(map(repr, self.choices))}"
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}{step}"


@dataclass(frozen=True)
class Space:
    """Dimensions by the names of the factory's parameters."""

    name: str
    dimensions: tuple[Dimension, ...]

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """The parameters of a trial."""
        return {dimension.name: dimension.suggest(trial) for dimension in self.dimensions}

    def corners(self, defaults: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Where a configuration is most likely to break: the default, all low, all high."""
        return {
            "default": {d.name: defaults[d.name] for d in self.dimensions},
            "all low": {d.name: d.ends[0] for d in self.dimensions},
            "all high": {d.name: d.ends[-1] for d in self.dimensions},
        }

    def table(self) -> dict[str, Any]:
        """As `make_space` reads it."""
        return {d.name: d.entry() for d in self.dimensions}

    def described(self) -> dict[str, str]:
        """Name to range, for people and for the study."""
        return {dimension.name: str(dimension) for dimension in self.dimensions}


def load_space(name: str, searchable: Searchable) -> Space:
    """A space by name, `spaces/NAME.toml` beside the factory's module, or by the path of a file.

    Raises:
        SearchError: no such space, no TOML, or what doesn't fit the factory; all at once.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = searchable.folder / "spaces" / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = sorted(other.stem for other in path.parent.glob("*.toml"))
        hint = f"; there is {', '.join(known)}" if known else "; give the path of a .toml file"
        raise SearchError(f"space {name!r}: {path}: {error.strerror}{hint}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SearchError(f"space {name!r}: {path}: {error}") from error
    return make_space(name, table, searchable.defaults)


def make_space(name: str, table: Mapping[str, Any], defaults: Mapping[str, Any]) -> Space:
    """A space of a table: parameter to {low, high, log, step} or a list of choices.

    Args:
        defaults: of the factory's parameters; each must lie in the space.

    Raises:
        SearchError: everything that doesn't fit, in one message.
    """
    problems = [] if table else ["it has no dimension"]
    dimensions = []
    for parameter, entry in table.items():
        if parameter not in defaults:
            problems.append(f"{parameter}: no such parameter; there are {', '.join(defaults)}")
            continue
        dimension, wrong = _dimension(parameter, entry)
        if dimension is not None and not dimension.holds(defaults[parameter]):
            wrong.append(f"the default {defaults[parameter]!r} lies outside, {dimension}")
        problems += [f"{parameter}: {text}" for text in wrong]
        dimensions += [dimension] if dimension else []
    if problems:
        raise SearchError(f"space {name!r}: " + "; ".join(problems))
    return Space(name, tuple(dimensions))


def _dimension(name: str, entry: Any) -> tuple[Dimension | None, list[str]]:
    """The dimension, where it can be read, and what is wrong with it."""
    if isinstance(entry, list):
        if len(entry) < 2 or not all(isinstance(c, str | int | float) for c in entry):
            return None, [f"{entry!r}: expected two or more choices, texts, numbers or booleans"]
        return Dimension(name, choices=tuple(entry)), []
    if not isinstance(entry, Mapping) or not {"low", "high"} <= set(entry) <= KEYS:
        return None, [f"{entry!r}: {EXPECTED}"]
    values: list[Any] = [entry.get(key) for key in ("low", "high", "log", "step")]
    low, high, log, step = values
    numbers: dict[str, Any] = {"low": low, "high": high} | ({} if step is None else {"step": step})
    wrong = [f"{k}={v!r}: expected a number" for k, v in numbers.items() if not _is_number(v)]
    if log not in (None, False, True):
        wrong.append(f"log={log!r}: expected true or false")
    if wrong:
        return None, wrong
    if not low < high:
        wrong.append(f"empty, low={low:g} and high={high:g}")
    if log and low <= 0:
        wrong.append(f"log needs low above 0, not {low:g}")
    if log and step is not None:
        wrong.append("log and step exclude each other")
    if step is not None and not (step > 0 and _on_grid(high - low, step)):
        wrong.append(f"step={step:g} doesn't lead from {low:g} to {high:g}")
    if wrong:
        return None, wrong
    if not all(isinstance(v, int) for v in numbers.values()):
        low, high = float(low), float(high)
    return Dimension(name, low, high, bool(log), step), []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _on_grid(distance: float, step: float | None) -> bool:
    return step is None or math.isclose(distance / step, round(distance / step), abs_tol=1e-9)
