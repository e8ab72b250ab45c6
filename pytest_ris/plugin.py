"""Hooks and fixtures. Nothing heavy is imported unless a test or an option asks for a check."""

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ris import devices
from pytest_ris.cases import MARK, parametrize
from pytest_ris.errors import plain_failures, usage_errors
from pytest_ris.options import add_options
from pytest_ris.records import PROPERTY
from pytest_ris.session import KEY, RisSession, Run
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
    config.addinivalue_line("markers", devices.MARKER)
    config.addinivalue_line("markers", f"{MARK}(cases): set by parametrize_with_checks")
    ris = config.stash[KEY] = RisSession(config)
    ris.validate()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(ris), "ris-collector")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a check, marked with its family, where `ris_check` is asked for, and a device."""
    ris = metafunc.config.stash[KEY]
    if metafunc.definition.get_closest_marker(MARK):
        try:
            parametrize(metafunc, ris)
        except pytest.UsageError as error:
            ris.refusals.append(str(error))
        return
    if devices.CHECK in metafunc.fixturenames:
        params = [
            pytest.param(
                check.id, id=f"{check.id}-{check.slug}", marks=getattr(pytest.mark, check.family)
            )
            for check in ris.checks()
        ]
        metafunc.parametrize(devices.CHECK, params, indirect=True, scope="session")
    devices.parametrize_devices(metafunc, ris.asked)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests for CUDA where nobody asked for it."""
    if config.stash[KEY].devices == ["cpu"]:
        devices.skip_for_cuda(items)


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
def ris_device(request: pytest.FixtureRequest) -> str:
    """Name of the torch device to run on, "cpu", "cuda:0": a test runs once on each asked for.

    Under xdist, --gpu gives each worker a GPU of its own, as far as there are enough.
    """
    ris = request.config.stash[KEY]
    return ris.place_of(getattr(request, "param", ris.devices[0]))


@pytest.fixture
def ris_runner(pytestconfig: pytest.Config, ris_case: "Case", ris_device: str) -> "Runner":
    """The runner of the case, that of --ris-case if it was given.

    Checks of a case that share a measurement share its runner.
    """
    ris = pytestconfig.stash[KEY]
    with plain_failures():
        case = ris.case_by_target() if pytestconfig.option.ris_case else ris_case
        return ris.runner(case, ris_device)


@pytest.fixture
def ris_run(request: pytest.FixtureRequest, ris_runner: "Runner", ris_device: str) -> Run:
    """Function that runs a check by ID or slug: returns its result, fails or skips the test."""
    ris = request.config.stash[KEY]
    asked = getattr(request.node, "callspec", None)
    device = asked.params.get("ris_device", ris_device) if asked else ris_device

    def run(check: str) -> Any:
        return ris.run(check, lambda: ris_runner, device)

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
        """Keep the results that a test recorded; count the tests for CUDA that didn't run."""
        self.ris.skipped_for_cuda += devices.skipped_for_cuda(report)
        if report.when == "teardown":  # holds what setup and call recorded
            recorded = (value for key, value in report.user_properties if key == PROPERTY)
            self.ris.records += [value for value in recorded if isinstance(value, dict)]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the section of the checks, if there is anything to say."""
        if self.ris.records or self.ris.skipped_for_cuda:
            from pytest_ris.terminal import write_summary

            write_summary(terminalreporter, self.ris.records, self.ris.skipped_for_cuda)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Refuse the run if a worker of xdist found that its checks have no case."""
        refusal = getattr(node, "workeroutput", {}).get(REFUSAL)
        if refusal is not None:
            raise pytest.UsageError(refusal)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> Generator[None]:
        """Write the files asked for, after the summary: an error must not hide it."""
        yield
        self.ris.leave()
        complete = exitstatus != pytest.ExitCode.INTERRUPTED
        self.ris.write_json(complete)
        self.ris.write_page(complete)
