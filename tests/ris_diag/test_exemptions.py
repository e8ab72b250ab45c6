"""Exemptions by check, prefix, family or missing part, and what a gate makes of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ris_diag
from ris_diag import Runner
from ris_diag.case import EITHER
from ris_diag.check import all_checks, select_checks
from ris_diag.errors import CaseError
from ris_diag.exemptions import advice, exemptions
from ris_diag.families import FAMILIES
from ris_diag.gate import READY, gate, reasons_against
from ris_diag.result import Result
from tests.faults.healthy import small


def exempt(entries: dict[Any, str], **parts: Any) -> dict[str, str]:
    return exemptions(ris_diag.Case(name="mine", exempt=entries, **parts))


def ids(selection: str) -> set[str]:
    return {check.id for check in select_checks(selection)}


@pytest.mark.parametrize("name", ["M008", "unitary-basis-changes-nothing", "M0", "M", "law"])
def test_an_entry_names_what_a_selection_names(name: str) -> None:
    assert exempt({name: "why"}) == dict.fromkeys(ids(name), "why")


def test_the_entry_that_names_the_fewest_counts() -> None:
    found = exempt({"M008": "one", "law": "all", "M00": "nine", "never-negative": "slug"})
    assert found == dict.fromkeys(ids("law"), "all") | dict.fromkeys(ids("M00"), "nine") | {
        "M008": "one",
        "M004": "slug",
    }


def test_a_part_that_is_missing_exempts_what_needs_it() -> None:
    needing = {
        check.id
        for check in all_checks()
        if any(need.startswith("covariance.") for need in check.needs)
    }
    assert exempt({"covariance": "none"}) == dict.fromkeys(needing, "none")
    assert set(exempt({"stored": "drawn"})) == {"D018", "D019"}
    given = ris_diag.Covariance(truth=lambda batch: batch)
    assert exempt({"covariance.snapshots": "none"}, covariance=given).keys() == {"D015", "D016"}


def test_what_applies_runs_all_the_same() -> None:
    """A part exempts what can't run, and hides nothing that can."""
    offered = {
        check.id for check in all_checks() if not any("covariance" in n for n in check.needs)
    }
    assert not offered & exempt({"covariance": "none"}).keys()


def test_a_check_that_is_expected_to_fail_runs() -> None:
    case = ris_diag.Case(name="c", exempt={"law": "all"}, expected_failures={"M003": "ticket"})
    assert "M003" not in exemptions(case)
    assert "M004" in exemptions(case)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("X001", "exempt['X001'] names nothing that exists (did you mean 'O001'?)"),
        ("memorise", "names nothing that exists (did you mean 'memorises'?)"),
        ("covarience", "names nothing that exists (did you mean 'covariance'?)"),
        ("laws", "names nothing that exists (did you mean 'law'?)"),
        ("???", "names nothing that exists; expected an ID, a slug, a prefix of IDs, a family"),
        ("", "exempt[''] names nothing that exists; "),
        (3, "exempt[3] names nothing that exists; "),
    ],
)
def test_an_entry_that_names_nothing_is_refused_shortly(name: object, said: str) -> None:
    with pytest.raises(CaseError) as error:
        exempt({name: "why"})
    assert said in str(error.value)
    assert len(str(error.value)) < 300


def test_a_part_that_the_case_has_is_no_reason() -> None:
    with pytest.raises(CaseError) as error:
        Runner(replace(small(), exempt={"covariance": "none", "stored": "none", "lwa": "typo"}))
    assert "exempt['covariance']: the case has this part, so what needs it runs" in str(error.value)
    assert "exempt['lwa'] names nothing that exists" in str(error.value)


@pytest.mark.parametrize(
    "part",
    [
        {"expected_failures": {"L01": "ticket"}},
        {"thresholds": {"L01": ris_diag.Override(value=1, reason="small")}},
    ],
    ids=lambda part: next(iter(part)),
)
def test_the_other_declarations_are_refused_shortly(part: dict[str, Any]) -> None:
    (name,) = part
    with pytest.raises(CaseError, match=rf"{name}\['L01'\] names nothing that exists") as error:
        ris_diag.run(ris_diag.Case(name="c", **part))
    assert len(str(error.value)) < 300


def test_no_part_is_called_as_a_check_is() -> None:
    parts = {need.partition(".")[0] for check in all_checks() for need in check.needs} | {*EITHER}
    assert not parts & ({c.slug for c in all_checks()} | {f.name for f in FAMILIES})
    assert not [part for part in parts if select_like(part)]


def select_like(name: str) -> list[str]:
    return [check.id for check in all_checks() if check.id.startswith(name)]


# ---- a classification


def classes(**parts: Any) -> ris_diag.Case:
    torch.manual_seed(0)
    x = torch.randn(192, 8)
    y = x[:, :3].argmax(1)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    fresh = DataLoader(TensorDataset(x[128:], y[128:]), batch_size=64)
    given: dict[str, Any] = {
        "validation": fresh,
        "metric": lambda model, batch: (model(batch[0]).argmax(1) != batch[1]).float().mean(),
        "baselines": {"always class 0": lambda batch: (batch[1] != 0).float().mean()},
        "declared": ris_diag.Declared(learning_rate=1e-2),
        "exempt": dict.fromkeys(("covariance", "distance", "stored"), "classes are predicted"),
    }
    return ris_diag.Case.from_xy(
        model,
        DataLoader(TensorDataset(x[:128], y[:128]), batch_size=16, shuffle=True),
        nn.functional.cross_entropy,
        torch.optim.AdamW(model.parameters(), lr=1e-2),
        **given | parts,
    )


@pytest.mark.usefixtures("one_thread")
def test_three_entries_open_the_gate_for_a_classification() -> None:
    verdict = gate(Runner(classes()))
    assert verdict.text == READY
    fresh = verdict.report["O004"].measurements
    assert fresh["best_baseline"] == "always class 0"
    assert fresh["gain_standard_error"] > 0  # batches of their own, not one of them eight times


def results(**changed: Any) -> list[Result]:
    """A pass of every check, O004 with a baseline; O003 exempt."""
    found = {
        c.id: Result(id=c.id, slug=c.slug, family=c.family, title=c.title, status="pass")
        for c in all_checks()
    }
    found["O003"] = replace(found["O003"], status="skip", exempt="classes")
    beaten = {"best_baseline": "zero"}
    found["O004"] = replace(found["O004"], **{"measurements": beaten, **changed})
    return [*found.values()]


def test_where_the_verdict_is_exempt_the_metric_must_beat_what_is_free() -> None:
    asked = "O003 is exempt, so O004 has to pass, with at least one entry in Case.baselines"
    assert reasons_against(results()) == []
    assert reasons_against(results(measurements={})) == ["O003 not passed", asked]
    assert reasons_against(results(status="fail")) == ["O003, O004 not passed", asked]
    assert reasons_against(results(status="skip", exempt="no metric")) == ["O003 not passed", asked]


def test_fresh_samples_are_not_those_of_the_training() -> None:
    result = ris_diag.run(classes(validation=None), select="O004")["O004"]
    cause = "does not apply: needs fresh samples, Case.from_xy(validation=...)"
    assert (result.status, result.cause) == ("skip", cause)


@pytest.mark.usefixtures("one_thread")
def test_a_closed_gate_says_which_parts_are_missing() -> None:
    case = classes(metric=None, baselines={}, exempt={"distance": "classes are predicted"})
    needing = sum("metric" in check.needs for check in all_checks())
    said = advice(case, ris_diag.run(case, select="guard,data,L05,overfit").results)
    assert said.startswith("It lacks Case.covariance (")
    assert f"Case.metric ({needing} checks)" in said
    assert "Case.stored (2 checks)" in said
    assert "distance" not in said
    assert said.endswith(
        'Case(exempt={"covariance": "reason"}) exempts all that needs a part that isn\'t there'
    )
    assert advice(case, []) == ""
