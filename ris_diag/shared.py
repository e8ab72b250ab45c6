"""One result of those of all ranks."""

from dataclasses import replace

from ris_diag.ranks import Ranks
from ris_diag.result import Finding, Result

SEVERITY = ("pass", "skip", "fail", "error")


def shared_result(ranks: Ranks, own: Result) -> Result:
    """One result of those of all ranks: the worst, with what each rank found.

    What is found on some ranks alone says on which.
    """
    results = [
        Result(**told)
        for told in ranks.share(f"result of {own.name}", own.to_json(), spent=own.seconds)
    ]
    worst = max(results, key=lambda result: SEVERITY.index(result.status))
    findings = _told_by_ranks(results)
    if not findings:
        return worst
    return replace(
        worst,
        findings=findings,
        cause="; ".join(f["cause"] for f in findings),
        place=", ".join(dict.fromkeys(f["place"] for f in findings)),
        next_step="; ".join(dict.fromkeys(f["next_step"] for f in findings)),
    )


def _told_by_ranks(results: list[Result]) -> list[Finding]:
    """Findings of all ranks, each once."""
    first: dict[tuple[str, str], Finding] = {}
    on: dict[tuple[str, str], list[int]] = {}
    for rank, result in enumerate(results):
        for finding in result.findings:
            key = finding["sign"], finding["place"]
            first.setdefault(key, finding)
            on.setdefault(key, []).append(rank)
    told = []
    for key, finding in first.items():
        some = sorted(set(on[key]))
        alone = "" if len(some) == len(results) else f"rank {', '.join(map(str, some))} alone: "
        told.append(Finding(**{**finding, "cause": alone + finding["cause"]}))
    return told
