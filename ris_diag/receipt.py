"""The receipt of a gate: that it was open, for what, and when. In every doubt it isn't valid."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ris_diag.check import all_checks
from ris_diag.errors import CaseError
from ris_diag.fingerprint import differences, fingerprint, other_commit, project_root
from ris_diag.gate import Verdict, reasons_against
from ris_diag.result import Result, plain, write_atomically
from ris_diag.signature import sign, signer_problem

KIND, SCHEMA_VERSION = "ris-diag gate receipt", 2
SLACK = timedelta(minutes=5)  # between the clocks of two machines
FOLDER, SIGNATURE = ".ris-diag", "signature"


def default_receipt() -> Path:
    """Where the receipt lies if nobody names a file, relative to the working folder if inside."""
    path = project_root() / FOLDER / "receipt.json"
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def make_folder(folder: Path) -> None:
    """The folder of the default receipt, which git doesn't see, as those of pytest and ruff.

    Raises:
        OSError: it can't be made.
    """
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        write_atomically(ignore, "*\n")


def write_receipt(
    path: str | Path, verdict: Verdict, made_for: Mapping[str, Any], *, key: Path | None = None
) -> None:
    """Write a receipt at once or not at all, whatever the verdict.

    Args:
        made_for: the fingerprint from before the checks ran.
        key: private key of OpenSSH; its signature stands in the receipt.

    Raises:
        OSError: the folder doesn't exist or can't be written; an older file is untouched.
        SignatureError: the key can't sign; an older file is untouched.
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
    sealed = _sealed(plain(content))
    if key is not None:
        sealed[SIGNATURE] = sign(_text(sealed), key)
    write_atomically(path, _text(sealed))


def problems_of(
    path: str | Path,
    *,
    target: str,
    device: str,
    max_age: timedelta | None = None,
    signers: Path | None = None,
) -> list[str]:
    """Why a receipt isn't valid for a case as it is now; empty where it is.

    The hash in it tells a damaged file from a whole one, and a hand that changes it from one that
    doesn't know how: who wants to can compute it anew. A signature can't be.

    Args:
        max_age: an older one isn't valid.
        signers: a file of allowed signers of OpenSSH; one of them must have signed it.

    Raises:
        SignatureError: signatures can't be read here.
    """
    return judged(path, target=target, device=device, max_age=max_age, signers=signers)[0]


def judged(
    path: str | Path,
    *,
    target: str,
    device: str,
    max_age: timedelta | None = None,
    signers: Path | None = None,
) -> tuple[list[str], str]:
    """The problems, and what a reader wants to know beside them: where git stood."""
    try:
        content = _opened(Path(path).read_bytes())
    except OSError as error:
        return [f"{path}: {error.strerror}"], ""
    except ValueError as error:
        return [f"{path}: {error}"], ""
    problems = _about_itself(content) + _about_age(content.get("made_at"), max_age)
    if signers is not None:
        signature = content.pop(SIGNATURE, None)
        problems += filter(None, [signer_problem(_text(content), signature, signers)])
    try:
        now = fingerprint(target, device=device)
    except CaseError as error:
        return [*problems, str(error)], ""
    then = content.get("fingerprint", {})
    return problems + differences(then, now), other_commit(then, now)


def _sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(_text(content).encode()).hexdigest()
    return {**content, "sha256": digest}


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
    body = {key: value for key, value in content.items() if key not in ("sha256", SIGNATURE)}
    signature = {key: content[key] for key in (SIGNATURE,) if key in content}
    try:
        whole = _text({**_sealed(body), **signature}).encode() == raw
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
        if {result.id for result in results} - {check.id for check in all_checks()}:
            return ["it has results of checks that this version doesn't know"]
        reasons = reasons_against(results)
    except (KeyError, TypeError, AttributeError) as error:
        return [f"its results can't be read ({type(error).__name__}: {error})"]
    if complete is not True:
        return ["the gate is still at work, or didn't come to its end"]
    if not results:
        return ["no check was run"]
    problems = [f"the gate was closed: {reason}" for reason in reasons]
    if content.get("ready") is not True and not problems:
        problems.append(f"the gate was closed: {content.get('verdict')}")
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
