"""Results: plain data, messages, files that are written whole or not at all."""

import json
import math
import os
from pathlib import Path

import pytest

from ris_diag.result import Report, Result, plain, write_json


def result(**changes: object) -> Result:
    fields: dict[str, object] = {
        "id": "L001",
        "slug": "one-batch-learns",
        "family": "litmus",
        "title": "t",
        "status": "fail",
        "cause": "it fell by 0.0%, limit 5%",
        "place": "train.py:7",
        "next_step": "raise the learning rate",
        "reproduce": "ris-diag check --select L001",
    }
    return Result(**{**fields, **changes})  # type: ignore[arg-type]  # fields by name


def report(*results: Result) -> Report:
    return Report(case="c", device="cpu", seed=0, versions={}, results=list(results))


def test_message_says_cause_place_next_step_and_how_to_repeat() -> None:
    assert result().message() == (
        "L001 one-batch-learns: it fell by 0.0%, limit 5%\n"
        "  Place: train.py:7\n"
        "  Try: raise the learning rate\n"
        "  Reproduce: ris-diag check --select L001"
    )


def test_message_leaves_out_what_is_empty() -> None:
    assert result(place="", next_step="", reproduce="").message().count("\n") == 0


def test_json_holds_what_json_cannot() -> None:
    values = {"a": math.nan, "b": [math.inf, -math.inf], "c": (1, None, True)}
    text = json.dumps(result(measurements=values).to_json(), allow_nan=False)
    back = json.loads(text)["measurements"]
    assert back == {"a": "NaN", "b": ["Infinity", "-Infinity"], "c": [1, None, True]}


def test_result_survives_the_way_through_json() -> None:
    original = result(measurements={"x": 1.5}, lines=["a"])
    assert Result(**json.loads(json.dumps(original.to_json()))) == original


def test_other_data_is_refused() -> None:
    with pytest.raises(TypeError, match="set is no plain data"):
        plain({1, 2})


@pytest.mark.parametrize(
    ("statuses", "ok"),
    [
        (["pass"], True),
        (["pass", "skip"], True),
        (["skip"], False),
        ([], False),
        (["pass", "fail"], False),
        (["pass", "error"], False),
    ],
)
def test_report_is_ok_only_if_something_passed_and_nothing_failed(
    statuses: list[str], ok: bool
) -> None:
    assert report(*(result(status=status) for status in statuses)).ok is ok


def test_report_finds_results_by_id_and_slug() -> None:
    found = report(result())
    assert found["L001"] is found["one-batch-learns"]
    with pytest.raises(KeyError, match="G001: not among L001"):
        found["G001"]


def test_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, report(result()).to_json())
    assert json.loads(path.read_text())["results"][0]["id"] == "L001"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json(path, {"x": {1, 2}})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "no" / "report.json", {})


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
