"""The block at the end of a run: what is said, in which order, in how many columns."""

import io
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from ris_diag.check import all_checks, get_check
from ris_diag.curves import LONGEST, sparkline
from ris_diag.result import Card, Finding, Result
from ris_diag.screen import KEPT, SPARKS, Line, encodable, fitted, show
from ris_diag.summary import stopped_at, summary
from tests.expected import COUNT


def result(check_id: str, status: str = "pass", **changed: Any) -> Result:
    check = get_check(check_id)
    names = {key: getattr(check, key) for key in ("id", "slug", "family", "title")}
    return Result(**{**names, "status": status, "seconds": 0.25, **changed})


PILED = result(
    "L011",
    "fail",
    cause="11 of 12 steps use gradients of more than one batch",
    place="train.py:31",
    next_step="call zero_grad() in every step",
    reproduce="ris-diag check --case my_package.mine:my_case --select L011 --seed 0",
    findings=[
        Finding(
            sign=get_check("L011").signs[0],
            cause="11 of 12 steps use gradients of more than one batch",
            place="train.py:31",
            next_step="call zero_grad() in every step",
        )
    ],
)
LEARNT = result(
    "L001",
    measurements={"losses": [0.5, 0.4, 0.3, 0.25, 0.2]},
    lines=["Step 1/5: loss=0.5", "Litmus: loss 0.5 -> 0.2 (-60.0%): PASS"],
)
GENERAL = result(
    "O002",
    lines=["Epoch 001/030: train 0.239  val 0.160", "Overfit: train 0.130, val 0.133: EXCELLENT"],
    measurements={
        "train_losses": [0.239, 0.2, 0.13],
        "validation_losses": [0.16, None, "NaN"],
        "nmse": {"R_pred": 0.1331, "OAS": 0.2144},
        "nmse_standard_error": {"R_pred": 0.0073, "OAS": 0.0103},
        "beta": 0.3,
    },
)
MIXED = [
    result("G001"),
    result("G002", "skip", cause="does not apply: needs Case.declared"),
    LEARNT,
    result("L009", "skip", expected="ticket 12", cause="4 optimiser steps for 12 batches"),
    PILED,
    GENERAL,
]


def text(lines: list[Line]) -> str:
    return "\n".join(line.text.replace(KEPT, " ") for line in lines)


def test_a_failed_run_to_the_letter() -> None:
    shown = text(summary(MIXED, told="case mine, cpu, seed 0, 2 s"))
    assert (
        shown
        == f"""\
NOT READY: L011 not passed; G002 does not apply to this case, which lacks a part it needs; \
{COUNT - 6} checks did not run
case mine, cpu, seed 0, 2 s

Diagnosis: C070 gradients-not-cleared, 99% sure
  Gradients are added up over the steps: nothing clears them.
  Place: train.py:31
  Seen: L011 11 of 12 steps use gradients of more than one batch
  Silent because: The loss falls at first, then circles.
  Repair: Call optimizer.zero_grad() in front of every backward().

guard     0.5 s  1 pass, 1 skip
litmus    0.8 s  1 pass, 1 fail, 1 xfail
xfail L009 one-step-a-batch                    0.2 s  ticket 12
fail  L011 gradients-are-cleared: 11 of 12 steps use gradients of more than one batch
      Place: train.py:31
      Try: call zero_grad() in every step
      Reproduce: ris-diag check --case my_package.mine:my_case --select L011 --seed 0
  loss  0.5 █▆▃▂▁ 0.2
  Litmus: loss 0.5 -> 0.2 (-60.0%): PASS
overfit   0.2 s  1 pass
  train 0.239 █▅▁ 0.13
  val   0.16 ▁!! nan
  NMSE on fresh scenes   mean   +-se
  R_pred  0.1331  0.0073  the network alone
  OAS     0.2144  0.0103  classical
  Overfit: train 0.130, val 0.133: EXCELLENT"""
    )


def test_a_green_run_is_short() -> None:
    results = [result(check.id) for check in all_checks()]
    assert (
        text(summary(results, told="case mine, cpu, seed 0, 29 s"))
        == """\
READY FOR FULL HPO
case mine, cpu, seed 0, 29 s

guard     4.5 s  18 pass
law       3.2 s  13 pass
data      4.8 s  19 pass
litmus   16.8 s  67 pass
overfit   1.0 s  4 pass"""
    )


def test_every_check_is_shown_where_that_is_asked_for() -> None:
    lines = text(summary(MIXED, verbosity=1)).splitlines()
    start = lines.index("guard     0.5 s  1 pass, 1 skip")
    assert lines[start + 1 :] == [
        "pass  G001 weights-in-range                    0.2 s",
        "skip  G002 bad-weights-refused                 0.2 s  does not apply: needs Case.declared",
        "litmus    0.8 s  1 pass, 1 fail, 1 xfail",
        "pass  L001 one-batch-learns                    0.2 s",
        "      Step 1/5: loss=0.5",
        "      Litmus: loss 0.5 -> 0.2 (-60.0%): PASS",
        "xfail L009 one-step-a-batch                    0.2 s  ticket 12",
        "fail  L011 gradients-are-cleared: 11 of 12 steps use gradients of more than one batch",
        "      Place: train.py:31",
        "      Try: call zero_grad() in every step",
        "      Reproduce: ris-diag check --case my_package.mine:my_case --select L011 --seed 0",
        "  loss  0.5 █▆▃▂▁ 0.2",
        "overfit   0.2 s  1 pass",
        "pass  O002 generalises                         0.2 s",
        "      Epoch 001/030: train 0.239  val 0.160",
        "      Overfit: train 0.130, val 0.133: EXCELLENT",
        "  train 0.239 █▅▁ 0.13",
        "  val   0.16 ▁!! nan",
    ]


def test_a_quiet_run_is_the_verdict_and_the_first_cause() -> None:
    verdict, cause = summary(MIXED, told="case mine", verbosity=-1)
    assert verdict.text.startswith("NOT READY: ")
    assert cause.text == "Diagnosis: C070 gradients-not-cleared, 99% sure"
    assert len(summary([LEARNT], verbosity=-1)) == 1


def test_no_failed_check_is_folded_and_pytest_leaves_out_what_it_shows_itself() -> None:
    results = [replace(PILED, id=f"L{n:03d}") for n in (11, 12, 13)]
    results.append(result("L014", "error", cause="ValueError: no\nsecond line"))
    lines = text(summary(results, messages=False)).splitlines()
    assert [line[:10] for line in lines if line.startswith(("fail ", "error"))] == [
        *("fail  L011", "fail  L012", "fail  L013", "error L014")
    ]
    assert not [line for line in lines if "Reproduce: " in line]


def test_an_interrupted_run_says_where_in_place_of_a_verdict() -> None:
    stopped = stopped_at(34, COUNT, "in L003 each-term-reaches-network")
    lines = text(summary([PILED], stopped=stopped)).splitlines()
    assert lines[0] == (
        f"interrupted after 34 of {COUNT} checks, in L003 each-term-reaches-network: no verdict"
    )
    assert lines[2].startswith("Diagnosis: C070")
    assert "READY" not in lines[0]
    assert stopped_at(0, 5, "while train.py was loaded") == (
        "interrupted before the first check, while train.py was loaded: no verdict"
    )
    assert stopped_at(2, 0, "") == "interrupted after 2 checks: no verdict"


def test_the_gpus_are_named_below_the_verdict() -> None:
    card = Card(device="cuda:0", name="H100", capability="9.0", peak_bytes=2**20)
    assert summary([LEARNT], told="case mine", cards=[card])[1:3] == [
        Line("case mine"),
        Line("cuda:0: H100, compute capability 9.0, peak memory 1.0 MiB"),
    ]


def test_styles_are_of_ansi_and_neither_black_nor_white() -> None:
    seen = {word for line in summary(MIXED, verbosity=1) for word in line.style.split()}
    assert seen <= {"bold", "red", "green", "yellow"}
    assert {"red", "green", "yellow"} <= seen


# ---- in how many columns

LONG = [
    *MIXED,
    replace(PILED, id="L012", place="a/very/long/path/that/no/narrow/terminal/holds/train.py:31"),
    *(result(name, "skip", cause="does not apply: needs Case.distributed") for name in ("L060",)),
]


@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_nothing_is_cut_at_any_width(verbosity: int) -> None:
    lines = summary(LONG, told="case mine, cpu, seed 0, 29 s", verbosity=verbosity)
    words = text(lines).split()
    for width in range(40, 201):
        shown = fitted(lines, width=width, encoding="utf-8")
        for line in shown:
            assert len(line.text) <= width or len(line.text.split()) == 1 or " \\" in line.text, (
                width,
                line,
            )
        assert [w for line in shown for w in line.text.split() if w != "\\"] == words
        assert not [line for line in shown if re.search(r"\d$", line.text) and _split(line, shown)]


def _split(line: Line, shown: list[Line]) -> bool:
    """Whether a number stands at the end of a line and its unit in the next."""
    behind = shown[shown.index(line) + 1 :][:1]
    return bool(behind) and behind[0].text.strip() in ("s", "pass", "fail", "skip")


def test_a_wrapped_command_runs_as_it_is_copied() -> None:
    command = Line("      Reproduce: ris-diag check --case my_package.mine:my_case --select L011")
    lines = [line.text for line in fitted([command], width=50, encoding="utf-8")]
    assert lines == [
        "      Reproduce: ris-diag check --case \\",
        "          my_package.mine:my_case --select L011",
    ]


def test_signs_that_an_encoding_lacks_are_written_in_ascii() -> None:
    assert encodable(f"loss {SPARKS} 1 …", "ascii") == "loss _.-:=+*# 1 ..."
    assert encodable("Löss", "ascii") == "L\\xf6ss"
    assert encodable("Löss", "latin-1") == "Löss"
    assert encodable("Löss", None) == "L\\xf6ss"
    assert encodable(SPARKS, "utf-8") == SPARKS


def test_a_pipe_gets_no_codes_and_whole_lines() -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    show([Line("x" * 300 + " y", "bold red"), *summary(MIXED)], file)
    file.flush()
    assert raw.getvalue().startswith(b"x" * 300 + b" y\nNOT READY: L011")
    assert b"\x1b" not in raw.getvalue()
    assert b"loss  0.5 #+-._ 0.2\n" in raw.getvalue()


# ---- curves


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], SPARKS),
        ([3.0, 3.0], "▁▁"),
        ([1.0, math.nan, 2.0, math.inf], "▁!█!"),
        ([math.nan], "!"),
        ([1e-30, 2e-30], "▁█"),
        ([-1e300, 1e300], "▁█"),
    ],
)
def test_a_curve(values: list[float], shown: str) -> None:
    assert sparkline(values) == shown


def test_a_long_curve_is_averaged() -> None:
    curve = sparkline([float(n) for n in range(1000)])
    assert len(curve) == LONGEST
    assert list(curve) == sorted(curve)


def test_checks_measure_what_their_curves_show() -> None:
    assert {"train_losses", "validation_losses", "beta"} <= _measured_by("O002")
    assert "losses" in _measured_by("L001")


def _measured_by(check_id: str) -> set[str]:
    """Names in the source of a check: what it measures under."""
    code = get_check(check_id).function.__code__
    return {name for const in code.co_consts if isinstance(const, tuple) for name in const}
