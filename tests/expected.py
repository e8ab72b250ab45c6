"""What the tests expect of the registry, so that a new check changes none of them."""

from ris_diag.check import all_checks, select_checks
from ris_diag.families import FAMILIES

IDS = [check.id for check in all_checks()]
COUNT = len(IDS)
FAMILY_NAMES = ", ".join(family.name for family in FAMILIES)


def letters(*families: str) -> str:
    """The first letters of the IDs of families, one a check: "GGG"."""
    return "".join(check.id[0] for name in families for check in select_checks(name))


def behind(family: str) -> int:
    """Number of checks in the families behind one."""
    names = [f.name for f in FAMILIES]
    return sum(len(select_checks(name)) for name in names[names.index(family) + 1 :])
