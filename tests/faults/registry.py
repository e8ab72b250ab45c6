"""The list of planted faults."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ris_diag import Case

# In the place of a file:line: the lines that end with `# planted: NAME`, or stand behind a line of
# nothing else, and the function or class around each.
HERE = "here"
FOLDER = Path(__file__).resolve().parent

# Where faults are described, by a short name.
DEEPCRIME = "DeepCrime (Humbatova et al., ISSTA 2021)"
TAXONOMY = "Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)"
SILENT = "Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)"
TRAINCHECK = "TrainCheck (Jiang et al., OSDI 2025)"
RECIPE = "Karpathy, A Recipe for Training Neural Networks (2019)"
SLIPS = "Karpathy, most common neural net mistakes (2018)"
OVERFLOW = "Stack Overflow studies (Zhang et al., ISSTA 2018; Islam et al., ESEC/FSE 2019)"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A small change of a healthy case.

    Attributes:
        fires: checks that must not pass; `says` stands in the first one's message. Empty where
            no check is known that finds it.
        cause: slugs of the true cause; more than one where several names are equally right.
        place: what may stand in the place of the diagnosis: `HERE`, or the path of a parameter, a
            term, a split, a key.
        healthy: the case without the change.
        source: where such a fault is described.
        within: helpers that carry the change into the training: their lines count as `HERE`.
        proof: whether the fault is real, where its `outcome` can't show it.
        device: on which it shows, "cpu" or "cuda".
        ranks: how many processes it takes.
    """

    name: str
    fires: tuple[str, ...]
    says: str
    plant: Callable[[], Case]
    cause: tuple[str, ...] = ()
    place: tuple[str, ...] = (HERE,)
    healthy: Callable[[], Case] | None = None
    source: str = ""
    within: tuple[Any, ...] = ()
    proof: Callable[[], bool] | None = None
    device: str = "cpu"
    ranks: int = 1


FAULTS: list[Fault] = []
RANKED: list[Fault] = []  # those that take several processes


def fault(
    *fires: str,
    says: str = "",
    cause: str | tuple[str, ...] = (),
    place: str | tuple[str, ...] = HERE,
    healthy: Callable[[], Case] | None = None,
    source: str = "",
    within: tuple[Any, ...] = (),
    proof: Callable[[], bool] | None = None,
    device: str = "cpu",
    ranks: int = 1,
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def register(plant: Callable[[], Case]) -> Callable[[], Case]:
        (FAULTS if ranks == 1 else RANKED).append(
            Fault(
                name=plant.__name__,
                fires=fires,
                says=says,
                plant=plant,
                cause=(cause,) if isinstance(cause, str) else cause,
                place=(place,) if isinstance(place, str) else place,
                healthy=healthy,
                source=source,
                within=within,
                proof=proof,
                device=device,
                ranks=ranks,
            )
        )
        return plant

    return register


@cache
def _marks() -> dict[str, list[tuple[Path, int]]]:
    """Name of a fault to the lines that end with `# planted: NAME`, or `# planted: NAME, NAME`."""
    marks: dict[str, list[tuple[Path, int]]] = {}
    for path in sorted(FOLDER.glob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for name in line.partition("# planted: ")[2].split(", "):
                alone = line.lstrip().startswith("#")
                marks.setdefault(name.strip(), []).append((path, number + alone))
    return marks


@cache
def _blocks(path: Path) -> list[tuple[int, int, bool]]:
    """First line with its decorators, last line, whether it is a class."""
    return [
        (
            min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]),
            node.end_lineno or node.lineno,
            isinstance(node, ast.ClassDef),
        )
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)
    ]


def marked_lines(name: str) -> set[str]:
    """file:line of the lines that are marked as the planted ones."""
    return {_shown(path, number) for path, number in _marks().get(name, ())}


def planted_lines(fault: Fault) -> set[str]:
    """file:line of what is around the planted line: its function or class.

    Of a class around a method only the head counts, and of `within` all.
    """
    lines = set()
    for path, number in _marks().get(fault.name, ()):
        around = [block for block in _blocks(path) if block[0] <= number <= block[1]]
        first, last, _ = min(around, key=lambda block: block[1] - block[0], default=(number,) * 3)
        heads = {block[0] for block in around if block[2]}
        lines |= {_shown(path, line) for line in {*range(first, last + 1), *heads, number}}
    for helper in fault.within:
        source, start = inspect.getsourcelines(helper)
        path = Path(inspect.getfile(helper)).resolve()
        lines |= {_shown(path, line) for line in range(start, start + len(source))}
    return lines


def _shown(path: Path, line: int) -> str:
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path.as_posix()}:{line}"
