"""A space is data, and all that is wrong with it is said at once."""

from pathlib import Path

import pytest

from ris_diag.errors import SearchError
from ris_diag.search.probe import broken_corners, refuse_dimensions_without_effect
from ris_diag.search.searchable import load_searchable
from ris_diag.search.space import load_space, make_space

DEFAULTS = {"rate": 1e-3, "width": 64, "kind": "a", "flag": False}


def test_a_space_is_read_as_it_is_written() -> None:
    table = {
        "rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "width": {"low": 32, "high": 128, "step": 32},
        "kind": ["a", "b"],
        "flag": [False, True],
    }
    space = make_space("wide", table, DEFAULTS)
    assert space.described() == {
        "rate": "0.0001 to 0.01, log",
        "width": "32 to 128 in steps of 32",
        "kind": "one of 'a', 'b'",
        "flag": "one of False, True",
    }
    assert make_space("again", space.table(), DEFAULTS).dimensions == space.dimensions
    assert space.corners(DEFAULTS)["all high"] == {
        "rate": 1e-2, "width": 128, "kind": "b", "flag": True,
    }  # fmt: skip


def test_everything_wrong_is_in_one_message() -> None:
    table = {
        "speed": {"low": 1, "high": 2},
        "rate": {"low": 1e-2, "high": 1e-4},
        "width": {"low": 10, "high": 50, "step": 15},
        "kind": ["b", "c"],
        "flag": "yes",
    }
    with pytest.raises(SearchError) as caught:
        make_space("wide", table, DEFAULTS)
    assert str(caught.value) == (
        "space 'wide': speed: no such parameter; there are rate, width, kind, flag; "
        "rate: empty, low=0.01 and high=0.0001; "
        "width: step=15 doesn't lead from 10 to 50; "
        "kind: the default 'a' lies outside, one of 'b', 'c'; "
        "flag: 'yes': expected {low = 1e-4, high = 1e-2, log = true}, "
        "{low = 16, high = 64, step = 16} or a list"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"low": 0, "high": 1.0, "log": True}, "log needs low above 0, not 0"),
        ({"low": 1e-4, "high": 1.0, "log": True, "step": 0.1}, "log and step exclude each other"),
        ({"low": 0.1, "high": 1.0}, "the default 0.001 lies outside, 0.1 to 1"),
        ({"low": "a", "high": float("inf")}, "low='a': expected a number; rate: high=inf"),
        ({"low": 1.0}, "expected {low"),
        ([1e-3], "expected two or more choices"),
    ],
)
def test_a_dimension_that_is_none(entry: object, message: str) -> None:
    with pytest.raises(SearchError) as caught:
        make_space("own", {"rate": entry}, DEFAULTS)
    assert message in str(caught.value)


def test_an_empty_space() -> None:
    with pytest.raises(SearchError, match="it has no dimension"):
        make_space("own", {}, DEFAULTS)


def test_presets_of_the_reference_fit_it() -> None:
    reference = load_searchable("model.case:reference")
    wide, narrow = (load_space(name, reference) for name in ("wide", "narrow"))
    assert {d.name for d in narrow.dimensions} < {d.name for d in wide.dimensions}
    assert {d.name for d in wide.dimensions} == set(reference.defaults)


def test_a_space_that_is_not_there(tmp_path: Path) -> None:
    reference = load_searchable("model.case:reference")
    with pytest.raises(SearchError, match="No such file or directory; there is narrow, wide"):
        load_space("huge", reference)
    (tmp_path / "bad.toml").write_text("rate = {")
    with pytest.raises(SearchError, match=r"space .*bad\.toml"):
        load_space(str(tmp_path / "bad.toml"), reference)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tests.faults.catalogue:one_step_an_epoch", "has no parameters: give the function"),
        ("tests/examples/script/train.py", "a script has no parameters"),
    ],
)
def test_what_can_not_be_searched(target: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        load_searchable(target)


def test_a_dimension_without_effect_is_an_error() -> None:
    tiny = load_searchable("tests.search.tiny:tiny")
    table = {
        "learning_rate": {"low": 1e-3, "high": 1e-1},
        "momentum": {"low": 0.0, "high": 0.9},
        "batch_size": [8, 16],
        "hidden": [0, 8],
        "unused": {"low": 0.0, "high": 2.0},
    }
    with pytest.raises(SearchError) as caught:
        refuse_dimensions_without_effect(tiny, make_space("own", table, tiny.defaults), 0)
    assert str(caught.value) == (
        "space 'own': no effect on model, batches, losses or weights in 6 epochs: "
        "unused: 0 to 2. Pass the parameter on to where it belongs, or leave it out"
    )
    del table["unused"]
    refuse_dimensions_without_effect(tiny, make_space("own", table, tiny.defaults), 0)


def test_a_corner_that_can_not_run_is_told_with_its_parameters() -> None:
    case = load_searchable("tests.search.tiny:breaking")
    space = make_space("own", {"kind": ["none", "minus", "raises"]}, case.defaults)
    (corner,) = broken_corners(case, space, "cpu", 0)
    assert corner.name == "all high"
    assert corner.parameters == {"kind": "raises"}
    assert corner.check.startswith("L0")
    assert "no such layer" in str(corner)
    assert "tests/search/tiny.py:" in str(corner)


def test_a_corner_that_the_factory_refuses() -> None:
    picky = load_searchable("tests.search.tiny:picky")
    space = make_space("own", {"momentum": {"low": 0.1, "high": 2.0}}, picky.defaults)
    (corner,) = broken_corners(picky, space, "cpu", 0)
    assert "momentum=2.0: admissible is 0 <= momentum < 1" in str(corner)
    assert corner.place.startswith("tests/search/tiny.py:")
