"""The matrix of faults and checks: `make faults` runs all checks on all faults and healthy cases.

python -m tests.faults.matrix [--only TEXT] [--seeds N] [--jobs N] [--quick] [--faults] [--healthy]
"""

import argparse
import re
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

import ris_diag
from ris_diag import Case
from ris_diag.cause import all_causes
from ris_diag.check import select_checks
from ris_diag.diagnosis import diagnose
from tests.faults.all import ALL_FAULTS, RANKED_FAULTS
from tests.faults.healthy import HEALTHY
from tests.faults.ranked import launch, target_of
from tests.faults.ranked_parts import RANKED_HEALTHY
from tests.faults.registry import HERE, Fault, planted_lines
from tests.faults.zoo import ZOO

NUMBERS = {"detected": 1.0, "cause": 0.95, "place": 0.85}  # least shares
MEDIAN_SECONDS, LONGEST_SECONDS = 0.5, 5.0
FAMILIES = ("guard", "law", "data", "litmus")  # all but overfit
RANKED = ("guard", "data", "litmus")
AREA_OF = {cause.slug: cause.area for cause in all_causes()}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one fault."""

    name: str
    area: str
    detected: bool
    cause: bool
    place: bool
    seconds: float
    named: str
    shown: str


def examined(name: str, *, quick: bool = False) -> Row:
    """All checks on one fault; timed without the overfit."""
    fault = next(fault for fault in ALL_FAULTS if fault.name == name)
    case = fault.plant()
    start = time.process_time()
    results = ris_diag.run(case, select=FAMILIES, device=fault.device).results
    seconds = time.process_time() - start
    if not quick:
        rest = ris_diag.run(fault.plant(), select="overfit", device=fault.device).results
        results = [*results, *rest]
    return row_of(fault, results, seconds)


def row_of(fault: Fault, results: list[ris_diag.Result], seconds: float) -> Row:
    """What became of a fault, by the results of all checks."""
    failed = [r for r in results if r.status in ("fail", "error")]
    diagnosis = diagnose(results)
    first = diagnosis.named[0] if diagnosis.named else None
    slug = first.cause.slug if first else ""
    place = first.place if first else ""
    shown = "; ".join(f"{n.cause.slug} {n.certainty:.2f}" for n in diagnosis.named)
    signs = sorted({finding["sign"] for r in failed for finding in r.findings})
    return Row(
        name=fault.name,
        area=AREA_OF[fault.cause[0]],
        detected=bool(failed),
        cause=slug in fault.cause,
        place=is_right(place, fault),
        seconds=seconds,
        named=slug or "-",
        shown=f"[{shown}] at {place!r}, wanted {'/'.join(fault.cause)}; signs {', '.join(signs)}",
    )


def is_within_reach(fault: Fault) -> bool:
    """Whether the device on which it shows is there."""
    return fault.device == "cpu" or torch.cuda.is_available()


def is_right(place: str, fault: Fault) -> bool:
    """Whether a reported place is one of the right ones."""
    texts = [text for text in fault.place if text != HERE]
    if HERE in fault.place:
        texts += planted_lines(fault)
    return any(re.search(rf"{re.escape(text)}(?!\d)", place) for text in texts)


def alarms(name: str, seed: int, *, quick: bool = False) -> tuple[str, float, list[str]]:
    """The messages of a healthy case, and the seconds without overfit."""
    factory: Callable[[], Case] = {**HEALTHY, **ZOO}[name]
    families = ("guard", "data", "litmus") if quick else FAMILIES
    start = time.process_time()
    report = ris_diag.run(factory(), select=families, seed=seed)
    seconds = time.process_time() - start
    return (
        name,
        seconds,
        [r.message() for r in report.results if r.status in ("fail", "error")],
    )


def examined_in_ranks(only: str) -> list[Row]:
    """Those faults that take two processes, all in one launch; without laws and overfit."""
    faults = [fault for fault in RANKED_FAULTS if only in fault.name]
    told = launch(map(target_of, (fault.plant for fault in faults)), RANKED) if faults else {}
    return [
        row_of(fault, [ris_diag.Result(**r) for r in one["results"]], one["seconds"])
        for fault, one in zip(faults, told.values(), strict=True)
    ]


def alarms_in_ranks(only: str) -> list[tuple[str, float, list[str]]]:
    """The messages of healthy cases of two processes, all in one launch."""
    cases = {name: target_of(case) for name, case in RANKED_HEALTHY.items() if only in name}
    told = launch(cases.values(), RANKED) if cases else {}
    return [
        (name, told[target]["seconds"], messages_of(told[target])) for name, target in cases.items()
    ]


def messages_of(told: dict[str, Any]) -> list[str]:
    """The messages of a report that came as JSON."""
    results = [ris_diag.Result(**result) for result in told["results"]]
    return [r.message() for r in results if r.status in ("fail", "error")]


def _one_thread() -> None:
    torch.set_num_threads(1)
    ris_diag.run(HEALTHY["small"](), select=FAMILIES)  # what is imported at first use isn't timed


def _fault_job(job: tuple[str, bool]) -> Row | str:
    try:
        return examined(job[0], quick=job[1])
    except Exception:  # noqa: BLE001  # shown in the table, and counted
        return f"{job[0]} broke the matrix: {traceback.format_exc(limit=-3)}"


def _healthy_job(job: tuple[str, int, bool]) -> tuple[str, float, list[str]]:
    return alarms(job[0], job[1], quick=job[2])


def main() -> int:
    """Print the matrix; 1 where a number is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names that hold this text")
    parser.add_argument("--seeds", type=int, default=10, help="of the healthy cases")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="no overfit, no laws of healthy cases")
    parser.add_argument("--faults", action="store_true", help="no healthy cases")
    parser.add_argument("--healthy", action="store_true", help="no faults")
    wanted = parser.parse_args()
    missed: list[str] = []
    with ProcessPoolExecutor(wanted.jobs, initializer=_one_thread) as pool:
        if not wanted.healthy:
            faults = [fault for fault in ALL_FAULTS if wanted.only in fault.name]
            names = [fault.name for fault in faults if is_within_reach(fault)]
            for fault in faults:
                if fault.name not in names:
                    print(f"{fault.name:<46}not run: shows on CUDA alone")  # noqa: T201
            answers = list(pool.map(_fault_job, [(name, wanted.quick) for name in names]))
            answers += examined_in_ranks(wanted.only)
            missed += _show_faults(answers) if answers else []
        if not wanted.faults:
            jobs = [
                (name, seed, wanted.quick)
                for name in {**HEALTHY, **ZOO}
                for seed in range(wanted.seeds)
                if wanted.only in name
            ]
            alarmed = list(pool.map(_healthy_job, jobs, chunksize=4))
            missed += _show_healthy([*alarmed, *alarms_in_ranks(wanted.only)])
    for line in missed:
        print(f"MISSED: {line}")  # noqa: T201  # a program
    return bool(missed)


def _show_faults(answers: list[Row | str]) -> list[str]:
    broken = [answer for answer in answers if isinstance(answer, str)]
    rows = [answer for answer in answers if isinstance(answer, Row)]
    for row in rows:
        marks = " ".join(
            name if good else name.upper()
            for name, good in (
                ("detected", row.detected), ("cause", row.cause), ("place", row.place),
            )
        )  # fmt: skip
        tail = f"{row.named}" if row.detected and row.cause and row.place else row.shown
        print(f"{row.name:<46}{marks:<24}{row.seconds:6.2f} s  {tail}")  # noqa: T201
    for text in broken:
        print(text)  # noqa: T201
    print(f"\n{'area':<16}{'faults':>7}{'detected':>10}{'cause':>8}{'place':>8}{'median s':>10}")  # noqa: T201
    counted = Counter(row.area for row in rows)
    for area in (*counted, "all"):
        part = [row for row in rows if area in (row.area, "all")]
        if part:
            print(_line(area, part))  # noqa: T201
    missed = [f"{len(broken)} faults broke the matrix"] if broken else []
    for name, least in NUMBERS.items():
        share = statistics.fmean(getattr(row, name) for row in rows)
        if share < least:
            missed.append(f"{name} {share:.1%}, asked {least:.0%}")
    return missed + _slow([row.seconds for row in rows])


def _line(area: str, rows: list[Row]) -> str:
    shares = [statistics.fmean(getattr(row, name) for row in rows) for name in NUMBERS]
    middle = statistics.median(row.seconds for row in rows)
    columns = "".join(
        f"{share:>{width}.1%}" for share, width in zip(shares, (10, 8, 8), strict=True)
    )
    return f"{area:<16}{len(rows):>7}{columns}{middle:>10.2f}"


def _show_healthy(answers: list[tuple[str, float, list[str]]]) -> list[str]:
    loud = [(name, text) for name, _, messages in answers for text in messages]
    for name, text in loud:
        print(f"FALSE ALARM {name}: {text}")  # noqa: T201
    cases = len({name for name, _, _ in answers})
    print(  # noqa: T201
        f"\n{cases} healthy cases, {len(answers)} runs, {len(select_checks(FAMILIES))} checks: "
        f"{len(loud)} false alarms"
    )
    missed = [f"{len(loud)} false alarms, asked none"] if loud else []
    return missed + _slow([seconds for _, seconds, _ in answers])


def _slow(seconds: list[float]) -> list[str]:
    middle, longest = statistics.median(seconds), max(seconds)
    print(f"seconds: median {middle:.2f}, longest {longest:.2f}")  # noqa: T201
    missed = []
    if middle > MEDIAN_SECONDS:
        missed.append(f"median {middle:.2f} s, asked {MEDIAN_SECONDS:g} s")
    if longest > LONGEST_SECONDS:
        missed.append(f"longest {longest:.2f} s, asked {LONGEST_SECONDS:g} s")
    return missed


if __name__ == "__main__":
    sys.exit(main())
