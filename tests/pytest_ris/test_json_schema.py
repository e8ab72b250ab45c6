"""The published schema of a report: it holds for reports of every kind, and only for those."""

import copy
import json
from collections.abc import Callable
from dataclasses import fields
from importlib.resources import files
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # stubs are apart

from ris_diag.cause import all_causes
from ris_diag.check import all_checks
from ris_diag.cli import main
from ris_diag.diagnosis import Diagnosis, Named, diagnose
from ris_diag.result import SCHEMA_VERSION, Card, Finding, Report, Result

SCHEMA: dict[str, Any] = json.loads(
    files("ris_diag").joinpath("schemas/report.schema.json").read_text(encoding="utf-8")
)
DEFS = SCHEMA["$defs"]
CARD = Card(device="cuda:0", name="NVIDIA H100", capability="9.0", peak_bytes=2**21)
MORE = """
import dataclasses, ris_diag, tiny

def nan_fit(model, plan):
    return [ris_diag.Epoch(train=float("nan")) for _ in range(plan.epochs)]

def nan():
    return dataclasses.replace(tiny.learns(), fit=nan_fit)

def exempt():
    return dataclasses.replace(tiny.learns(), exempt={"L002": "no blend"})
"""
TWO_CASES = """
import tiny
from pytest_ris import parametrize_with_checks

@parametrize_with_checks([tiny.learns, tiny.frozen])
def test_cases(case, check):
    check(case)
"""
TWO_DEVICES = """
import pytest

@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it(ris_runner, record_property, device):
    result = ris_runner.run_check("L009").to_json()
    card = dict(device="cuda:0", name="NVIDIA H100", capability="9.0", peak_bytes=7)
    cards = [card] if device == "cuda" else []
    record_property("ris", dict(case="tiny", device=device, cards=cards, result=result))
"""


def errors(report: dict[str, Any]) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(report)]


def read(project: pytest.Pytester) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((project.path / "out.json").read_text())
    return report


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert DEFS["report"]["properties"]["schema"] == {"const": SCHEMA_VERSION}
    assert SCHEMA["$id"] == f"urn:ris-diag:report:{SCHEMA_VERSION}"


@pytest.mark.parametrize(
    ("case", "select", "statuses"),
    [
        ("tiny:learns", "L00", {"pass", "skip"}),
        ("tiny:frozen", "L001,L009", {"fail"}),
        ("tiny:raising", "L009", {"error"}),
        ("tiny:known", "L001", {"skip"}),
        ("tiny:stale", "L001", {"fail"}),
        ("tiny:bare", "L009", {"skip"}),
        ("more:exempt", "L001,L002", {"pass", "skip"}),
        ("more:nan", "L008", {"pass"}),
    ],
)
def test_reports_of_both_faces(
    project: pytest.Pytester, case: str, select: str, statuses: set[str]
) -> None:
    project.makepyfile(more=MORE)
    CliRunner().invoke(main, ["check", f"--case={case}", f"--select={select}", "--json=out.json"])
    own = read(project)
    assert {entry["status"] for entry in own["results"]} == statuses
    assert errors(own) == []
    project.runpytest_inprocess(
        f"--ris-case={case}", f"--ris-select={select}", "--ris-json=out.json"
    )
    assert {entry["status"] for entry in read(project)["results"]} == statuses
    assert errors(read(project)) == []


def test_several_cases(project: pytest.Pytester) -> None:
    project.makepyfile(test_suite=TWO_CASES)
    project.runpytest_inprocess("--ris-select=L009", "--ris-json=out.json")
    assert [d["case"] for d in read(project)["diagnoses"]] == ["frozen", "learns"]
    assert errors(read(project)) == []


def test_several_devices(project: pytest.Pytester) -> None:
    project.makepyfile(test_suite=TWO_DEVICES)
    project.runpytest_inprocess("--ris-case=tiny:frozen", "--ris-json=out.json")
    assert [d["device"] for d in read(project)["diagnoses"]] == ["cpu", "cuda"]
    assert len(read(project)["cards"]) == 1
    assert errors(read(project)) == []


def test_interrupted_and_empty(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="from pytest_ris.suite import test_check",
        test_then="def test_stop(): raise KeyboardInterrupt",
    )
    options = ("--ris-case=tiny:frozen", "--ris-select=L009", "--ris-json=out.json")
    project.runpytest_inprocess(*options, no_reraise_ctrlc=True)
    assert read(project)["complete"] is False
    assert errors(read(project)) == []
    project.makepyfile(test_suite="def test_other(): pass")
    project.runpytest_inprocess("test_suite.py", "--ris-json=out.json")
    assert read(project)["results"] == []
    assert errors(read(project)) == []


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """One with every part: a failure with its diagnosis, contenders, a GPU, odd numbers."""
    check = next(check for check in all_checks() if check.id == "L009")
    finding = Finding(sign="steps-missing", cause="4 for 12", place="a.py:3", next_step="mend")
    result = Result(
        id=check.id,
        slug=check.slug,
        family=check.family,
        title=check.title,
        status="fail",
        findings=[finding],
        measurements={"x": [1, 2.5, float("nan"), None, {"y": True}]},
        cause="4 for 12",
    )
    made = Report(
        case="c", device="cuda", seed=0, versions={"torch": "2"}, results=[result], cards=[CARD]
    ).to_json()
    cause = all_causes()[0]
    made["diagnosis"]["contenders"] = [
        {"id": cause.id, "slug": cause.slug, "certainty": 0.2, "settles": cause.settles}
    ]
    made["diagnosis"]["unexplained"] = copy.deepcopy(made["diagnosis"]["named"][0]["evidence"])
    return made


Damage = Callable[[dict[str, Any]], object]
WRONG: dict[str, Damage] = {
    "other version": lambda r: r.update(schema=2),
    "unknown key": lambda r: r.update(extra=1),
    "no diagnosis": lambda r: r.pop("diagnosis"),
    "diagnosis and diagnoses": lambda r: r.update(diagnoses=[r["diagnosis"]]),
    "seed as text": lambda r: r.update(seed="0"),
    "version as number": lambda r: r["versions"].update(torch=2),
    "status": lambda r: r["results"][0].update(status="passed"),
    "no cause": lambda r: r["results"][0].pop("cause"),
    "unknown key of a result": lambda r: r["results"][0].update(extra=1),
    "lines as text": lambda r: r["results"][0].update(lines="a"),
    "negative seconds": lambda r: r["results"][0].update(seconds=-1),
    "case without device": lambda r: r["results"][0].update(case="c"),
    "sign": lambda r: r["results"][0]["findings"][0].update(sign="Not a slug"),
    "certainty": lambda r: r["diagnosis"]["named"][0].update(certainty=1.5),
    "contender": lambda r: r["diagnosis"]["contenders"][0].pop("settles"),
    "evidence": lambda r: r["diagnosis"]["unexplained"][0].pop("check"),
    "peak": lambda r: r["cards"][0].update(peak_bytes=0.5),
    "id": lambda r: r["results"][0].update(id="L9"),
}


@pytest.mark.parametrize("damage", WRONG.values(), ids=WRONG)
def test_wrong_reports_are_refused(report: dict[str, Any], damage: Damage) -> None:
    assert errors(report) == []
    planted = copy.deepcopy(report)
    damage(planted)
    assert errors(planted)


def keys_of(name: str) -> set[str]:
    """The keys of an object in the schema, all of them required but where several cases differ."""
    part = DEFS[name]
    assert part.get("additionalProperties", False) is False
    optional = {"case", "device"} if name in ("result", "diagnosis") else set()
    assert set(part["required"]) == set(part["properties"]) - optional
    return set(part["required"])


def test_the_schema_has_the_fields_of_the_dataclasses(report: dict[str, Any]) -> None:
    """Who adds or renames a field is sent to the schema and its version."""
    assert keys_of("result") == {item.name for item in fields(Result)}
    assert keys_of("card") == {item.name for item in fields(Card)}
    assert keys_of("finding") == Finding.__required_keys__
    assert keys_of("evidence") == {"check"} | Finding.__required_keys__
    assert keys_of("report") == set(report) - {"diagnosis"}
    assert keys_of("report") == {item.name for item in fields(Report)} | {"schema", "ok"}
    assert keys_of("diagnosis") == {item.name for item in fields(Diagnosis)} | {"settled"}
    assert keys_of("named") == set(report["diagnosis"]["named"][0])
    of_cause = {"id", "slug", "area", "title", "silent", "repair", "reference"}
    assert keys_of("named") == {item.name for item in fields(Named)} - {"cause"} | of_cause


def test_every_sign_and_cause_fits() -> None:
    checker = Draft202012Validator({**DEFS["slug"]})
    signs = {sign for check in all_checks() for sign in check.signs}
    assert [sign for sign in signs if not checker.is_valid(sign)] == []
    assert diagnose([]).to_json().keys() == keys_of("diagnosis")
