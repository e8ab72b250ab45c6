"""The list of planted faults."""

from collections.abc import Callable
from dataclasses import dataclass

from ris_diag import Case


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`fires` are the checks that must not pass, `says` stands in the first one's message."""

    name: str
    fires: tuple[str, ...]
    says: str
    plant: Callable[[], Case]


FAULTS: list[Fault] = []


def fault(*fires: str, says: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def register(plant: Callable[[], Case]) -> Callable[[], Case]:
        FAULTS.append(Fault(name=plant.__name__, fires=fires, says=says, plant=plant))
        return plant

    return register
