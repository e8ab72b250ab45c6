"""One line for a run, in the screen, the page, the notebook and the CI alike."""

from dataclasses import replace

import pytest

from ris_diag.check import all_checks
from ris_diag.gate import READY
from ris_diag.result import Result
from ris_diag.verdict import Said, verdict_on

ALL = [
    Result(id=c.id, slug=c.slug, family=c.family, title=c.title, status="pass")
    for c in all_checks()
]
COUNT = len(ALL)


def with_first(*changed: Result) -> list[Result]:
    return [*changed, *ALL[len(changed) :]]


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (ALL, Said("good", READY)),
        (ALL[:1], Said("open", f"1 pass; no verdict: {COUNT - 1} checks did not run")),
        (with_first(replace(ALL[0], status="fail")), Said("bad", "NOT READY: G001 not passed")),
        (with_first(replace(ALL[0], status="error")), Said("bad", "NOT READY: G001 not passed")),
        (with_first(replace(ALL[0], status="skip", expected="known")), Said("good", READY)),
        (
            with_first(*(replace(r, status="skip") for r in ALL[:2])),
            Said(
                "open",
                f"{COUNT - 2} pass, 2 skip; no verdict: G001, G002 do not apply to this case, "
                "which lacks parts they need",
            ),
        ),
        (
            with_first(*(replace(r, status="skip") for r in ALL[:9])),
            Said(
                "open",
                f"{COUNT - 9} pass, 9 skip; no verdict: 9 checks do not apply to this case, "
                "which lacks parts they need",
            ),
        ),
    ],
)  # fmt: skip
def test_by_results(results: list[Result], said: Said) -> None:
    assert verdict_on(results) == said


def test_a_run_without_an_end_has_none() -> None:
    assert verdict_on(ALL, complete=False, gate=READY) == ("open", "interrupted: no verdict")


def test_a_gate_knows_more_than_its_results() -> None:
    told = "NOT READY: changed while the gate ran: train.py"
    assert verdict_on(ALL, gate=told) == ("bad", told)
    assert verdict_on(ALL[:1], gate=READY) == ("good", READY)
