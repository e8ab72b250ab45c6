"""One place for all evidence: ranks the causes that the signs of a run speak for."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ris_diag.cause import SIGNATURE, Cause, all_causes
from ris_diag.check import ANY_CHECK, get_check
from ris_diag.result import Finding, Result

BY_THE_WAY = 0.3  # how often a cause shows a sign that any flaw may bring about
# A cause often has several forms, each with some of the signs: what is missing counts less.
ABSENCE = 0.3
# What a cause loses of which no sign is there that it is known by.
NO_SIGNATURE = math.log(0.005)
SYMPTOMS = frozenset(
    {
        "raises",
        "litmus-does-not-fall",
        "prediction-does-not-fall",
        "reported-does-not-fall",
        "gradient-trivial",
        "memorises-nothing",
        "memorises-partly",
        "starts-below-floor",
        "validation-stays-high",
        "fresh-does-not-improve",
        "metric-does-not-improve",
        "no-better-than-free",
        "no-better-than-classical",
        "overfit-not-passed",
    }
)
SETTLED = 0.8
ANYWAY = 0.01  # a cause explains a sign that it shows this often


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A finding and the check that made it."""

    check: str
    finding: Finding

    def to_json(self) -> dict[str, str]:
        """Plain dict."""
        return {"check": self.check, **self.finding}  # type: ignore[dict-item]  # all its values are str


@dataclass(frozen=True, kw_only=True)
class Named:
    """A cause with what speaks for it.

    Attributes:
        certainty: its share among all causes, given the evidence; between 0 and 1.
        place: file:line, or path of a parameter, a term, a split, a key.
        evidence: what it is known by, the most telling first.
        explains: what else was seen and comes from it.
    """

    cause: Cause
    certainty: float
    place: str
    evidence: list[Evidence]
    explains: list[Evidence]

    @property
    def told(self) -> str:
        """`C072 steps-missing, 98% sure`; nothing is surer than 99%."""
        return f"{self.cause.name}, {min(self.certainty, 0.99):.0%} sure"

    def to_json(self) -> dict[str, Any]:
        """Plain dict; all that the cause declares, but its signs, and what was seen of it."""
        cause = self.cause
        return {
            "id": cause.id,
            "slug": cause.slug,
            "area": cause.area,
            "title": cause.title,
            "certainty": self.certainty,
            "place": self.place,
            "evidence": [evidence.to_json() for evidence in self.evidence],
            "explains": [evidence.to_json() for evidence in self.explains],
            "silent": cause.silent,
            "repair": cause.repair,
            "reference": cause.reference,
        }


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What is wrong: the named causes, most likely first; the second explains what the first can't.

    Attributes:
        contenders: other causes of the first one's evidence, with their certainty.
        unexplained: what no cause is known for.
    """

    named: list[Named] = field(default_factory=list)
    contenders: list[tuple[Cause, float]] = field(default_factory=list)
    unexplained: list[Evidence] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether the first cause is far ahead of the others."""
        return bool(self.named) and self.named[0].certainty >= SETTLED

    def to_json(self) -> dict[str, Any]:
        """Plain dict."""
        return {
            "settled": self.settled,
            "named": [named.to_json() for named in self.named],
            "contenders": [
                {"id": c.id, "slug": c.slug, "certainty": p, "settles": c.settles}
                for c, p in self.contenders
            ],
            "unexplained": [evidence.to_json() for evidence in self.unexplained],
        }


def diagnose(results: Iterable[Result]) -> Diagnosis:
    """Rank the causes of what the checks found.

    Each cause says how often its signs show. The posterior of a cause is that of independent
    signs under equal priors (naive Bayes): signs that are there, and those that are not although
    their check ran.
    """
    results = [r for r in results if r.status != "skip" or r.expected]
    seen = [Evidence(check=r.id, finding=f) for r in results if not r.expected for f in r.findings]
    present: dict[str, list[Evidence]] = {}
    for evidence in seen:
        present.setdefault(evidence.finding["sign"], []).append(evidence)
    absent = {
        sign
        for result in results
        if result.status in ("pass", "fail")
        for sign in get_check(result.id).signs
    } - present.keys()
    absent |= {sign for sign in ANY_CHECK if results and sign not in present}
    named: list[Named] = []
    contenders: list[tuple[Cause, float]] = []
    left, aside = dict(present), _of_devices()
    while any(sign not in SYMPTOMS for sign in left) or (left and not named):
        # Where tensors stand keeps no training from learning: those signs speak last.
        ranked = rank(left.keys() - aside or left, absent)
        if not ranked:
            break
        best = ranked[0][0]
        explained = {sign for sign in left if _share(best, sign) >= ANYWAY}
        # The signs of a second flaw say nothing about which cause the first one has.
        ranked = rank(explained - aside or explained, absent)
        if not named:
            contenders = [(c, p) for c, p in ranked[1:4] if p > 0.05]
        named.append(_named(*ranked[0], left))
        left = {sign: found for sign, found in left.items() if sign not in explained}
    return Diagnosis(
        named=named,
        contenders=contenders,
        unexplained=[e for found in left.values() for e in found],
    )


def rank(present: Iterable[str], absent: Iterable[str]) -> list[tuple[Cause, float]]:
    """Causes by their share, given signs that are there and signs that are not.

    Only causes of which at least one listed sign is there.
    """
    present, absent = list(present), list(absent)
    possible = [entry for entry in all_causes() if not entry.looks.keys().isdisjoint(present)]
    logs = {entry.id: _log_likelihood(entry, present, absent) for entry in possible}
    top = max(logs.values(), default=0.0)
    weights = {name: math.exp(value - top) for name, value in logs.items()}
    total = sum(weights.values())
    ranked = sorted(possible, key=lambda entry: -weights[entry.id])
    return [(entry, weights[entry.id] / total) for entry in ranked]


def _of_devices() -> frozenset[str]:
    """The signs by which causes of the area `device` are known."""
    causes = [cause for cause in all_causes() if cause.area == "device"]
    return frozenset(sign for c in causes for sign, share in c.looks.items() if share >= SIGNATURE)


def _log_likelihood(cause: Cause, present: Sequence[str], absent: Sequence[str]) -> float:
    there = sum(math.log(_share(cause, sign)) for sign in present)
    missing = sum(math.log(1 - cause.looks[sign]) for sign in absent if sign in cause.looks)
    known = any(cause.looks.get(sign, 0) >= SIGNATURE for sign in present)
    return there + ABSENCE * missing + (0.0 if known else NO_SIGNATURE)


def _share(cause: Cause, sign: str) -> float:
    """How often a cause shows a sign."""
    return cause.looks.get(sign, max(cause.elsewhere, BY_THE_WAY if sign in SYMPTOMS else 0.0))


def _named(cause: Cause, certainty: float, left: Mapping[str, list[Evidence]]) -> Named:
    telling = [e for sign in cause.looks for e in left.get(sign, ())]
    place = next((e.finding["place"] for e in telling if e.finding["place"]), "")
    also = [
        e
        for sign, found in left.items()
        if sign not in cause.looks and _share(cause, sign) >= ANYWAY
        for e in found
    ]
    return Named(cause=cause, certainty=certainty, place=place, evidence=telling, explains=also)
