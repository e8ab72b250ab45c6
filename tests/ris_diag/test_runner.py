"""The runner: statuses, places, shared measurements, an undisturbed process."""

import logging
import random
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ris_diag
from ris_diag import Case, CaseError, Losses, Override, Runner, UnknownCheckError
from ris_diag.check import select_checks
from ris_diag.errors import DeviceError
from ris_diag.gate import READY, gate, reasons_against
from tests.expected import COUNT, behind
from tests.faults.healthy import small


def loss(model: nn.Module, batch: Tensor, progress: ris_diag.Progress) -> Tensor:
    return model(batch).square().mean()  # type: ignore[no-any-return]  # Module.__call__


def bare(**changes: object) -> Case:
    case = Case(
        name="bare",
        model=lambda: nn.Linear(2, 1),
        batch=lambda split, seed, size: torch.ones(size, 2),
        loss=loss,
    )
    return replace(case, **changes)  # type: ignore[arg-type]  # fields by name


LOOP = "Case.fit (or Case.optimizer with Case.loss or Case.step)"


def test_a_check_that_does_not_apply_names_the_part_that_unlocks_it() -> None:
    result = ris_diag.run(bare(), select="L001").results[0]
    assert (result.status, result.cause) == ("skip", f"does not apply: needs {LOOP}")


def test_all_missing_parts_are_named() -> None:
    result = ris_diag.run(bare(), select="L002")["L002"]
    parts = f"{LOOP}, Case.declared, Case.covariance.sample, Case.covariance.beta"
    assert result.cause == f"does not apply: needs {parts}"


def test_an_exception_in_the_users_code_is_an_error_with_its_place() -> None:
    def fit(model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        raise ZeroDivisionError("in my loop")

    result = ris_diag.run(bare(fit=fit), select="L009")["L009"]
    line = fit.__code__.co_firstlineno + 1
    assert result.status == "error"
    assert result.cause == "ZeroDivisionError: in my loop"
    assert result.place == f"tests/ris_diag/test_runner.py:{line}, in fit"


def test_keyboard_interrupt_is_not_swallowed() -> None:
    def fit(model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ris_diag.run(bare(fit=fit), select="L009")


def test_a_shared_measurement_that_raised_is_not_made_again() -> None:
    calls = []

    def fit(model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        calls.append(plan)
        raise ValueError("no")

    report = ris_diag.run(bare(fit=fit), select="L008,L009")
    assert [result.status for result in report.results] == ["error", "error"]
    assert len(calls) == 1


def test_declared_failure_is_let_through_and_an_unexpected_pass_is_not() -> None:
    reason = {"L009": "accumulates gradients by design", "G002": "mended long ago"}
    report = ris_diag.run(
        replace(small(), fit=lambda model, plan: [], expected_failures=reason),
        select="L009,G002",
    )
    assert report["L009"].status == "skip"
    assert report["L009"].expected == "accumulates gradients by design"
    assert report["G002"].status == "fail"
    assert "passes, but the case expects it to fail (mended long ago)" in report["G002"].cause


def test_threshold_of_the_case_replaces_the_declared_one() -> None:
    case = replace(small(), thresholds={"L001.min_drop": Override(value=0.999, reason="strict")})
    result = ris_diag.run(case, select="L001")["L001"]
    assert result.status == "fail"
    assert "limit 100%" in result.cause


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": {"L001.nothing": Override(value=1, reason="r")}}, r"L001\.nothing"),
        ({"expected_failures": {"X001": "r"}}, r"expected_failures\['X001'\]"),
    ],
)
def test_names_that_mean_nothing_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        Runner(bare(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": 3}, "model must be callable, not 3"),
        ({"name": ""}, "name must be a text that isn't empty"),
        ({"expected_failures": {"L001": " "}}, r"expected_failures\['L001'\] needs a reason"),
        ({"thresholds": {"L001.min_drop": 0.1}}, "needs an Override with a reason"),
    ],
)
def test_bad_parts_are_refused_when_the_case_is_made(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(CaseError, match=message):
        bare(**changes)


def test_something_else_than_a_case_is_refused() -> None:
    with pytest.raises(CaseError, match=r"expected a ris_diag\.Case, not dict"):
        ris_diag.run({})  # type: ignore[arg-type]  # the mistake under test


@pytest.mark.parametrize("select", ["X", "L001,X9", "unknown-slug"])
def test_unknown_check_is_refused_with_what_there_is(select: str) -> None:
    with pytest.raises(UnknownCheckError, match=r"unknown check .*`ris-diag list` shows all"):
        ris_diag.run(bare(), select=select)


@pytest.mark.parametrize(
    ("select", "ignore", "ids"),
    [
        ("G00", "G002,G003", [f"G00{n}" for n in (1, 4, 5, 6, 7, 8, 9)]),
        ("litmus", "L01,L02,L03,L04,L05,L06,L07", [f"L00{n}" for n in range(1, 10)]),
        (["beta-walk", "O"], None, ["L002", "O001", "O002", "O003", "O004"]),
    ],
)
def test_selection_by_prefix_family_and_slug(
    select: str, ignore: str | None, ids: list[str]
) -> None:
    assert [check.id for check in select_checks(select, ignore)] == ids


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:99", ""])
def test_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{device}'"):
        ris_diag.run(bare(), device=device)


def test_random_states_logging_and_gradients_are_left_alone() -> None:
    root = logging.getLogger()
    states: list[Callable[[], object]] = [
        random.getstate,
        lambda: np.random.get_state()[1].tolist(),  # type: ignore[index]
        lambda: torch.get_rng_state().tolist(),
        lambda: (root.level, list(root.handlers), root.manager.disable),
        torch.is_grad_enabled,
        lambda: torch.autograd.backward,
    ]
    before = [state() for state in states]
    assert ris_diag.run(small(), select="guard,litmus").ok
    assert [state() for state in states] == before


def test_results_do_not_depend_on_what_ran_before() -> None:
    alone = ris_diag.run(small(), select="L008")["L008"].measurements
    after_others = ris_diag.run(small(), select="guard,litmus")["L008"].measurements
    assert alone == after_others


def test_dict_batches_are_moved_and_passed_on() -> None:
    case = bare(
        batch=lambda split, seed, size: {"x": (torch.ones(size, 2), [torch.zeros(1)]), "n": size},
        loss=lambda model, batch, progress: Losses(total=model(batch["x"][0]).mean()),
        declared=ris_diag.Declared(weights={}),
    )
    assert ris_diag.run(case, select="G001")["G001"].status == "pass"


def test_gate_stops_behind_the_first_family_that_is_not_green() -> None:
    case = replace(small(), expected_failures={"G002": "known, they say"})
    verdict = gate(Runner(case))
    assert not verdict.ready
    assert {result.family for result in verdict.report.results} == {"guard"}
    assert verdict.text == f"NOT READY: G002 not passed; {behind('guard')} checks did not run"


def test_gate_tells_what_does_not_apply_from_what_fails() -> None:
    verdict = gate(Runner(bare(batch=None)))
    assert not verdict.ready
    assert {result.status for result in verdict.report.results} == {"skip"}
    meant = sum(not result.exempt for result in verdict.report.results)
    assert meant == COUNT - len([check for check in select_checks() if "ranks" in check.needs])
    assert verdict.text == (
        f"NOT READY: {meant} checks do not apply to this case, which lacks parts they need"
    )


def test_nobody_can_declare_the_verdict_away() -> None:
    reason = {"O003": "we know"}
    runner = Runner(replace(bare(), expected_failures=reason))
    known = replace(runner.run_check("O003"), status="skip", expected="we know")
    assert reasons_against([known])[0] == "O003 not passed"


@pytest.mark.parametrize("code", [0, 3, "fatal"])
def test_a_loop_that_exits_is_an_error_and_no_success(code: object) -> None:
    def fit(model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        raise SystemExit(code)

    report = ris_diag.run(bare(fit=fit), select="L008,L009")
    assert [result.status for result in report.results] == ["error", "error"]
    assert report["L009"].cause == f"SystemExit: {code}"


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (1.5, "gave 1.5"),
        (None, "gave None"),
        (torch.ones(3), r"gave a tensor \[3\]"),
        ({"total": 1}, r"gave \{'total': 1\}"),
    ],
)
def test_a_loss_that_is_none_is_named(value: object, given: str) -> None:
    case = bare(
        loss=lambda model, batch, progress: value, declared=ris_diag.Declared(weights={"a": 1.0})
    )
    cause = ris_diag.run(case, select="G001")["G001"].cause
    assert re.search(rf"Case\.loss \(tests/ris_diag/test_runner\.py:\d+\) {given}", cause)
    assert cause.endswith("expected a real scalar tensor, or ris_diag.Losses with one")


def looped(loss: Callable[[nn.Module, Tensor], Tensor], history: object = ()) -> Case:
    def fit(model: nn.Module, plan: ris_diag.Plan) -> object:
        for batch in plan.train:
            plan.on_step(1, loss(model, batch))
        return history

    return bare(fit=fit)


def frozen(model: nn.Module, batch: Tensor) -> Tensor:
    return model.requires_grad_(False)(batch).mean()  # type: ignore[no-any-return]  # Module.__call__


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (looped(lambda model, batch: model(batch).mean().detach()), "the graph is cut between"),
        (looped(frozen), "all 2 parameters are frozen"),
        (
            replace(looped(lambda model, batch: batch.mean()), model=nn.Identity),
            "the model has no parameters",
        ),
    ],
    ids=["cut", "frozen", "none"],
)
def test_a_loss_without_gradient_says_which_of_three_causes(case: Case, reason: str) -> None:
    result = ris_diag.run(case, select="L009")["L009"]
    assert result.status == "error"
    assert "requires no gradient: " + reason in result.cause


@pytest.mark.parametrize("history", [None, [0.5, 0.4], 3])
def test_a_loop_that_returns_no_epochs_is_told_so(history: object) -> None:
    case = looped(lambda model, batch: model(batch).mean(), history)
    cause = ris_diag.run(case, select="L009")["L009"].cause
    assert f"returned {history!r}: expected a list of ris_diag.Epoch(train=...)" in cause


@pytest.mark.slow
def test_gate_opens_for_the_reference_learner() -> None:
    verdict = gate(Runner(small()))
    assert verdict.ready
    assert verdict.text == READY


def test_an_exempt_check_lets_the_gate_open_though_its_parts_are_missing() -> None:
    case = bare(exempt={"O004": "no metric"})
    result = ris_diag.run(case, select="O004")["O004"]
    assert (result.status, result.exempt) == ("skip", "no metric")
    assert "O004" not in gate(Runner(case)).text


def test_nobody_can_exempt_the_verdict_itself() -> None:
    runner = Runner(bare(batch=None, exempt={"O003": "we know better"}))
    assert "O003 not passed" in gate(runner).text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"exempt": {"M008": " "}}, r"exempt\['M008'\] needs a reason"),
        (
            {"exempt": {"M008": "r"}, "expected_failures": {"M008": "r"}},
            "'M008' is in expected_failures and in exempt",
        ),
    ],
)
def test_wrong_exemptions_are_refused(wrong: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        bare(**wrong)


def test_an_exempt_check_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CaseError, match=r"exempt\['X001'\] names nothing that exists"):
        ris_diag.run(bare(exempt={"X001": "reason"}))
