"""Errors that are the user's to mend: each says what was given and what is admissible."""

from collections.abc import Iterable
from difflib import get_close_matches


class RisDiagError(Exception):
    """Base of the errors below: a wrong request, not a wrong training."""


class RequestError(RisDiagError):
    """A command can't do what it was asked for."""


class CaseError(RisDiagError):
    """The case under test can't be found, built or used.

    Attributes:
        sign: of the finding that a check makes of it.
    """

    def __init__(self, message: str, *, sign: str = "raises") -> None:
        super().__init__(message)
        self.sign = sign


class MissingSplitError(CaseError):
    """Data have no such split; what needs it doesn't apply."""


class NotCoveredError(RisDiagError):
    """A check can't see all that it judges: it says where it ends, and doesn't pass."""


class UnknownCheckError(RisDiagError):
    """A selection names no check."""


class SearchError(RisDiagError):
    """A search can't be begun, continued or ended as it was asked for."""


class DeviceError(RisDiagError):
    """The device asked for isn't there."""


class SignatureError(RisDiagError):
    """A receipt can't be signed, or signatures can't be read here."""


class ReceiptError(RisDiagError):
    """A receipt can't be written."""


class ReportError(RisDiagError):
    """A page can't be written as it was asked for."""


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant, "did you mean 'x'?"; "" if nothing is like it."""
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
