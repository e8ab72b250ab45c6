"""The ranking of causes, on made-up checks, causes and results."""

import json
import math
from dataclasses import replace

import pytest

from ris_diag import diagnosis
from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, SOMETIMES, WIDELY, Cause
from ris_diag.check import Check
from ris_diag.diagnosis import Diagnosis, diagnose, rank
from ris_diag.render import diagnosis_lines
from ris_diag.result import SCHEMA_VERSION, Finding, Report, Result, Status


def made_up(number: int, slug: str, looks: dict[str, float], **changes: object) -> Cause:
    cause = Cause(
        id=f"C90{number}",
        slug=slug,
        area="loop",
        title=f"The {slug} is broken",
        looks=looks,
        silent=f"Nobody looks at the {slug}.",
        repair=f"Mend the {slug}.",
        reference="a book",
    )
    return replace(cause, **changes)  # type: ignore[arg-type]  # fields by name


CAUSES = [
    made_up(1, "valve", {"leak": ALWAYS, "drip": SOMETIMES}),
    made_up(2, "pipe", {"flood": ALWAYS, "drip": OFTEN}, elsewhere=WIDELY),
    made_up(3, "left-pump", {"hum": MOSTLY, "left": MOSTLY}, settles="switch the left one off"),
    made_up(4, "right-pump", {"hum": MOSTLY, "right": MOSTLY}, settles="switch the right one off"),
    made_up(5, "tired", {"litmus-does-not-fall": ALWAYS}),
    made_up(6, "owner", {"raises": ALWAYS}),
]
SIGNS = {
    "L901": ("leak",),
    "L902": ("flood",),
    "L903": ("drip",),
    "L904": ("hum",),
    "L905": ("left",),
    "L906": ("right",),
    "L907": ("litmus-does-not-fall",),
    "L908": ("smell",),  # of which no cause is known
}


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_check(name: str) -> Check:
        return Check(
            id=name,
            slug=name.lower(),
            title="t",
            what="w",
            why="y",
            sources=(),
            function=lambda context: None,
            signs=SIGNS[name],
        )

    monkeypatch.setattr(diagnosis, "all_causes", lambda: CAUSES)
    monkeypatch.setattr(diagnosis, "get_check", get_check)


def finding(sign: str, place: str = "") -> Finding:
    return Finding(sign=sign, cause=f"{sign} is 3 (limit 2)", place=place, next_step="mend")


def of(check: str, status: Status, *found: Finding, expected: str = "") -> Result:
    return Result(
        id=check,
        slug=check.lower(),
        family="litmus",
        title="t",
        status=status,
        findings=list(found),
        expected=expected,
    )


def failed(*signs: str, passed: tuple[str, ...] = ()) -> list[Result]:
    """One failed result a sign, of the check that declares it, and passed ones."""
    check_of = {sign: check for check, declared in SIGNS.items() for sign in declared}
    return [
        *(of(check_of[sign], "fail", finding(sign)) for sign in signs),
        *(of(check, "pass") for check in passed),
    ]


def slugs(found: Diagnosis) -> list[str]:
    return [named.cause.slug for named in found.named]


def test_nothing_found_is_no_diagnosis() -> None:
    for results in ([], failed(passed=("L901", "L902")), [of("L901", "skip")]):
        found = diagnose(results)
        assert (found.named, found.contenders, found.unexplained) == ([], [], [])
        assert not found.settled
        assert diagnosis_lines(found) == []


@pytest.mark.parametrize(
    ("sign", "slug"), [("leak", "valve"), ("flood", "pipe"), ("left", "left-pump")]
)
def test_the_sign_that_a_cause_is_known_by_names_it_alone(sign: str, slug: str) -> None:
    found = diagnose(failed(sign))
    assert slugs(found) == [slug]
    assert found.settled
    assert found.contenders == []
    assert [e.finding["sign"] for e in found.named[0].evidence] == [sign]


def test_the_share_is_that_of_independent_signs() -> None:
    first, second = 0.2 * 0.05, 0.5 * 0.05  # neither is known by "drip"
    ranked = rank(["drip"], [])
    assert [cause.slug for cause, _ in ranked] == ["pipe", "valve"]
    assert ranked[0][1] == pytest.approx(second / (first + second))
    assert sum(share for _, share in ranked) == pytest.approx(1.0)


def test_a_cause_without_any_of_the_signs_is_not_ranked() -> None:
    assert [cause.slug for cause, _ in rank(["leak"], ["flood", "hum"])] == ["valve"]
    assert rank(["smell"], []) == []


def test_a_sign_that_is_absent_speaks_against_a_cause_if_its_check_ran() -> None:
    assert slugs(diagnose([*failed("drip"), of("L902", "skip")])) == ["pipe"]
    assert slugs(diagnose(failed("drip", passed=("L902",)))) == ["valve"]
    missing = (1 - ALWAYS) ** diagnosis.ABSENCE
    assert rank(["drip"], ["flood"])[0][1] == pytest.approx(0.2 / (0.2 + 0.5 * missing))


@pytest.mark.parametrize("status", ["skip", "error"])
def test_a_check_that_did_not_come_to_its_end_says_nothing_of_absence(status: Status) -> None:
    assert slugs(diagnose([*failed("drip"), of("L902", status)])) == ["pipe"]


def test_causes_that_look_alike_are_not_settled() -> None:
    found = diagnose(failed("hum"))
    assert not found.settled
    assert found.named[0].certainty == pytest.approx(0.5)
    ((other, share),) = found.contenders
    assert other.slug == "right-pump"
    assert share == pytest.approx(0.5)
    assert len(found.named) == 1


def test_what_settles_it_is_shown() -> None:
    lines = diagnosis_lines(diagnose(failed("hum")))
    assert lines[0] == "Diagnosis: C903 left-pump, 50% sure"
    assert lines[-2:] == [
        "  Not settled: it may be C904 right-pump 50%",
        "  To settle it: left-pump: switch the left one off; right-pump: switch the right one off",
    ]


@pytest.mark.parametrize(("sign", "slug"), [("left", "left-pump"), ("right", "right-pump")])
def test_one_more_sign_settles_it(sign: str, slug: str) -> None:
    found = diagnose(failed("hum", sign))
    assert slugs(found) == [slug]
    assert found.settled


def test_what_any_flaw_may_bring_about_comes_from_the_named_one() -> None:
    found = diagnose(failed("leak", "litmus-does-not-fall"))
    assert slugs(found) == ["valve"]
    assert [e.finding["sign"] for e in found.named[0].explains] == ["litmus-does-not-fall"]
    assert [e.finding["sign"] for e in found.named[0].evidence] == ["leak"]


def test_alone_it_names_the_cause_that_is_known_by_it() -> None:
    assert slugs(diagnose(failed("litmus-does-not-fall"))) == ["tired"]


def test_a_cause_that_breaks_much_explains_what_it_breaks() -> None:
    found = diagnose(failed("flood", "leak", "hum", "left"))
    assert slugs(found) == ["pipe"]
    assert {e.finding["sign"] for e in found.named[0].explains} == {"leak", "hum", "left"}


def test_it_is_not_named_without_a_sign_of_its_own() -> None:
    assert slugs(diagnose(failed("leak", "left"))) == ["valve", "left-pump"]


def test_two_faults_give_two_causes_and_one_gives_one() -> None:
    both = diagnose(failed("leak", "hum", "left", passed=("L902", "L903", "L906")))
    assert sorted(slugs(both)) == ["left-pump", "valve"]
    assert all(named.certainty > 0.9 for named in both.named)
    assert all(not named.explains for named in both.named)
    one = diagnose(failed("hum", "left", passed=("L901", "L902", "L903", "L906")))
    assert slugs(one) == ["left-pump"]


def test_lines_of_two_faults() -> None:
    lines = diagnosis_lines(diagnose(failed("leak", "left")))
    assert lines[0] == "Diagnosis: C901 valve, 99% sure"
    assert "And: C903 left-pump, 99% sure" in lines


def test_a_sign_of_which_no_cause_is_known_is_said() -> None:
    found = diagnose(failed("leak", "smell"))
    assert slugs(found) == ["valve"]
    assert [e.finding["sign"] for e in found.unexplained] == ["smell"]
    assert diagnosis_lines(found)[-2:] == [
        "No cause is known for",
        "  L908 smell is 3 (limit 2)",
    ]
    alone = diagnose(failed("smell"))
    assert (alone.named, len(alone.unexplained)) == ([], 1)
    assert diagnosis_lines(alone)[0] == "No cause is known for"


def test_an_expected_failure_counts_for_nothing() -> None:
    expected = of("L901", "skip", finding("leak"), expected="ticket 12")
    found = diagnose([expected])
    assert (found.named, found.unexplained) == ([], [])
    # Neither does it speak against a cause.
    assert slugs(
        diagnose([of("L902", "skip", finding("flood"), expected="t"), *failed("drip")])
    ) == ["pipe"]


def test_what_raised_is_the_owners_unless_a_cause_explains_it() -> None:
    raised = of("L903", "error", finding("raises", "train.py:3, in step"))
    assert slugs(diagnose([raised])) == ["owner"]
    found = diagnose([raised, *failed("flood")])
    assert slugs(found) == ["pipe"]
    assert [e.finding["sign"] for e in found.named[0].explains] == ["raises"]


@pytest.mark.parametrize(
    ("leak", "drip", "place"),
    [
        ("a.py:1", "b.py:2", "a.py:1"),
        ("", "b.py:2", "b.py:2"),
        ("a.py:1", "", "a.py:1"),
        ("", "", ""),
    ],
)
def test_the_place_is_that_of_the_most_telling_sign_that_has_one(
    leak: str, drip: str, place: str
) -> None:
    results = [of("L903", "fail", finding("drip", drip)), of("L901", "fail", finding("leak", leak))]
    found = diagnose(results)
    assert slugs(found) == ["valve"]
    assert found.named[0].place == place
    assert [e.check for e in found.named[0].evidence] == ["L901", "L903"]
    shown = [line for line in diagnosis_lines(found) if line.startswith("  Place: ")]
    assert shown == ([f"  Place: {place}"] if place else [])


def test_a_sign_that_two_checks_find_is_one_sign() -> None:
    two = [of("L901", "fail", finding("leak", "a.py:1")), of("L903", "fail", finding("leak"))]
    found = diagnose(two)
    assert found.named[0].certainty == diagnose(two[:1]).named[0].certainty
    assert [e.check for e in found.named[0].evidence] == ["L901", "L903"]


def test_the_order_of_the_results_changes_nothing() -> None:
    results = failed("hum", "leak", "left", "litmus-does-not-fall", passed=("L902",))
    first, second = diagnose(results), diagnose(results[::-1])
    assert slugs(first) == slugs(second)
    assert [n.certainty for n in first.named] == pytest.approx([n.certainty for n in second.named])


def test_all_lines_of_a_cause() -> None:
    results = [
        of("L901", "fail", finding("leak", "train.py:7")),
        of("L907", "fail", finding("litmus-does-not-fall")),
    ]
    assert diagnosis_lines(diagnose(results)) == [
        "Diagnosis: C901 valve, 99% sure",
        "  The valve is broken.",
        "  Place: train.py:7",
        "  Seen: L901 leak is 3 (limit 2)",
        "  Silent because: Nobody looks at the valve.",
        "  Repair: Mend the valve.",
        "  Comes from it, too: L907 litmus-does-not-fall",
    ]


def test_json_is_plain_and_versioned() -> None:
    report = Report(
        case="c",
        device="cpu",
        seed=0,
        versions={},
        results=failed("hum", "smell", "litmus-does-not-fall"),
    )
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert content["schema"] == SCHEMA_VERSION == 3
    found = content["diagnosis"]
    assert set(found) == {"settled", "named", "contenders", "unexplained"}
    assert found["settled"] is False
    (named,) = found["named"]
    assert {key: named[key] for key in ("id", "slug", "area", "title", "place")} == {
        "id": "C903",
        "slug": "left-pump",
        "area": "loop",
        "title": "The left-pump is broken",
        "place": "",
    }
    assert named["certainty"] == pytest.approx(0.5, abs=0.01)
    assert named["evidence"] == [{"check": "L904", **finding("hum")}]
    assert [entry["sign"] for entry in named["explains"]] == ["litmus-does-not-fall"]
    assert (named["silent"], named["repair"], named["reference"]) == (
        "Nobody looks at the left-pump.",
        "Mend the left-pump.",
        "a book",
    )
    assert found["contenders"] == [
        {
            "id": "C904",
            "slug": "right-pump",
            "certainty": pytest.approx(0.5, abs=0.01),
            "settles": "switch the right one off",
        }
    ]
    assert [entry["sign"] for entry in found["unexplained"]] == ["smell"]


def test_contenders_are_few_and_probable(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = [made_up(k, f"pump-{k}", {"hum": MOSTLY}) for k in range(1, 7)]
    rare = made_up(7, "rare", {"hum": 0.01})
    monkeypatch.setattr(diagnosis, "all_causes", lambda: [*alike, rare])
    assert len(diagnose(failed("hum")).contenders) == 3
    monkeypatch.setattr(diagnosis, "all_causes", lambda: [*alike[:2], rare])
    assert [cause.slug for cause, _ in diagnose(failed("hum")).contenders] == ["pump-2"]


def test_no_share_is_ever_out_of_range() -> None:
    every = list({sign for signs in SIGNS.values() for sign in signs})
    for count in range(1, len(every) + 1):
        shares = [share for _, share in rank(every[:count], every[count:])]
        assert all(0 <= share <= 1 and math.isfinite(share) for share in shares)
        assert not shares or sum(shares) == pytest.approx(1.0)
