"""The declaration of a check, and the registry that every face reads."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ris_diag.errors import UnknownCheckError, nearest
from ris_diag.families import FAMILIES

if TYPE_CHECKING:
    from ris_diag.context import Context

ANY_CHECK = ("raises", "no-steps", "loss-without-gradient")  # signs that every check may find
CheckFunction = Callable[["Context"], None]
# An extra of this project to the module that it installs.
EXTRAS = {"laws": "hypothesis"}


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A limit: its unit and why it stands where it stands."""

    name: str
    value: float
    unit: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check, declared once.

    Attributes:
        id: letter of the family and three digits; never reused.
        slug: the readable name.
        title: one line.
        what: what it does. why: what goes wrong unseen without it.
        sources: rows of the documented checks (S1 to S13) or other references.
        needs: parts of the case without which it doesn't apply.
        thresholds: its limits.
        signs: names of what it can find, to which causes refer; its slug where it is one thing.
        requires: IDs of checks whose results it builds on.
        extra: of this project, without which it can't run; a key of `EXTRAS`.
        cuda: what it does that takes CUDA; "" if it runs on any device.
    """

    id: str
    slug: str
    title: str
    what: str
    why: str
    sources: tuple[str, ...]
    function: CheckFunction
    needs: tuple[str, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    signs: tuple[str, ...]
    requires: tuple[str, ...] = ()
    extra: str | None = None
    cuda: str = ""

    @property
    def name(self) -> str:
        """ID and slug, `L001 one-batch-learns`."""
        return f"{self.id} {self.slug}"

    @property
    def family(self) -> str:
        """Name of the family."""
        return next(f.name for f in FAMILIES if f.letter == self.id[0])

    @property
    def missing_extra(self) -> bool:
        """Whether the extra that it needs isn't installed."""
        return self.extra is not None and find_spec(EXTRAS[self.extra]) is None

    @property
    def needs_gpu(self) -> str:
        """Why it doesn't run without CUDA, for the reader; "" if it does."""
        return f"{self.cuda}: needs --gpu" if self.cuda else ""


_REGISTRY: dict[str, Check] = {}


def check(
    id: str,  # noqa: A002  # the word that users write
    slug: str,
    *,
    title: str,
    what: str,
    why: str,
    sources: tuple[str, ...],
    needs: tuple[str, ...] = (),
    thresholds: tuple[Threshold, ...] = (),
    signs: tuple[str, ...] = (),
    requires: tuple[str, ...] = (),
    extra: str | None = None,
    cuda: str = "",
) -> Callable[[CheckFunction], CheckFunction]:
    """Register the decorated function `(Context) -> None` as a check.

    Raises:
        ValueError: ID or slug is taken, or the ID belongs to no family.
    """

    def register(function: CheckFunction) -> CheckFunction:
        entry = Check(
            id=id,
            slug=slug,
            title=title,
            what=what,
            why=why,
            sources=sources,
            function=function,
            needs=needs,
            thresholds=thresholds,
            signs=signs or (slug,),
            requires=requires,
            extra=extra,
            cuda=cuda,
        )
        letters = {family.letter for family in FAMILIES}
        if len(id) != 4 or id[0] not in letters or not id[1:].isdigit():
            raise ValueError(f"{id!r}: expected one letter of {sorted(letters)} and three digits")
        if id in _REGISTRY or slug in {other.slug for other in _REGISTRY.values()}:
            raise ValueError(f"{id} {slug}: ID or slug is taken")
        _REGISTRY[id] = entry
        return function

    return register


def all_checks() -> list[Check]:
    """Every check, by family and number."""
    import ris_diag.checks  # noqa: F401  # registers on import

    order = [family.letter for family in FAMILIES]
    return sorted(_REGISTRY.values(), key=lambda c: (order.index(c.id[0]), c.id))


def get_check(name: str) -> Check:
    """The check of an ID or slug.

    Raises:
        UnknownCheckError: there is none.
    """
    import ris_diag.checks  # noqa: F401  # registers on import

    if name in _REGISTRY:
        return _REGISTRY[name]
    for entry in _REGISTRY.values():
        if name == entry.slug:
            return entry
    raise _unknown(name)


def select_checks(
    select: str | Iterable[str] | None = None, ignore: str | Iterable[str] | None = None
) -> list[Check]:
    """Checks that `select` names and `ignore` does not: by ID, prefix of IDs, slug or family.

    Raises:
        UnknownCheckError: an entry of either matches no check.
    """
    wanted = _matching(select) if select is not None else {c.id for c in all_checks()}
    unwanted = _matching(ignore) if ignore is not None else set()
    return [c for c in all_checks() if c.id in wanted - unwanted]


def named(name: str) -> list[Check]:
    """Checks that a name stands for: an ID, a prefix of IDs, a slug or a family; maybe none."""
    return [c for c in all_checks() if c.id.startswith(name) or name in (c.family, c.slug)]


def _matching(names: str | Iterable[str]) -> set[str]:
    found: set[str] = set()
    for name in split_names(names):
        matches = named(name)
        if not matches:
            raise _unknown(name)
        found |= {check.id for check in matches}
    return found


def split_names(names: str | Iterable[str]) -> Sequence[str]:
    """The entries of "G001,L" or of an iterable of such."""
    parts = [names] if isinstance(names, str) else names
    return [name.strip() for part in parts for name in part.split(",") if name.strip()]


def _unknown(name: str) -> UnknownCheckError:
    families = [family.name for family in FAMILIES]
    meant = nearest(name, [*families, *(n for c in all_checks() for n in (c.id, c.slug))])
    return UnknownCheckError(
        f"unknown check {name!r}: expected an ID, a prefix of IDs, a slug or a family "
        f"({', '.join(families)}); {f'{meant} ' * bool(meant)}`ris-diag list` shows all"
    )
