"""The declaration of a cause: what is wrong with a training, and the signs by which it is known."""

from collections.abc import Mapping
from dataclasses import dataclass

AREAS = (
    "configuration",
    "loss",
    "model",
    "loop",
    "optimiser",
    "data",
    "evaluation",
    "numerics",
    "device",
    "distributed",
)

ALWAYS, MOSTLY, OFTEN, SOMETIMES = 0.97, 0.8, 0.5, 0.2
SIGNATURE = MOSTLY  # a sign that is shown this often, or more often, is what a cause is known by
BY_CHANCE, RARELY, WIDELY = 0.001, 0.01, 0.1


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One cause, declared once: the report, the command line and its page come from it.

    Attributes:
        id: C and three digits; never reused.
        slug: the readable name.
        area: one of `AREAS`.
        title: what is wrong, one sentence without full stop.
        looks: sign to the share of such trainings that show it, the most telling sign first: it
            gives the place. Signs that any flaw may bring about are not listed.
        silent: why nothing else shows it.
        repair: how to mend it.
        reference: where it is described.
        settles: the experiment that tells it from the causes that look alike.
        elsewhere: how often it shows a sign that isn't listed: NaN breaks everything.
    """

    id: str
    slug: str
    area: str
    title: str
    looks: Mapping[str, float]
    silent: str
    repair: str
    reference: str
    settles: str = ""
    elsewhere: float = BY_CHANCE

    @property
    def name(self) -> str:
        """ID and slug, `C070 gradients-not-cleared`."""
        return f"{self.id} {self.slug}"


_REGISTRY: dict[str, Cause] = {}


def cause(
    id: str,  # noqa: A002  # the word that users write
    slug: str,
    *,
    area: str,
    title: str,
    looks: Mapping[str, float],
    silent: str,
    repair: str,
    reference: str,
    settles: str = "",
    elsewhere: float = BY_CHANCE,
) -> None:
    """Register a cause.

    Raises:
        ValueError: ID or slug is taken or malformed, or the area doesn't exist.
    """
    if len(id) != 4 or id[0] != "C" or not id[1:].isdigit():
        raise ValueError(f"{id!r}: expected C and three digits")
    if area not in AREAS:
        raise ValueError(f"{id} area {area!r}: expected one of {AREAS}")
    if id in _REGISTRY or slug in {other.slug for other in _REGISTRY.values()}:
        raise ValueError(f"{id} {slug}: ID or slug is taken")
    _REGISTRY[id] = Cause(
        id=id,
        slug=slug,
        area=area,
        title=title,
        looks=looks,
        silent=silent,
        repair=repair,
        reference=reference,
        settles=settles,
        elsewhere=elsewhere,
    )


def all_causes() -> list[Cause]:
    """Every cause, by number."""
    import ris_diag.causes  # noqa: F401  # registers on import

    return sorted(_REGISTRY.values(), key=lambda entry: entry.id)
