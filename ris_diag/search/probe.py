"""What is tried before a search spends time: that dimensions have an effect, and corners run."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from torch import Tensor

from ris_diag.case import Case
from ris_diag.check import select_checks
from ris_diag.errors import SearchError
from ris_diag.graph import tensors_in
from ris_diag.loop import fit_of
from ris_diag.places import place_of
from ris_diag.plan import Plan
from ris_diag.randomness import seeded
from ris_diag.runner import Runner
from ris_diag.search.failure import RUNS
from ris_diag.search.searchable import Searchable
from ris_diag.search.space import Space
from ris_diag.search.training import train_batches

EPOCHS, BATCHES = 6, 1
LEARNS = "L001"  # a corner may learn slowly, but it must run


def refuse_dimensions_without_effect(searchable: Searchable, space: Space, seed: int) -> None:
    """Raise where the ends of a dimension give the same training to the last bit.

    Six epochs of one batch are trained at both ends, everything else at its default, on the CPU.

    Raises:
        SearchError: names all of them.
    """
    idle = [d for d in space.dimensions if _is_idle(searchable, d.name, d.ends, seed)]
    if idle:
        said = "; ".join(f"{d.name}: {d}" for d in idle)
        raise SearchError(
            f"space {space.name!r}: no effect on model, batches, losses or weights in {EPOCHS} "
            f"epochs: {said}. Pass the parameter on to where it belongs, or leave it out"
        )


def _is_idle(searchable: Searchable, name: str, ends: tuple[Any, ...], seed: int) -> bool:
    first = _trace(searchable.case({name: ends[0]}), seed)
    return all(_trace(searchable.case({name: end}), seed) == first for end in ends[1:])


def _trace(case: Case, seed: int) -> str:
    """Digest of batches, losses and weights of a short training, or of how it breaks."""
    total = hashlib.sha256()

    def add(tensors: Any) -> None:
        for tensor in tensors_in(tensors):
            total.update(str(tuple(tensor.shape)).encode())
            total.update(_plain(tensor).tobytes())

    with seeded(seed):
        try:
            if case.model is None or (fit := fit_of(case)) is None:
                raise SearchError("the case has no loop")
            batches = list(islice(train_batches(case, seed), BATCHES))
            model = case.model()
            add(batches)
            add([*model.state_dict().values()])
            plan = Plan(
                epochs=EPOCHS,
                train=batches,
                on_step=lambda epoch, losses: add([getattr(losses, "total", losses)]),
            )
            fit(model, plan)
            add([*model.state_dict().values()])
        except Exception as error:  # noqa: BLE001  # a way to differ; the corners tell what broke
            total.update(f"{type(error).__name__}: {error}".encode())
    return total.hexdigest()


def _plain(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().resolve_conj().numpy()


@dataclass(frozen=True)
class Corner:
    """A corner of the space that can't run.

    Attributes:
        parameters: its configuration.
        check, cause, place: what the litmus found.
    """

    name: str
    parameters: Mapping[str, Any]
    check: str
    cause: str
    place: str

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())
        place = f" ({self.place})" if self.place else ""
        return f"corner {self.name!r} ({shown}): {self.check} {self.cause}{place}"


def broken_corners(searchable: Searchable, space: Space, device: str, seed: int) -> list[Corner]:
    """Corners whose configuration is refused, raises, or gives what is not finite."""
    broken = []
    for name, parameters in space.corners(searchable.defaults).items():
        try:
            case = replace(searchable.case(parameters), expected_failures={})
        except Exception as error:  # noqa: BLE001  # whatever the author's factory raises
            said = f"{type(error).__name__}: {error}"
            broken.append(Corner(name, parameters, "refused", said, place_of(error)))
            continue
        report = Runner(case, device=device, seed=seed).run(select_checks(RUNS))
        for result in report.results:
            slow = result.id == LEARNS and result.status == "fail"
            if result.status in ("fail", "error") and not slow:
                named = report.diagnosis.named
                cause = f"{result.cause}" + (f", {named[0].cause.id}" if named else "")
                broken.append(Corner(name, parameters, result.name, cause, result.place))
                break
    return broken
