"""The case, the runners and the results of one pytest session."""

import shlex
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ris.devices import asked_devices, resolved
from pytest_ris.errors import plain_failures, usage_errors
from pytest_ris.options import seed_of, value_of
from pytest_ris.records import PROPERTY, Record, content, recorded, reports
from ris_diag.launch import several_processes, speaks_another

if TYPE_CHECKING:
    from ris_diag.case import Case
    from ris_diag.check import Check
    from ris_diag.ranks import Ranks
    from ris_diag.result import Result
    from ris_diag.runner import Runner


class RisSession:
    """State of the plugin; lives in the config's stash."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.records: list[Record] = []
        self.skipped_for_cuda = 0
        self.refusals: list[str] = []
        self.item: pytest.Item | None = None
        self.asked: list[str] = []
        self._numbered: dict[str, str] = {}
        self._runners: dict[tuple[int, str], Runner] = {}
        self._loaded: Case | None = None
        self._made: dict[Callable[[], Case], Case] = {}
        self._ranks: list[Ranks | None] = []
        self._open = ExitStack()

    def validate(self) -> None:
        """Refuse wrong options at once; costs nothing where none was given.

        Raises:
            pytest.UsageError: wrong devices, no CUDA where it was asked for, workers beside
                torchrun, unknown check, none left, bad seed, bad target, no folder for --ris-json,
                or for --ris-html, or no extra for it.
        """
        self.asked = asked_devices(self.config)
        if self.asked:
            self._numbered = resolved(self.config, self.asked)
        seed_of(self.config)
        if several_processes() and getattr(self.config.option, "numprocesses", None):
            raise pytest.UsageError("-n: torchrun has started the processes already")
        path = value_of(self.config, "ris_json")
        if path and (not Path(path).parent.is_dir() or Path(path).is_dir()):
            raise pytest.UsageError(f"--ris-json {path}: expected a file in a folder that exists")
        html = value_of(self.config, "ris_html")
        with usage_errors():
            if html:
                from ris_diag.report import require_report

                require_report("--ris-html", html)
            selected = value_of(self.config, "ris_select") or value_of(self.config, "ris_ignore")
            if selected and not self.checks():
                raise pytest.UsageError("--ris-select and --ris-ignore leave no check")
            if self.config.getoption("ris_case"):
                self.case_by_target()

    @property
    def devices(self) -> list[str]:
        """Those that were asked for, else the CPU."""
        return self.asked or ["cpu"]

    def place_of(self, device: str) -> str:
        """The device with its number: that of the GPU which this process takes."""
        return self._numbered.get(device, device)

    def ranks(self) -> "Ranks | None":
        """The processes that torchrun started, of which this is one; joined at the first call."""
        if not self._ranks and several_processes():
            from ris_diag.ranks import launched_ranks

            self._ranks.append(self._open.enter_context(launched_ranks()))
        return self._ranks[0] if self._ranks else None

    def leave(self) -> None:
        """Leave the other processes."""
        self._open.close()

    def checks(self) -> list["Check"]:
        """The selected checks."""
        from ris_diag.check import select_checks

        return select_checks(
            value_of(self.config, "ris_select") or None,
            value_of(self.config, "ris_ignore") or None,
        )

    @property
    def target(self) -> str | None:
        """The target of option, ini or pyproject.toml, in this order."""
        from ris_diag.target import configured_target

        return value_of(self.config, "ris_case") or configured_target(self.config.rootpath)

    def case_by_target(self) -> "Case":
        """The case of the target, loaded once.

        Raises:
            CaseError: there is no target, or it gives no case.
        """
        from pytest_ris.terminal import progress_for
        from ris_diag.errors import CaseError
        from ris_diag.target import EXAMPLE, load_case

        if self._loaded is None:
            if self.target is None:
                raise CaseError(f"no case: {EXAMPLE}")
            with progress_for(self.config)(f"loading {self.target}", None):
                self._loaded = load_case(self.target)
        return self._loaded

    def runner(self, case: "Case", device: str) -> "Runner":
        """The runner of a case on a device; checks that share a measurement share the runner.

        Args:
            device: as asked for, or with its number.
        """
        from pytest_ris.terminal import progress_for
        from ris_diag.runner import Runner

        ranks = self.ranks()
        place = self.place_of(device) if ranks is None else ranks.own_device(device)
        if (id(case), place) not in self._runners:
            self._runners[id(case), place] = Runner(
                case,
                device=place,
                seed=seed_of(self.config),
                target=self.target if case is self._loaded else None,
                progress=progress_for(self.config),
                ranks=ranks,
            )
        return self._runners[id(case), place]

    def case_of(self, given: "Case | Callable[[], Case]") -> "Case":
        """A case, or what a function gives as one; a function is called once.

        Raises:
            CaseError: neither, or the function raises.
        """
        from ris_diag.case import Case
        from ris_diag.errors import CaseError

        if isinstance(given, Case):
            return given
        if not callable(given):
            raise CaseError(
                f"expected a ris_diag.Case or a function that gives one, not "
                f"{type(given).__name__}: {given!r:.80}"
            )
        if given not in self._made:
            name = getattr(given, "__qualname__", repr(given))
            try:
                made = given()
            except CaseError:
                raise
            except (Exception, SystemExit) as error:
                raise CaseError(f"{name}() raised {type(error).__name__}: {error}") from error
            if not isinstance(made, Case):
                raise CaseError(
                    f"{name}() returned {type(made).__name__} ({made!r:.60}), not a ris_diag.Case"
                )
            self._made[given] = made
        return self._made[given]

    def run(
        self, check: str, runner_of: "Callable[[], Runner]", device: str, *, by_test: bool = False
    ) -> "Result":
        """Run a check for the test at work: records its result, fails or skips the test.

        Args:
            device: as it was asked for.
            by_test: whether running this test again runs this check again, and no other.
        """
        from ris_diag.stopping import stoppable

        with plain_failures():
            runner = runner_of()
            with stoppable([signal.SIGINT]) as stop:
                try:
                    result = runner.run_check(check)
                finally:
                    if stop.signal is not None:  # also where the training went on
                        raise KeyboardInterrupt
        if self.item is not None:
            if by_test and result.reproduce:
                result = replace(result, reproduce=self._rerun(self.item, device))
            self.item.user_properties.append((PROPERTY, recorded(runner, device, result)))
        outcome(result)
        return result

    def _rerun(self, item: pytest.Item, device: str) -> str:
        """The command that runs a test again."""
        test = shlex.quote(item.nodeid)
        on = {"cpu": "", "cuda": " --gpu"}.get(device, f" --ris-device {device}")
        return f"pytest {test} --ris-seed {seed_of(self.config)}{on}"

    def write_json(self, complete: bool) -> None:
        """Write the results to the file of --ris-json, if it was given.

        Args:
            complete: whether the run came to its end.

        Raises:
            pytest.UsageError: the file can't be written.
        """
        path = value_of(self.config, "ris_json")
        if not path or speaks_another():
            return
        from ris_diag.result import write_json

        found = content(
            self.records, devices=self.devices, seed=seed_of(self.config), complete=complete
        )
        try:
            write_json(path, found)
        except OSError as error:
            raise pytest.UsageError(f"--ris-json {path}: {error.strerror}") from error

    def write_page(self, complete: bool) -> None:
        """Write the page to the file of --ris-html, if it was given: a part for every group.

        Args:
            complete: whether the run came to its end.

        Raises:
            pytest.UsageError: the file can't be written.
        """
        path = value_of(self.config, "ris_html")
        if not path or speaks_another():
            return
        from ris_diag.report.page import write_page

        found = reports(self.records, seed=seed_of(self.config), complete=complete)
        try:
            write_page(path, found)
        except OSError as error:
            raise pytest.UsageError(f"--ris-html {path}: {error.strerror}") from error


KEY = pytest.StashKey[RisSession]()


def outcome(result: "Result") -> None:
    """Raise what pytest expects for a result that isn't a pass."""
    if result.expected:
        pytest.xfail(f"{result.expected} ({result.cause})")
    if result.status == "skip":
        pytest.skip(result.cause)
    if result.status != "pass":
        pytest.fail(result.message(), pytrace=False)


Run = Callable[[str], "Result"]
