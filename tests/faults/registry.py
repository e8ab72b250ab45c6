"""The list of planted faults."""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ris_diag import Case

# In the place of a file:line: the line of the fault's own file that ends with `# planted: NAME`,
# or any line of the function or class around it.
HERE = "here"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A small change of a healthy case.

    Attributes:
        fires: checks that must not pass; `says` stands in the first one's message.
        cause: slugs of the true cause; more than one where the change is several at once.
        place: what may stand in the place of the diagnosis: `HERE`, or the path of a parameter, a
            term, a split, a key.
        healthy: the case without the change.
        source: where such a fault is described.
    """

    name: str
    fires: tuple[str, ...]
    says: str
    plant: Callable[[], Case]
    cause: tuple[str, ...] = ()
    place: tuple[str, ...] = (HERE,)
    healthy: Callable[[], Case] | None = None
    source: str = ""


FAULTS: list[Fault] = []


def fault(
    *fires: str,
    says: str = "",
    cause: str | tuple[str, ...] = (),
    place: str | tuple[str, ...] = HERE,
    healthy: Callable[[], Case] | None = None,
    source: str = "",
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def register(plant: Callable[[], Case]) -> Callable[[], Case]:
        FAULTS.append(
            Fault(
                name=plant.__name__,
                fires=fires,
                says=says,
                plant=plant,
                cause=(cause,) if isinstance(cause, str) else cause,
                place=(place,) if isinstance(place, str) else place,
                healthy=healthy,
                source=source,
            )
        )
        return plant

    return register


def planted_lines(fault: Fault) -> set[str]:
    """file:line of every line of the innermost function or class around the planted one."""
    source = inspect.getsourcefile(inspect.unwrap(fault.plant))
    assert source is not None
    path = Path(source)
    text = path.read_text(encoding="utf-8")
    marked = [
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.rstrip().endswith(f"# planted: {fault.name}")
    ]
    spans = [
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)
    ]
    lines = set()
    for number in marked:
        around = [(a, b) for a, b in spans if a <= number <= b] or [(number, number)]
        first, last = min(around, key=lambda span: span[1] - span[0])
        lines |= set(range(first, last + 1)) | {number}
    try:
        shown = path.relative_to(Path.cwd())
    except ValueError:
        shown = path
    return {f"{shown.as_posix()}:{line}" for line in lines}
