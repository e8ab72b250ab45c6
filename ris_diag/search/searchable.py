"""What can be searched: a case's factory with parameters, each with its default."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ris_diag.case import Case
from ris_diag.errors import SearchError
from ris_diag.target import load_case

EXAMPLE = (
    "give the function that makes the case keyword parameters, whose defaults are the default "
    "configuration: def my_case(*, learning_rate=1e-3, width=64) -> ris_diag.Case"
)


@dataclass(frozen=True)
class Searchable:
    """A factory of cases.

    Attributes:
        target: `pkg.mod:factory`; called without arguments it is the case that the gate checks.
        defaults: parameter to its default.
        folder: where the module of the factory lies.
    """

    target: str
    factory: Callable[..., Case]
    defaults: Mapping[str, Any]
    folder: Path

    def case(self, parameters: Mapping[str, Any]) -> Case:
        """The case of a configuration; parameters that aren't named keep their default."""
        case = self.factory(**parameters)
        if not isinstance(case, Case):
            raise SearchError(f"{self.target} gave {type(case).__name__}, not a ris_diag.Case")
        return case

    def effective(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value, the defaults included."""
        return {**self.defaults, **parameters}


def load_searchable(target: str) -> Searchable:
    """The factory of a target, with what a search needs of its case.

    Raises:
        CaseError: the target doesn't import, or gives no case.
        SearchError: it has no parameters, or its case can't be trained and judged; all at once.
    """
    case = load_case(target)
    problems = [
        f"{unlocked} is missing: {reason}"
        for part, unlocked, reason in (
            ("model", "Case.model", "every trial begins with a fresh model"),
            ("batch", "Case.batch", "trials are judged on fixed validation samples"),
            ("loop", "Case.fit (or Case.optimizer with Case.loss or Case.step)", "it trains"),
            ("metric", "Case.metric", "it says which trial is better, lower is better"),
        )
        if not case.offers(part)
    ]
    module_name, _, attribute = target.partition(":")
    factory = None
    if target.endswith(".py"):
        problems.append(f"a script has no parameters: {EXAMPLE}")
    else:
        factory = getattr(importlib.import_module(module_name), attribute)
    defaults = {} if factory is None or isinstance(factory, Case) else _defaults(factory)
    if not defaults and not target.endswith(".py"):
        problems.append(f"{attribute} has no parameters: {EXAMPLE}")
    if problems or factory is None:
        raise SearchError(f"case target {target!r} can't be searched: " + "; ".join(problems))
    folder = Path(inspect.getfile(inspect.unwrap(factory))).resolve().parent
    return Searchable(target, factory, defaults, folder)


def _defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.default is not parameter.empty
        and parameter.kind is not parameter.POSITIONAL_ONLY
    }
