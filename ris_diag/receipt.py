"""The receipt of a gate: that it was open, for what, and when. In every doubt it isn't valid."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ris_diag.errors import CaseError
from ris_diag.fingerprint import COMPARED, fingerprint
from ris_diag.gate import Verdict, reasons_against
from ris_diag.measure import listed
from ris_diag.result import Result, plain, write_atomically

KIND, SCHEMA_VERSION = "ris-diag gate receipt", 1
SLACK = timedelta(minutes=5)  # between the clocks of two machines


def write_receipt(path: str | Path, verdict: Verdict, made_for: Mapping[str, Any]) -> None:
    """Write a receipt at once or not at all, whatever the verdict.

    Args:
        made_for: the fingerprint from before the checks ran.

    Raises:
        OSError: the folder doesn't exist or can't be written; an older file is untouched.
    """
    content = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "ready": verdict.ready,
        "verdict": verdict.text,
        "fingerprint": made_for,
        "report": verdict.report.to_json(),
    }
    write_atomically(path, _sealed(plain(content)))


def problems_of(
    path: str | Path, *, target: str, device: str, max_age: timedelta | None = None
) -> list[str]:
    """Why a receipt isn't valid for a case as it is now; empty where it is.

    The hash in it tells a damaged file from a whole one, and a hand that changes it from one that
    doesn't know how: who wants to can compute it anew.
    """
    try:
        content = _opened(Path(path).read_bytes())
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    except ValueError as error:
        return [f"{path}: {error}"]
    problems = _about_itself(content) + _about_age(content["made_at"], max_age)
    try:
        now = fingerprint(target, device=device)
    except CaseError as error:
        return [*problems, str(error)]
    return problems + differences(content["fingerprint"], now)


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is other than it was, part by part; the commit alone isn't, where no file differs."""
    found = []
    for part in COMPARED:
        before, after = then.get(part, {}), now[part]
        changed = [k for k in before if k in after and before[k] != after[k]]
        words = {
            "changed": changed,
            "gone": [k for k in before if k not in after],
            "new": [k for k in after if k not in before],
        }
        said = [f"{word}: {listed(sorted(names), 5)}" for word, names in words.items() if names]
        if said:
            found.append(f"other {part} ({'; '.join(said)})")
    if then.get("device") != now["device"]:
        found.append(f"made on {then.get('device')}, asked for {now['device']}")
    return found


def _sealed(content: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(_text(content).encode()).hexdigest()
    return _text({**content, "sha256": digest})


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _opened(raw: bytes) -> dict[str, Any]:
    """The content of a receipt that is byte for byte as it was written.

    Raises:
        ValueError: it isn't.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no receipt: not JSON, or cut off ({error})") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError("no receipt of a gate")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise ValueError(f"schema {found!r}, expected {SCHEMA_VERSION}: run the gate anew")
    body = {key: value for key, value in content.items() if key != "sha256"}
    try:
        whole = _sealed(body).encode() == raw
    except ValueError:
        whole = False
    if not whole:
        raise ValueError("changed since it was written: its content doesn't fit its sha256")
    return content


def _about_itself(content: Mapping[str, Any]) -> list[str]:
    """Whether its results open a gate, whatever verdict it states."""
    try:
        report = content["report"]
        results = [Result(**entry) for entry in report["results"]]
        complete = report["complete"]
        reasons = reasons_against(results)
    except (KeyError, TypeError, AttributeError) as error:
        return [f"its results can't be read ({type(error).__name__}: {error})"]
    problems = [f"the gate was closed: {reason}" for reason in reasons]
    if not results:
        problems = ["no check was run"]
    if not complete:
        problems.append("the run didn't come to its end")
    if content.get("ready") is not True and not problems:
        problems.append("it doesn't say that the gate was open")
    return problems


def _about_age(made_at: Any, max_age: timedelta | None) -> list[str]:
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(made_at)
    except (TypeError, ValueError):
        return [f"made at {made_at!r}: no time"]
    if age < -SLACK:
        return [f"made at {made_at}, which is yet to come: the clock of a machine is wrong"]
    if max_age is not None and age > max_age:
        return [f"made at {made_at}, {_hours(age)} ago (at most {_hours(max_age)})"]
    return []


def _hours(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):.3g} h"
