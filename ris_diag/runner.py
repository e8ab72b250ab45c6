"""The one runner: pytest, the command line, the gate and a notebook all call it."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from ris_diag.case import Case, unlocking
from ris_diag.check import Check, get_check, select_checks
from ris_diag.context import Context, Subject
from ris_diag.cuda import OnCard, usable_device
from ris_diag.errors import CaseError, MissingSplitError, NotCoveredError, nearest
from ris_diag.exemptions import exemptions
from ris_diag.places import place_of
from ris_diag.progress import ProgressFactory, silent
from ris_diag.result import Card, Finding, Report, Result, Status
from ris_diag.versions import versions

if TYPE_CHECKING:
    from ris_diag.ranks import Ranks


class Runner:
    """Runs checks on one case; a check that others build on runs once.

    Attributes:
        doing: the check that runs, or ran last; "" before the first.
    """

    def __init__(
        self,
        case: Case,
        *,
        device: str = "cpu",
        seed: int = 0,
        target: str | None = None,
        command: str | None = None,
        progress: ProgressFactory = silent,
        ranks: "Ranks | None" = None,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            device: a torch device, "cpu", "cuda", "cuda:1".
            seed: every random choice of the checks derives from it.
            target: `pkg.mod:factory` of the case, for the line that repeats a check.
            command: that runs the checks on this case, where it has no target.
            progress: how the longer checks show that they are at work.
            ranks: all processes that run the same checks on the same case, in the same order; each
                gets the same results.

        Raises:
            CaseError: `case` is no `Case`, or names a check or threshold that doesn't exist.
            DeviceError: the device isn't there.
        """
        if not isinstance(case, Case):
            raise CaseError(f"expected a ris_diag.Case, not {type(case).__name__}: {case!r:.80}")
        _refuse_unknown_names(case)
        self._exempt = exemptions(case)
        program = "ris-diag"
        if ranks is not None:
            program = f"torchrun --nproc-per-node={ranks.size} -m ris_diag"
        self.command = command or (target and f"{program} check --case {target}")
        self.device = device
        self.subject = Subject(case, usable_device(device), seed, progress, ranks)
        cuda = self.subject.device.type == "cuda"
        self._card = OnCard(self.subject.device) if cuda else None
        self.doing = ""
        self._results: dict[str, Result] = {}
        self._shared: dict[str, Result] = {}

    def run_check(self, name: str) -> Result:
        """Result of one check, by ID or slug; that of all ranks where there are several.

        Raises:
            UnknownCheckError: no such check.
        """
        check, ranks = get_check(name), self.subject.ranks
        self.doing = check.name
        if ranks is None:
            return self._own_result(check.id)
        if check.id not in self._shared:
            from ris_diag.shared import shared_result

            ranks.doing = self.doing
            self._shared[check.id] = shared_result(ranks, self._own_result(check.id))
        return self._shared[check.id]

    def _own_result(self, name: str) -> Result:
        """That of this process."""
        check = get_check(name)
        if check.id not in self._results:
            self._results[check.id] = self._run(check)
        return self._results[check.id]

    def run(
        self, checks: Iterable[Check], on_result: Callable[[Result], None] | None = None
    ) -> Report:
        """Run checks in order, whatever the earlier ones found."""
        checks, results = list(checks), []
        families = {check.family for check in checks}
        name = families.pop() if len(families) == 1 else "checks"
        with self.subject.progress(name, len(checks)) as advance:
            for check in checks:
                advance(check.name, step=0)
                results.append(self.run_check(check.id))
                if on_result is not None:
                    on_result(results[-1])
                advance(check.name)
        return self.report(results)

    def report(self, results: list[Result]) -> Report:
        """Results with what they were measured on."""
        return Report(
            case=self.subject.case.name,
            device=self.device,
            seed=self.subject.seed,
            versions=versions(),
            results=results,
            cards=self.cards,
        )

    @property
    def cards(self) -> list[Card]:
        """The GPU that the checks run on, with the peak so far; none on the CPU."""
        return [self._card.card] if self._card else []

    @contextmanager
    def _on_device(self, context: Context) -> Iterator[None]:
        """A GPU is the current device, and repeats itself; what doesn't is said."""
        if self._card is None:
            yield
            return
        with self._card.at_work() as unsettled:
            try:
                yield
            finally:
                for line in unsettled:
                    context.say(line)

    def _run(self, check: Check) -> Result:
        case = self.subject.case
        if check.id in self._exempt:
            reason = self._exempt[check.id]
            return self._result(check, "skip", cause=f"exempt: {reason}", exempt=reason)
        missing = [part for part in check.needs if not self._offers(part)]
        if missing:
            parts = ", ".join(unlocking(part) for part in missing)
            # Who says nothing of several processes trains in one.
            exempt = "trains in one process" if "distributed" in missing else ""
            cause = f"does not apply: needs {parts}"
            return self._result(check, "skip", cause=cause, exempt=exempt)
        if check.cuda and self.subject.device.type != "cuda":
            return self._result(check, "skip", cause=check.needs_gpu)
        if check.missing_extra:
            extra = f"pip install 'ris-diag[{check.extra}]'"
            return self._result(check, "skip", cause=f"did not run: needs {extra}")
        context = Context(check, self.subject, self._own_result)
        start = time.perf_counter()
        try:
            with (
                self._world(check),
                self._on_device(context),
                self.subject.seeded(check.id),
                _restored(case),
            ):
                check.function(context)
        except MissingSplitError as error:
            return self._result(check, "skip", cause=f"does not apply: {error}")
        except NotCoveredError as error:
            text = f"not covered: {error}"
            return self._result(check, "skip", context, cause=text, exempt=text)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever the code under test raises
            status: Status = "error"
            findings = [
                Finding(
                    sign=_sign_of(error),
                    cause=f"{type(error).__name__}: {error}",
                    place=place_of(error),
                    next_step="mend what the message names, then run this check again",
                )
            ]
        else:
            status = "fail" if context.findings else "pass"
            findings = context.findings
        return self._expected(
            self._result(
                check,
                status,
                context,
                cause="; ".join(finding["cause"] for finding in findings),
                place=", ".join(dict.fromkeys(finding["place"] for finding in findings)),
                next_step="; ".join(dict.fromkeys(finding["next_step"] for finding in findings)),
                findings=findings,
                seconds=time.perf_counter() - start,
            )
        )

    def _offers(self, part: str) -> bool:
        """Whether a part is there, or the ranks are."""
        return self.subject.case.offers(part) or (
            part == "ranks" and self.subject.ranks is not None
        )

    def _world(self, check: Check) -> AbstractContextManager[None]:
        """What doesn't ask for the ranks sees a world of one process, as without them."""
        ranks = self.subject.ranks
        return nullcontext() if ranks is None or "ranks" in check.needs else ranks.alone()

    def _expected(self, result: Result) -> Result:
        """The result in the light of the failures that the case declares."""
        reason = self.subject.case.expected_failures.get(result.id)
        if reason is None:
            return result
        if result.status == "pass":
            return replace(
                result,
                status="fail",
                cause=f"passes, but the case expects it to fail ({reason})",
                place=f"Case.expected_failures[{result.id!r}]",
                next_step="remove the entry: the failure is mended",
            )
        return replace(result, status="skip", expected=reason)

    def _result(
        self,
        check: Check,
        status: Status,
        context: Context | None = None,
        *,
        cause: str = "",
        place: str = "",
        next_step: str = "",
        findings: list[Finding] | None = None,
        seconds: float = 0.0,
        exempt: str = "",
    ) -> Result:
        return Result(
            id=check.id,
            slug=check.slug,
            family=check.family,
            title=check.title,
            status=status,
            measurements=context.measurements if context else {},
            lines=context.lines if context else [],
            cause=cause,
            place=place,
            next_step=next_step,
            findings=findings or [],
            reproduce=self._reproduce(check) if status in ("fail", "error") else "",
            seconds=seconds,
            exempt=exempt,
        )

    def _reproduce(self, check: Check) -> str:
        subject = self.subject
        device = f" --device {subject.device}" if subject.device.type != "cpu" else ""
        if self.command:
            return f"{self.command} --select {check.id} --seed {subject.seed}{device}"
        return (
            f"ris_diag.run(case, select={check.id!r}, device={str(subject.device)!r}, "
            f"seed={subject.seed})"
        )


def run(
    case: Case,
    select: str | Iterable[str] | None = None,
    device: str = "cpu",
    seed: int = 0,
    *,
    ignore: str | Iterable[str] | None = None,
) -> Report:
    """Run checks on a case.

    Args:
        case: the training under test.
        select, ignore: IDs, prefixes of IDs, slugs or families; None selects all.
        device: a torch device, "cpu", "cuda", "cuda:1".
        seed: every random choice of the checks derives from it.

    Raises:
        CaseError: `case` is no `Case`, or names a check or threshold that doesn't exist.
        UnknownCheckError: an entry of `select` or `ignore` matches no check.
        DeviceError: the device isn't there.
    """
    return Runner(case, device=device, seed=seed).run(select_checks(select, ignore))


def _sign_of(error: BaseException) -> str:
    """The sign of what was raised: a loss without gradient is known by its words."""
    if re.search(r"requires? no grad|does not require grad", str(error).replace("(s)", "")):
        return "loss-without-gradient"
    return str(getattr(error, "sign", "raises"))


@contextmanager
def _restored(case: Case) -> Iterator[None]:
    try:
        yield
    finally:
        if case.restore is not None:
            case.restore()


def _refuse_unknown_names(case: Case) -> None:
    checks = {check.id: check for check in select_checks()}
    names = {f"{check.id}.{t.name}" for check in checks.values() for t in check.thresholds}
    problems = []
    for part, known, form in (
        ("expected_failures", [*checks], "the ID of a check"),
        ("thresholds", sorted(names), "ID.name, as in 'L001.min_drop'"),
    ):
        for key in getattr(case, part):
            if key not in known:
                meant = nearest(key, known)
                told = f" ({meant})" if meant else ""
                problems.append(f"{part}[{key!r}] names nothing that exists{told}; expected {form}")
    if problems:
        raise CaseError(f"case {case.name!r}: " + "; ".join(problems))
