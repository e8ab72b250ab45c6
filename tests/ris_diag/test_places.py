"""Places: file:line of what the user wrote, whoever called it."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ris_diag.measure import shake
from ris_diag.places import calling_place, covers, is_users, place_of, placed, where
from tests.ris_diag.lines import line_of

HERE = "tests/ris_diag/test_places.py"


def named() -> str:  # named
    return calling_place()  # called


class Callable_:  # noqa: N801  # class
    def __call__(self) -> int:
        return 3

    def method(self) -> int:  # method
        return 3


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@decorated  # decorator
def wrapped() -> str:
    return calling_place()  # inside of the wrapped


SHORT = lambda: 3  # noqa: E731  # lambda


@pytest.mark.parametrize(
    ("thing", "line"),
    [
        (named, "named"),
        (functools.partial(named), "named"),
        (SHORT, "lambda"),
        (Callable_, "class"),
        (Callable_(), "class"),
        (Callable_().method, "method"),
        (wrapped, "decorator"),
    ],
    ids=["function", "partial", "lambda", "class", "instance", "method", "wrapped"],
)
def test_where_a_callable_is_defined(thing: Any, line: str) -> None:
    found = where(thing)
    wanted = line_of(f"noqa: N801  # {line}" if line == "class" else line)
    assert found == wanted


@pytest.mark.parametrize(
    ("thing", "name"), [(nn.Linear, "Linear"), (nn.ReLU(), "ReLU"), (len, "len"), (shake, "shake")]
)
def test_what_is_not_the_users_has_a_name(thing: Any, name: str) -> None:
    assert where(thing) == name


def test_what_is_placed_is_found_there_and_works_as_before() -> None:
    shown = placed(SHORT, "loader of Case.from_xy at train.py:7")
    assert where(shown) == where(functools.partial(shown)) == "loader of Case.from_xy at train.py:7"
    assert shown() == 3


def test_the_calling_place_is_the_innermost_line_of_the_user() -> None:
    assert named() == line_of("called")
    assert wrapped() == line_of("inside of the wrapped")
    assert calling_place() == line_of("here")  # here


def test_a_call_through_a_library_is_the_users() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> str:
            return functools.reduce(lambda a, b: calling_place(), [1, 2], "")  # deep

    assert Model()(torch.ones(1)) == line_of("deep")


def test_what_the_toolkit_does_by_itself_has_no_place() -> None:
    seen = []

    class Noted(nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            seen.append(calling_place())  # the user's own method
            return iter(())

    shake(Noted(), 0.1)
    assert seen == [line_of("the user's own method")]
    found: list[str] = []
    from ris_diag.graph import map_leaves

    map_leaves([1], lambda leaf: found.append(calling_place()))  # a callback
    assert found == [line_of("a callback")]


def test_the_place_of_an_error_is_the_users_innermost_frame() -> None:
    def raises() -> None:
        torch.ones(2) @ torch.ones(3)  # shapes

    with pytest.raises(RuntimeError) as caught:
        raises()
    assert place_of(caught.value) == f"{line_of('shapes')}, in raises"
    assert place_of(ValueError("never raised")) == ""


@pytest.mark.parametrize(
    ("path", "users"),
    [
        ("<stdin>", False),
        ("<string>", False),
        (nn.__file__, False),
        (functools.__file__, False),
        (shake.__code__.co_filename, False),
        (__file__, True),
        ("/home/me/train.py", True),
    ],
)
def test_whose_a_file_is(path: str, *, users: bool) -> None:
    assert is_users(path) is users


def test_what_a_function_covers() -> None:
    first, inside = line_of("named"), line_of("called")
    assert covers(named, first)
    assert covers(named, inside)
    assert covers(functools.partial(named), inside)
    assert not covers(named, line_of("class".join(["noqa: N801  # ", ""])))
    assert covers(Callable_, line_of("method"))
    assert covers(Callable_(), line_of("method"))
    assert covers(Callable_().method, line_of("method"))
    assert not covers(named, f"other.py:{first.rpartition(':')[2]}")
    assert not covers(named, "no place")
    assert not covers(named, "")
    assert not covers(len, first)
