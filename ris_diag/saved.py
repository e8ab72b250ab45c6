"""Reads the report of an earlier run from its file; nothing in it is executed."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from ris_diag.errors import RisDiagError
from ris_diag.result import SCHEMA_VERSION, Result

FIELDS = {item.name for item in fields(Result)}
STATUSES = ("pass", "skip", "fail", "error")  # the worst comes last
TEXTS = ("id", "slug", "family", "status", "cause", "expected")


class Group(NamedTuple):
    """What results stand together."""

    case: str
    device: str


class Saved(NamedTuple):
    """A report as its file holds it.

    Attributes:
        results: of each case on each device, by ID; the worst of several of one ID.
        causes: of each case on each device: ID and slug of a named cause, to certainty and place.
        about: the seed, and the versions of the libraries.
        complete: whether the run came to its end.
    """

    results: dict[Group, dict[str, Result]]
    causes: dict[Group, dict[str, tuple[float, str]]]
    about: dict[str, str]
    complete: bool


def read_report(path: Path) -> Saved:
    """The report in a file of `--json` or `--ris-json`.

    Raises:
        RisDiagError: it can't be read, or is no report of this schema; one line says why.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise RisDiagError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RisDiagError(f"{path}: not JSON, or cut off ({error})") from None
    if not isinstance(content, dict) or "schema" not in content:
        raise RisDiagError(f"{path}: no report of `ris-diag check --json` or `pytest --ris-json`")
    if content["schema"] != SCHEMA_VERSION:
        raise RisDiagError(
            f"{path}: schema {content['schema']!r}, expected {SCHEMA_VERSION}: "
            "run the checks again with this version of ris-diag"
        )
    try:
        return _saved(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise RisDiagError(f"{path}: its content doesn't fit its schema ({told})") from None


def _saved(content: dict[str, Any]) -> Saved:
    whole = Group(_text(content["case"]), _text(content["device"]))
    results: dict[Group, dict[str, Result]] = {}
    for entry in content["results"]:
        result = _result(entry)
        group = Group(
            _text(entry.get("case", whole.case)), _text(entry.get("device", whole.device))
        )
        by_id = results.setdefault(group, {})
        before = by_id.get(result.id)
        if before is None or STATUSES.index(before.status) < STATUSES.index(result.status):
            by_id[result.id] = result
    alone = next(iter(results), whole)  # the report of one group names it above its results
    causes = {}
    for found in content.get("diagnoses") or [content["diagnosis"]]:
        group = Group(found.get("case", alone.case), found.get("device", alone.device))
        causes[group] = {
            f"{named['id']} {named['slug']}": (float(named["certainty"]), _text(named["place"]))
            for named in found["named"]
        }
    about = {"seed": str(content["seed"]), **content["versions"]}
    if not isinstance(content["complete"], bool):
        raise TypeError("complete is no truth value")
    return Saved(results, causes, about, content["complete"])


def _result(entry: dict[str, Any]) -> Result:
    missing = FIELDS - entry.keys()
    if missing:
        raise KeyError(", ".join(sorted(missing)))
    result = Result(**{name: entry[name] for name in FIELDS})
    for name in TEXTS:
        _text(getattr(result, name))
    STATUSES.index(result.status)
    float(result.seconds)
    result.measurements.items()
    return result


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
