"""The door for a test file that lists its trainings, in the shape of scikit-learn's."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_ris.devices import DEVICE, labelled
from pytest_ris.errors import usage_errors
from pytest_ris.session import RisSession

if TYPE_CHECKING:
    from ris_diag.case import Case
    from ris_diag.result import Result

MARK = "ris_cases"
Test = TypeVar("Test", bound=Callable[..., Any])


def parametrize_with_checks(
    cases: "Iterable[Case | Callable[[], Case]]",
) -> Callable[[Test], Test]:
    """Decorator of a test that runs once for every case and check.

    The test takes `case` and `check`, and calls `check(case)`: that fails or skips the test, or
    returns the `ris_diag.Result`.

    Args:
        cases: `ris_diag.Case`s, or functions that give one; their names must differ.

    Raises:
        TypeError: not a list.
    """
    if isinstance(cases, str) or not isinstance(cases, Iterable):
        raise TypeError(
            f"parametrize_with_checks({cases!r:.60}): expected a list of cases, "
            "@parametrize_with_checks([my_case])"
        )
    listed = tuple(cases)

    def decorate(test: Test) -> Test:
        marked: Test = getattr(pytest.mark, MARK)(cases=listed)(test)
        return marked

    return decorate


class CaseCheck:
    """What a decorated test takes as `check`."""

    def __init__(self, ris: RisSession, check_id: str, device: str) -> None:
        self.ris = ris
        self.id = check_id
        self.device = device

    def __call__(self, case: "Case") -> "Result":
        """Run the check on a case; returns its result, fails or skips the test."""
        return self.ris.run(
            self.id, lambda: self.ris.runner(case, self.device), self.device, by_test=True
        )

    def __repr__(self) -> str:
        return f"<check {self.id}>"


def parametrize(metafunc: pytest.Metafunc, ris: RisSession) -> None:
    """One test for every case, check and device, if the test is decorated; else nothing.

    Raises:
        pytest.UsageError: no case, or two of one name, or something else among them.
    """
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is None:
        return
    with usage_errors(metafunc.definition.nodeid):
        cases = _unique([ris.case_of(given) for given in mark.kwargs["cases"]])
    taken = (DEVICE,) if DEVICE in metafunc.fixturenames else ()
    metafunc.parametrize(
        ("case", "check", *taken),
        [
            pytest.param(
                case,
                CaseCheck(ris, check.id, device),
                *[device for _ in taken],
                id=f"{case.name}-{check.id}-{check.slug}-{label}",
                marks=getattr(pytest.mark, check.family),
            )
            for case in cases
            for check in ris.checks()
            for device, label in labelled(metafunc, ris.devices).items()
        ],
        indirect=list(taken),
    )


def _unique(cases: "Sequence[Case]") -> "Sequence[Case]":
    """The cases.

    Raises:
        CaseError: there is none, or a name belongs to two.
    """
    from ris_diag.errors import CaseError

    if not cases:
        raise CaseError("parametrize_with_checks([]): expected at least one case")
    names = Counter(case.name for case in cases)
    twice = ", ".join(repr(name) for name, count in names.items() if count > 1)
    if twice:
        raise CaseError(f"more than one case is named {twice}: give each its own Case.name")
    return cases
