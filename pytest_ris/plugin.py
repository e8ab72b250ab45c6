"""Hooks and fixtures. Nothing heavy is imported unless a test or an option asks for a check."""

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ris.cases import MARK, parametrize
from pytest_ris.options import add_options
from pytest_ris.session import (
    KEY,
    PROPERTY,
    RisSession,
    Run,
    plain_failures,
    usage_errors,
)
from ris_diag.families import FAMILIES

if TYPE_CHECKING:
    from ris_diag.case import Case
    from ris_diag.runner import Runner

REFUSAL = "ris_refusal"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Serve --ris-list and --ris-explain."""
    if not (config.option.ris_list or config.option.ris_explain):
        return None
    from ris_diag.check import all_checks
    from ris_diag.render import explained, listing_text

    with usage_errors():
        if config.option.ris_list:
            text = listing_text(all_checks())
        else:
            text = explained(config.option.ris_explain)
    sys.stdout.write(text + "\n")
    return 0


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, refuse wrong options."""
    for family in FAMILIES:
        config.addinivalue_line("markers", f"{family.name}: {family.text}")
    config.addinivalue_line("markers", f"{MARK}(cases): set by parametrize_with_checks")
    ris = config.stash[KEY] = RisSession(config)
    ris.validate()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(ris), "ris-collector")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a check, marked with its family, for every test that asks for `ris_check`."""
    ris = metafunc.config.stash[KEY]
    try:
        parametrize(metafunc, ris)
    except pytest.UsageError as error:
        ris.refusals.append(str(error))
    if "ris_check" not in metafunc.fixturenames:
        return
    params = [
        pytest.param(
            check.id, id=f"{check.id}-{check.slug}", marks=getattr(pytest.mark, check.family)
        )
        for check in ris.checks()
    ]
    metafunc.parametrize("ris_check", params, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a run whose checks have no case or an unfit one, before the first test."""
    config = session.config
    ris = config.stash[KEY]
    try:
        if ris.refusals:
            raise pytest.UsageError("\n".join(ris.refusals))
        if not config.option.collectonly and any(_needs_target(item) for item in session.items):
            with usage_errors():
                ris.case_by_target()
    except pytest.UsageError as error:
        if not hasattr(config, "workeroutput"):
            raise
        # A worker of xdist can't refuse a run: it tells the controller, which does.
        config.workeroutput[REFUSAL] = str(error)
        session.items.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember whose results come next."""
    item.config.stash[KEY].item = item


def _needs_target(item: pytest.Item) -> bool:
    """Whether a test asks for the case and no conftest.py names one."""
    if "ris_case" not in getattr(item, "fixturenames", ()):
        return False
    definitions = item.session._fixturemanager.getfixturedefs("ris_case", item) or ()
    return any(definition.func.__module__ == __name__ for definition in definitions[-1:])


@pytest.fixture(scope="session")
def ris_case(pytestconfig: pytest.Config) -> "Case":
    """The training under test. Override it in conftest.py to name your own."""
    with plain_failures():
        return pytestconfig.stash[KEY].case_by_target()


@pytest.fixture(scope="session")
def ris_device(pytestconfig: pytest.Config) -> str:
    """Name of the torch device that the checks run on: "cpu", or "cuda" with --gpu."""
    return pytestconfig.stash[KEY].device


@pytest.fixture
def ris_runner(pytestconfig: pytest.Config, ris_case: "Case") -> "Runner":
    """The runner of the case, that of --ris-case if it was given.

    Checks of a case that share a measurement share its runner.
    """
    ris = pytestconfig.stash[KEY]
    with plain_failures():
        return ris.runner(ris.case_by_target() if pytestconfig.option.ris_case else ris_case)


@pytest.fixture
def ris_run(pytestconfig: pytest.Config, ris_runner: "Runner") -> Run:
    """Function that runs a check by ID or slug: returns its result, fails or skips the test."""

    def run(check: str) -> Any:
        return pytestconfig.stash[KEY].run(check, lambda: ris_runner)

    return run


@pytest.fixture(scope="session")
def ris_check(request: pytest.FixtureRequest) -> str:
    """ID of a check: a test that takes it runs once for every selected check."""
    check_id: str = request.param
    return check_id


class Collector:
    """Gathers results in the process that reports, from itself or from xdist workers."""

    def __init__(self, ris: RisSession) -> None:
        self.ris = ris

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the results that a test recorded."""
        if report.when == "teardown":  # holds what setup and call recorded
            recorded = (value for key, value in report.user_properties if key == PROPERTY)
            self.ris.records += [value for value in recorded if isinstance(value, dict)]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the section of the checks, if any ran."""
        if self.ris.records:
            from pytest_ris.terminal import write_summary

            write_summary(terminalreporter, self.ris.results_by_case())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Refuse the run if a worker of xdist found that its checks have no case."""
        refusal = getattr(node, "workeroutput", {}).get(REFUSAL)
        if refusal is not None:
            raise pytest.UsageError(refusal)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> Generator[None]:
        """Write the file of --ris-json, after the summary: an error must not hide it."""
        yield
        self.ris.leave()
        self.ris.write_json(complete=exitstatus != pytest.ExitCode.INTERRUPTED)
