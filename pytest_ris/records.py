"""What tests recorded: results by case and device, for the summary and for the file."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from ris_diag.families import FAMILIES

if TYPE_CHECKING:
    from ris_diag.result import Card, Report, Result
    from ris_diag.runner import Runner

PROPERTY = "ris"
Record = dict[str, Any]


class Group(NamedTuple):
    """What results stand together: those of one case on one device.

    Attributes:
        case: its name.
        device: as asked for: "cuda" is one device, whichever GPU a worker of xdist takes.
    """

    case: str
    device: str


def recorded(runner: "Runner", device: str, result: "Result") -> Record:
    """Plain data of a result: it goes through xdist."""
    return {
        "case": runner.subject.case.name,
        "device": device,
        "result": result.to_json(),
        "cards": [asdict(card) for card in runner.cards],
    }


def results_by_group(records: Iterable[Record]) -> dict[Group, list["Result"]]:
    """Results by case, device, family and number, in whatever order the tests ran."""
    from ris_diag.result import Result

    order = [family.letter for family in FAMILIES]
    found: dict[Group, list[Result]] = {}
    for record in sorted(records, key=_group):
        found.setdefault(_group(record), []).append(Result(**record["result"]))
    for results in found.values():
        results.sort(key=lambda result: (order.index(result.id[0]), result.id))
    return found


def cards_of(records: Iterable[Record]) -> list["Card"]:
    """The GPUs that the results come from."""
    from ris_diag.result import Card, merged

    return merged(Card(**card) for record in records for card in record["cards"])


def content(
    records: list[Record], *, devices: list[str], seed: int, complete: bool
) -> dict[str, Any]:
    """The report of a session as JSON holds it.

    Args:
        devices: those asked for, which are named where nothing ran.
        complete: whether the run came to its end.
    """
    from ris_diag.diagnosis import diagnose
    from ris_diag.result import Report
    from ris_diag.versions import versions

    groups = results_by_group(records)
    report = Report(
        case=", ".join(dict.fromkeys(group.case for group in groups)),
        device=", ".join(dict.fromkeys(group.device for group in groups) or devices),
        seed=seed,
        versions=versions(),
        results=[result for results in groups.values() for result in results],
        complete=complete,
        cards=cards_of(records),
    )
    found = report.to_json()
    if len(groups) > 1:
        found.pop("diagnosis")
        found["diagnoses"] = [
            {**group._asdict(), **diagnose(results).to_json()} for group, results in groups.items()
        ]
    owners = [group for group, results in groups.items() for _ in results]
    for entry, group in zip(found["results"], owners, strict=True):
        entry.update(group._asdict())
    return found


def reports(records: list[Record], *, seed: int, complete: bool) -> list["Report"]:
    """A report for every case and device.

    Args:
        complete: whether the run came to its end.
    """
    from ris_diag.result import Report
    from ris_diag.versions import versions

    return [
        Report(
            case=group.case,
            device=group.device,
            seed=seed,
            versions=versions(),
            results=results,
            complete=complete,
            cards=cards_of(record for record in records if _group(record) == group),
        )
        for group, results in results_by_group(records).items()
    ]


def told_apart_by(groups: Iterable[Group]) -> list[str]:
    """The fields in which groups differ."""
    columns = zip(Group._fields, zip(*groups, strict=True), strict=False)  # none without a group
    return [field for field, values in columns if len(set(values)) > 1]


def _group(record: Record) -> Group:
    return Group(record["case"], record["device"])
