"""JUnit XML: what GitLab, Jenkins and the like show of a run."""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from ris_diag.ci.part import Part, first_source_line
from ris_diag.diagnosis import diagnose
from ris_diag.result import Result, write_atomically

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: str | Path, parts: Sequence[Part]) -> None:
    """Write a test suite a part, and a test a check, at once or not at all.

    Raises:
        OSError: the folder doesn't exist or can't be written; an older file is untouched.
    """
    suites = ET.Element("testsuites", name="ris-diag")
    suites.extend(map(_suite, parts))
    ET.indent(suites)
    text = ET.tostring(suites, encoding="unicode")
    write_atomically(path, f"<?xml version='1.0' encoding='utf-8'?>\n{text}\n")


def properties_of(case: str, device: str, result: Result) -> list[tuple[str, str]]:
    """What a program wants to know of a result, by name; what is empty is left out.

    The measurements are JSON, as in the file of `--json`.
    """
    measured = result.to_json()["measurements"]
    found = {
        "ris_id": result.id,
        "ris_slug": result.slug,
        "ris_family": result.family,
        "ris_case": case,
        "ris_device": device,
        "ris_status": result.status,
        "ris_measurements": json.dumps(measured, ensure_ascii=False) if measured else "",
        "ris_cause": result.cause,
        "ris_place": result.place,
        "ris_next_step": result.next_step,
        "ris_expected": result.expected,
        "ris_exempt": result.exempt,
    }
    return [(name, text) for name, text in found.items() if text]


def _suite(part: Part) -> ET.Element:
    counts = {
        "tests": len(part.results),
        "failures": sum(result.status == "fail" for result in part.results),
        "errors": sum(result.status == "error" for result in part.results),
        "skipped": sum(result.status == "skip" for result in part.results),
    }
    suite = ET.Element(
        "testsuite",
        {name: str(count) for name, count in counts.items()},
        name=_text(f"ris-diag {part.case} {part.device}"),
        time=f"{part.seconds:.3f}",
    )
    diagnosis = [
        ("ris_diagnosis", f"{named.told}: {named.place}") for named in diagnose(part.results).named
    ]
    _add_properties(suite, [("ris_verdict", part.verdict), *diagnosis])
    suite.extend(_test(part, result) for result in part.results)
    return suite


def _test(part: Part, result: Result) -> ET.Element:
    test = ET.Element(
        "testcase",
        classname=f"ris-diag.{result.family}",
        name=result.name,
        time=f"{result.seconds:.3f}",
    )
    at = first_source_line(result)
    if at is not None:
        test.set("file", _text(at.file))
        test.set("line", str(at.line))
    _add_properties(test, properties_of(part.case, part.device, result))
    if result.status == "skip":
        reason = f"{result.expected} ({result.cause})" if result.expected else result.cause
        ET.SubElement(test, "skipped", message=_text(reason))
    elif result.status != "pass":
        tag = "failure" if result.status == "fail" else "error"
        found = ET.SubElement(test, tag, message=_text(result.cause), type=result.slug)
        found.text = _text(result.message())
    if result.lines:
        ET.SubElement(test, "system-out").text = _text("\n".join(result.lines))
    return test


def _add_properties(element: ET.Element, named: Sequence[tuple[str, str]]) -> None:
    properties = ET.SubElement(element, "properties")
    for name, value in named:
        ET.SubElement(properties, "property", name=name, value=_text(value))


def _text(text: str) -> str:
    """A text without the characters that XML can't hold, such as those of a terminal's colours."""
    return _NOT_XML.sub(lambda found: f"#x{ord(found.group()):02X}", text)
