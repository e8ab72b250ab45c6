"""What a check found: plain data, safe for JSON and for the transport between processes."""

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from ris_diag.diagnosis import Diagnosis

Status = Literal["pass", "fail", "skip", "error"]
SCHEMA_VERSION = 3


class Finding(TypedDict):
    """One reason to fail: what kind it is, and a message's parts."""

    sign: str
    cause: str
    place: str
    next_step: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """Outcome of one check.

    Attributes:
        id, slug, family, title: of the check.
        status: "pass"; "fail" (a limit is broken); "skip" (doesn't apply, or a declared failure);
            "error" (the code under test raised).
        measurements: name to number, text, list or dict of those.
        cause: what is wrong, with measured value and limit; all offenders at once.
        place: file:line of the user's code, parameter path or configuration key.
        next_step: what to do about it.
        findings: the same one by one, each with its sign.
        reproduce: a command or call that repeats this check alone.
        lines: the lines a person reads while the check runs.
        expected: the declared reason, where the failure was declared in the case.
        exempt: the declared reason, where the case isn't meant to keep this check.
        seconds: how long it took [s].
    """

    id: str
    slug: str
    family: str
    title: str
    status: Status
    measurements: Mapping[str, Any] = field(default_factory=dict)
    cause: str = ""
    place: str = ""
    next_step: str = ""
    findings: list[Finding] = field(default_factory=list)
    reproduce: str = ""
    lines: list[str] = field(default_factory=list)
    expected: str = ""
    exempt: str = ""
    seconds: float = 0.0

    @property
    def shown_status(self) -> str:
        """The status, with a declared failure told from a skip: "xfail"."""
        return "xfail" if self.expected else self.status

    @property
    def name(self) -> str:
        """ID and slug, `L001 one-batch-learns`."""
        return f"{self.id} {self.slug}"

    def message(self) -> str:
        """All that a person needs, several lines: cause, place, next step, how to repeat it."""
        parts = [f"{self.name}: {self.cause or self.status}"]
        for label, text in (
            ("Place", self.place),
            ("Try", self.next_step),
            ("Reproduce", self.reproduce),
        ):
            if text:
                parts.append(f"  {label}: {text}")
        return "\n".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Plain dict; NaN and infinities become the strings "NaN", "Infinity", "-Infinity"."""
        return {key: plain(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU on which checks ran.

    Attributes:
        device: "cuda:0".
        name: "NVIDIA H100 80GB HBM3". capability: what it can compute, "9.0".
        peak_bytes: the most memory that torch held on it for tensors while a check ran.
    """

    device: str
    name: str
    capability: str
    peak_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.device}: {self.name}, compute capability {self.capability}, "
            f"peak memory {self.peak_bytes / 2**20:.1f} MiB"
        )


def merged(cards: Iterable[Card]) -> list[Card]:
    """Each GPU once, with its highest peak; the peaks of two processes aren't added."""
    highest: dict[str, Card] = {}
    for card in sorted(cards, key=lambda card: card.peak_bytes):
        highest[f"{card.device} {card.name}"] = card
    return [highest[key] for key in sorted(highest)]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Results of a run with what they were measured on.

    Attributes:
        case: its name.
        seed: from which every random choice derives.
        versions: of Python and of the libraries, by name.
        results: one a check, in the order in which they ran.
        device: as it was asked for, "cpu", "cuda", "cuda:1".
        complete: whether the run came to its end.
        cards: the GPUs on which checks ran; none on the CPU.
    """

    case: str
    device: str
    seed: int
    versions: Mapping[str, str]
    results: list[Result]
    complete: bool = True
    cards: list[Card] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """The run wasn't interrupted, at least one check passed, none failed or raised."""
        statuses = {result.status for result in self.results}
        return self.complete and "pass" in statuses and not statuses & {"fail", "error"}

    @property
    def diagnosis(self) -> "Diagnosis":
        """The causes of what was found, most likely first."""
        from ris_diag.diagnosis import diagnose

        return diagnose(self.results)

    def __getitem__(self, check_id: str) -> Result:
        for result in self.results:
            if check_id in (result.id, result.slug):
                return result
        raise KeyError(f"{check_id}: not among {', '.join(r.id for r in self.results) or 'none'}")

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        from ris_diag.report.notebook import as_html

        return as_html(self)

    def to_json(self) -> dict[str, Any]:
        """Plain dict with a schema version."""
        return {
            "schema": SCHEMA_VERSION,
            "case": self.case,
            "device": self.device,
            "cards": [asdict(card) for card in self.cards],
            "seed": self.seed,
            "versions": dict(self.versions),
            "ok": self.ok,
            "complete": self.complete,
            "diagnosis": self.diagnosis.to_json(),
            "results": [result.to_json() for result in self.results],
        }


def plain(value: Any) -> Any:
    """`value` as JSON can hold it.

    Raises:
        TypeError: it holds something other than str, int, float, bool, None, list, tuple, dict.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no plain data: {value!r}")


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` at once or not at all.

    Raises:
        OSError: the folder doesn't exist or can't be written; the old file is untouched.
    """
    write_atomically(path, json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text to `path` at once or not at all.

    Raises:
        OSError: the folder doesn't exist or can't be written; the old file is untouched.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # what is renamed before it is on disk may come back empty
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
