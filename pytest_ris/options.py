"""The options, each declared once with its ini twin."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest


@dataclass(frozen=True, kw_only=True)
class Option:
    """A command-line option and the ini key of the same meaning."""

    flag: str
    ini: str
    kind: Literal["text", "number", "list", "switch"]
    help: str
    metavar: str = ""


OPTIONS = (
    Option(
        flag="--ris-case",
        ini="ris_case",
        kind="text",
        metavar="PKG.MOD:FACTORY|FILE.py",
        help="the training under test: a case, or a script as it stands, train.py or pkg.mod:main "
        "(default: the ris_case fixture, then [tool.ris-diag] case in pyproject.toml)",
    ),
    Option(
        flag="--ris-device",
        ini="ris_device",
        kind="list",
        metavar="DEVICE,...",
        help="run the checks on these: cpu, cuda, cuda:1; on each where there are several "
        "(default: cpu)",
    ),
    Option(
        flag="--gpu",
        ini="ris_gpu",
        kind="switch",
        help="short for --ris-device cuda; tests marked `cuda` run",
    ),
    Option(
        flag="--ris-select",
        ini="ris_select",
        kind="list",
        metavar="ID,...",
        help="only these checks: IDs, prefixes of IDs, slugs or families",
    ),
    Option(
        flag="--ris-ignore",
        ini="ris_ignore",
        kind="list",
        metavar="ID,...",
        help="not these checks",
    ),
    Option(
        flag="--ris-seed",
        ini="ris_seed",
        kind="number",
        metavar="N",
        help="seed of every random choice of the checks (default: 0)",
    ),
    Option(
        flag="--ris-json",
        ini="ris_json",
        kind="text",
        metavar="FILE",
        help="write the results to this file",
    ),
    Option(
        flag="--ris-html",
        ini="ris_html",
        kind="text",
        metavar="FILE",
        help="write a page with figures to this file",
    ),
)


def add_options(parser: pytest.Parser) -> None:
    """Add all options, and the two that show something instead of running tests."""
    group = parser.getgroup("ris-diag", "checks of a training")
    for option in OPTIONS:
        if option.kind == "switch":
            group.addoption(
                option.flag, dest=option.ini, action="store_true", default=None, help=option.help
            )
            parser.addini(option.ini, option.help, type="bool", default=False)
        elif option.kind == "list":
            group.addoption(
                option.flag,
                dest=option.ini,
                action="append",
                metavar=option.metavar,
                help=option.help,
            )
            parser.addini(option.ini, option.help, type="args", default=[])
        else:
            group.addoption(option.flag, dest=option.ini, metavar=option.metavar, help=option.help)
            if option.kind == "number":
                parser.addini(option.ini, option.help, type="int", default=0)
            else:
                parser.addini(option.ini, option.help, type="string", default="")
    group.addoption("--ris-list", action="store_true", help="show all checks and exit")
    group.addoption("--ris-explain", metavar="ID", help="explain a check or a cause and exit")


def value_of(config: pytest.Config, name: str) -> Any:
    """The option if it was given, else its ini twin."""
    given = config.getoption(name)
    return config.getini(name) if given is None else given


def seed_of(config: pytest.Config) -> int:
    """The seed.

    Raises:
        pytest.UsageError: not an integer.
    """
    try:
        return int(value_of(config, "ris_seed"))
    except ValueError as error:
        raise pytest.UsageError(f"--ris-seed: expected an integer ({error})") from None
