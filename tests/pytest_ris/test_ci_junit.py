"""JUnit XML of both faces: what a CI shows, and the properties that programs read."""

import json
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from ris_diag.ci.junit import write_junit
from ris_diag.ci.part import Part
from ris_diag.cli import main
from ris_diag.result import Result as Found

pytestmark = pytest.mark.usefixtures("project")


def check(case: str, select: str) -> Result:
    return CliRunner().invoke(main, ["check", case, select, "--junit=out.xml"])


def cases(path: str = "out.xml") -> dict[str, ET.Element]:
    """Test cases by the ID of their check."""
    found = ET.parse(path).getroot().iter("testcase")  # noqa: S314  # our own file
    return {properties(case)["ris_id"]: case for case in found}


def properties(element: ET.Element) -> dict[str, str]:
    return {p.attrib["name"]: p.attrib["value"] for p in element.findall("properties/property")}


def test_a_failed_check() -> None:
    assert check("--case=tiny:frozen", "--select=L009").exit_code == 1
    case = cases()["L009"]
    assert (case.get("classname"), case.get("name")) == ("ris-diag.litmus", "L009 one-step-a-batch")
    assert case.get("file") == "tiny.py"
    assert int(case.get("line", "0")) > 1
    named = properties(case)
    assert named["ris_family"] == "litmus"
    assert named["ris_status"] == "fail"
    assert named["ris_case"] == "frozen"
    assert named["ris_device"] == "cpu"
    assert named["ris_cause"].startswith("0 optimiser steps for 12 batches")
    assert json.loads(named["ris_measurements"])["batches"] == 12
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == named["ris_cause"]
    assert "  Place: tiny.py:" in str(failure.text)


def test_counts_verdict_and_diagnosis_of_the_suite() -> None:
    check("--case=tiny:frozen", "--select=L009,L010")
    suite = ET.parse("out.xml").getroot().find("testsuite")  # noqa: S314  # our own file
    assert suite is not None
    assert suite.get("name") == "ris-diag frozen cpu"
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "2", "failures": "1", "errors": "0", "skipped": "1"}
    assert properties(suite)["ris_verdict"].startswith("NOT READY: L009 not passed")
    assert properties(suite)["ris_diagnosis"].startswith("C")
    assert "% sure: tiny.py:" in properties(suite)["ris_diagnosis"]


def test_every_outcome() -> None:
    check("--case=tiny:raising", "--select=L009")
    assert cases()["L009"].find("error") is not None
    check("--case=tiny:known", "--select=L001")
    skipped = cases()["L001"].find("skipped")
    assert skipped is not None
    assert str(skipped.get("message")).startswith("ticket 12 (")
    assert properties(cases()["L001"])["ris_expected"] == "ticket 12"
    check("--case=tiny:learns", "--select=L001")
    passed = cases()["L001"]
    assert {child.tag for child in passed} == {"properties", "system-out"}
    assert "Step 1/5: loss=" in str(passed.findtext("system-out"))


def test_the_gate_writes_it_with_its_verdict() -> None:
    run = CliRunner().invoke(main, ["gate", "--case=tiny:bare", "--junit=out.xml"])
    assert run.exit_code == 1
    suite = ET.parse("out.xml").getroot()[0]  # noqa: S314  # our own file
    assert properties(suite)["ris_verdict"].startswith("NOT READY: ")


def test_a_folder_that_is_missing_is_refused_before_anything_runs() -> None:
    run = CliRunner().invoke(main, ["check", "--case=tiny:learns", "--junit=no/out.xml"])
    assert run.exit_code == 2
    assert run.stdout == ""
    assert "--junit no/out.xml: expected a file in a folder that exists" in run.stderr


def test_what_xml_cannot_hold(project: pytest.Pytester) -> None:
    odd = 'a\x1b[31m\x00 <b> & "c" é\ud800'
    found = Found(
        id="L009", slug="s", family="litmus", title="t", status="fail", cause=odd, lines=[odd],
        measurements={"x": odd, "n": float("nan")},
    )  # fmt: skip
    part = Part(case=odd, device="cpu", results=[found], verdict=odd)
    write_junit(project.path / "out.xml", [part])
    shown = 'a#x1B[31m#x00 <b> & "c" é#xD800'
    named = properties(cases()["L009"])
    assert named["ris_cause"] == named["ris_case"] == shown
    assert json.loads(named["ris_measurements"])["n"] == "NaN"


def test_properties_of_pytest(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: list[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(project.path / "summary.md"))
    project.makepyfile(
        test_suite="""
        from pytest_ris.suite import test_check
        def test_other(record_property): record_property("own", {"a": 1})
        """
    )
    options = ("--ris-case=tiny:frozen", "--ris-select=L009,L010", "--junitxml=py.xml")
    project.runpytest_inprocess(*mode, *options, "-o", "junit_family=xunit1")
    found = list(ET.parse("py.xml").getroot().iter("testcase"))  # noqa: S314  # our own file
    by_name = {str(case.get("name")): case for case in found}
    assert properties(by_name.pop("test_other")) == {"own": "{'a': 1}"}
    failed = by_name["test_check[L009-one-step-a-batch-cpu]"]
    named = properties(failed)
    assert len(failed.findall("properties/property")) == len(named)
    assert (named["ris_id"], named["ris_family"]) == ("L009", "litmus")
    assert json.loads(named["ris_measurements"])["batches"] == 12
    assert named["ris_place"].startswith("tiny.py:")
    assert "ris" not in named
    assert all(properties(case)["ris_case"] == "frozen" for case in by_name.values())
    assert (project.path / "summary.md").read_text().count("\n| L009 ") == 1  # of all workers


def test_a_test_of_two_checks(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_suite="def test_two(ris_run): assert [ris_run(name).id for name in ('L001', 'L009')]"
    )
    project.runpytest_inprocess("--ris-case=tiny:learns", "--junitxml=py.xml")
    (case,) = ET.parse("py.xml").getroot().iter("testcase")  # noqa: S314  # our own file
    ids = [p.get("value") for p in case.iter("property") if p.get("name") == "ris_id"]
    assert ids == ["L001", "L009"]
