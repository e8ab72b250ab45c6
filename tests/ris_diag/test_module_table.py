"""The table by module: worst first, what is usual folded, no number cut."""

import math
from typing import Any

import pytest

import ris_diag
from ris_diag.check import get_check
from ris_diag.module_table import MOST, Row, module_lines, oddness, table
from ris_diag.result import Result
from ris_diag.screen import Line, fitted
from tests.faults.catalogue import one_step_an_epoch


def row(module: str, gradient: float | None = 0.1, update: float | None = 1e-3, **more: Any) -> Row:
    return Row(module=module, gradient=gradient, update=update, **{"zeros": 0.0, **more})


USUAL = [row(f"layers.{n}", 0.1 + n / 100, 1e-3 + n / 1e4) for n in range(38)]


def test_to_the_letter() -> None:
    rows = [*USUAL[:20], row("frozen", None, None, zeros=None), *USUAL[20:]]
    rows += [row("decoder.head", 1.23456e-5, 2e-8), row("dead", 0.08, zeros=0.97)]
    rows += [row("burst", math.inf, math.nan), row("wild", 0.2, 7.5)]
    assert table(rows, unfolded=False) == [
        "gradient  update/weight  zeros  module",
        "       -              -      -  frozen",
        "     inf            nan     0%  burst",
        "1.23e-05          2e-08     0%  decoder.head",
        "     0.2            7.5     0%  wild",
        "    0.08          0.001    97%  dead",
        "and 38 more, unremarkable: gradient 0.1 to 0.47, update/weight 0.001 to 0.0047",
    ]


def test_where_nothing_stands_out_it_is_a_line() -> None:
    assert table(USUAL[:6], unfolded=False) == [
        "6 modules, unremarkable: gradient 0.1 to 0.15, update/weight 0.001 to 0.0015"
    ]


def test_all_rows_where_they_are_asked_for() -> None:
    lines = table(USUAL, unfolded=True)
    assert sorted(line.split()[-1] for line in lines[1:]) == sorted(r.module for r in USUAL)


def test_many_odd_ones_are_counted() -> None:
    dead = [row(f"dead.{n}", None, None) for n in range(MOST + 3)]
    lines = table([*USUAL, *dead], unfolded=False)
    assert len(lines) == MOST + 2
    assert lines[-1].startswith("and 41 more, 3 of them as odd: ")
    assert table(dead[:1], unfolded=False)[1:] == ["       -              -     0%  dead.0"]
    assert table([], unfolded=True) == []


@pytest.mark.parametrize(
    ("odd", "usual"),
    [
        (row("a", 0.1 / 1001), row("a", 0.1 / 999)),
        (row("a", 100.1), row("a", 99.9)),
        (row("a", update=3.01), row("a", update=2.99)),
        (row("a", update=0.9e-7), row("a", update=1.1e-7)),
        (row("a", zeros=0.51), row("a", zeros=0.5)),
        (row("a", 0.0), row("a", update=None)),
    ],
)
def test_the_limits(odd: Row, usual: Row) -> None:
    assert oddness(odd, 0.1) >= 1 > oddness(usual, 0.1)


def test_the_limits_of_an_update_are_those_of_its_check() -> None:
    limits = {limit.name: limit.value for limit in get_check("L018").thresholds}
    assert (limits["min_update"], limits["max_update"]) == (1e-7, 3)


def test_no_number_is_cut_at_any_width() -> None:
    names = ["a.very.long.path.of.modules.as.transformers.have.them.0.out_proj", "head"]
    lines = [Line(f"  {t}") for t in table([row(n, 1e-9, 1e-9) for n in names], unfolded=True)]
    words = [word for line in lines for word in line.text.split()]
    for width in range(40, 201):
        shown = fitted(lines, width=width, encoding="ascii")
        assert [word for line in shown for word in line.text.split()] == words
        assert all(len(s.text) <= width or len(s.text.split()) == 1 for s in shown)


def test_of_a_real_run() -> None:
    report = ris_diag.run(one_step_an_epoch(), select="L001")
    lines = module_lines(report.results, unfolded=True)
    modules = list(report["L001"].measurements["modules"])
    assert sorted(line.split()[-1] for line in lines[1:]) == sorted(modules)
    assert module_lines([], unfolded=True) == []


def test_medians_ignore_a_first_step_without_gradient_and_json_can_hold_them() -> None:
    measured = {"gradient_norm": [0.0, 0.2, 0.3], "update_to_weight": [None, 0.1, 0.1]}
    modules = {
        "a": {**measured, "zero_gradients": [1.0, 0.0, 0.0]},
        "b": {**measured, "gradient_norm": ["NaN", 1, 1], "zero_gradients": [None, None, None]},
    }
    given = {key: getattr(get_check("L001"), key) for key in ("id", "slug", "family", "title")}
    result = Result(**given, status="pass", measurements={"modules": modules})
    assert module_lines([result], unfolded=True)[1:] == [
        "     nan            0.1      -  b",
        "     0.2            0.1     0%  a",
    ]
