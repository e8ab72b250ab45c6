"""Detection goes by effects: no name of a case, a class or a function changes what is found."""

import ast
import functools
import random
import re
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import ris_diag
from ris_diag import Case
from ris_diag.cause import AREAS, all_causes
from tests.faults.all import ALL_FAULTS
from tests.faults.registry import Fault

LIBRARY = sorted((Path(ris_diag.__file__).parent).rglob("*.py"))
FAMILIES = ("guard", "data", "litmus")
EACH = 4  # faults of every area
OWN = ("tests.", "model.")


def sample() -> list[Fault]:
    """Some faults of every area, in an order of their own."""
    area = {cause.slug: cause.area for cause in all_causes()}
    source = random.Random(4)  # noqa: S311  # a sample
    chosen = []
    for name in AREAS:
        of_area = [f for f in ALL_FAULTS if area[f.cause[0]] == name and f.plant.__module__ in HERE]
        chosen += source.sample(of_area, min(EACH, len(of_area)))
    source.shuffle(chosen)
    return chosen


HERE = {f"tests.faults.plant_{name}" for name in (
    "data", "evaluation", "loop", "loss", "model", "numerics", "optimiser", "precision",
    "wiring",
)} | {"tests.faults.mechanics"}  # fmt: skip


def own(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith(OWN)


def named_things(root: Any) -> Iterator[Any]:
    """Functions and classes of ours that a case reaches: parts, closures, bases, attributes."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, types.FunctionType):
            if own(thing):
                yield thing
            waiting += [cell.cell_contents for cell in thing.__closure__ or () if _filled(cell)]
            waiting += thing.__defaults__ or ()
        elif isinstance(thing, types.MethodType):
            waiting += [thing.__func__, thing.__self__]
        elif isinstance(thing, functools.partial):
            waiting += [thing.func, *thing.args, *thing.keywords.values()]
        elif isinstance(thing, type):
            if own(thing):
                yield thing
                waiting += [*thing.__bases__, *vars(thing).values()]
        elif isinstance(thing, nn.Module):
            waiting += [type(module) for module in thing.modules()]
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, list | tuple):
            waiting += thing
        elif is_dataclass(thing):
            waiting += [type(thing), *(getattr(thing, item.name) for item in fields(thing))]


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


@contextmanager
def renamed(case: Case) -> Iterator[Case]:
    """The case and all that it reaches under names that say nothing."""
    things = list(named_things(case))
    if case.model is not None:
        things += named_things(type(case.model()))
    kept = [(thing, thing.__name__, thing.__qualname__) for thing in dict.fromkeys(things)]
    try:
        for number, (thing, _, _) in enumerate(kept):
            name = f"{'Thing' if isinstance(thing, type) else 'thing'}{number}"
            thing.__name__ = thing.__qualname__ = name
        yield replace(case, name="thing")
    finally:
        for thing, name, qualname in kept:
            thing.__name__, thing.__qualname__ = name, qualname


def first_cause(case: Case) -> str:
    named = ris_diag.run(case, select=FAMILIES).diagnosis.named
    return named[0].cause.slug if named else "none"


@pytest.mark.parametrize("fault", sample(), ids=lambda fault: fault.name)
def test_the_cause_is_the_same_under_other_names(fault: Fault) -> None:
    case = replace(fault.plant(), name="thing")  # the name is a part of every seed
    expected = first_cause(case)
    with renamed(fault.plant()) as nameless:
        assert first_cause(nameless) == expected


def test_renaming_reaches_classes_closures_and_parts() -> None:
    plant = next(fault.plant for fault in ALL_FAULTS if fault.name == "features_are_detached")
    with renamed(plant()) as case:
        assert case.model is not None
        model = case.model()
        assert type(model).__name__.startswith("Thing")
        assert getattr(case.loss, "__name__", "").startswith("thing")
        assert type(case.fit).__name__.startswith("Thing")
    assert not type(model).__name__.startswith("Thing")
    assert type(case.fit).__name__ == "Loop"


def words(tree: ast.AST) -> Iterator[str]:
    """Every identifier and every word of a text."""
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            texts = value if isinstance(value, list) else [value]
            yield from (
                w for text in texts if isinstance(text, str) for w in re.split(r"\W+", text)
            )


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.relative_to(LIBRARY[0].parent).as_posix())
def test_the_library_knows_no_fault(path: Path) -> None:
    faults = {fault.name for fault in ALL_FAULTS} | {"planted", "ALL_FAULTS", "ZOO"}
    used = set(words(ast.parse(path.read_text(encoding="utf-8"))))
    assert used & faults == set()
    imported = {
        name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
    }
    assert not any(name and name.split(".")[0] in ("tests", "conftest") for name in imported)


def test_words_are_found() -> None:
    tree = ast.parse("def f(case):\n    return case.name == 'this is planted' or g(all_zero=1)\n")
    assert {"planted", "all_zero", "name", "case", "f", "g"} <= set(words(tree))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.relative_to(LIBRARY[0].parent).as_posix())
def test_the_name_of_a_case_is_shown_and_seeds_and_nothing_else(path: Path) -> None:
    """Where `case.name` is read."""
    # In seeds and messages.
    readers = {"case.py", "context.py", "runner.py", "loop.py", "exemptions.py"}
    reads = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == "name"
        and (getattr(node.value, "attr", "") == "case" or getattr(node.value, "id", "") == "case")
    ]
    assert not reads or path.name in readers
