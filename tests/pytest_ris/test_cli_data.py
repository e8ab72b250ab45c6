"""`ris-diag data DIR`: exit codes, and what it says of folders in which one thing is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ris_diag import shards
from ris_diag.cli import main
from tests.shards import Arrays, scenes, write


def data(*args: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, args)])


def of_file(wanted: str, **make: Callable[[Any], Any]) -> Callable[[str, Arrays], Arrays]:
    """Changes arrays of the files whose names begin so."""

    def change(name: str, arrays: Arrays) -> Arrays:
        if not name.startswith(wanted):
            return arrays
        return {key: make[key](a) if key in make else a for key, a in arrays.items()}

    return change


def conjugated(a: Any) -> Any:
    return a * np.array([1, -1], a.dtype)


def one_nan(a: Any) -> Any:
    a = a.copy()
    a[17, 0, 0, 0] = np.nan
    return a


def test_a_healthy_folder_passes(tmp_path: Path) -> None:
    result = data(write(tmp_path / "scenes"), "--trace", 9, "-v")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'scenes'}: scenes: 70 train, 40 validation, 20 test"
    statuses = {line.split()[1]: line.split()[0] for line in lines[1:] if line[6:8] == "D0"}
    for check in ("D012", "D013", "D014", "D017", "D018", "D019"):
        assert statuses[check] == "pass"
    assert "not judged" not in result.stdout


@pytest.mark.parametrize("seed", range(5))
def test_healthy_folders_pass_with_every_seed(tmp_path: Path, seed: int) -> None:
    def reseeded(name: str, arrays: Arrays) -> Arrays:
        return scenes(10 * seed + len(name) + ord(name[-1]), len(arrays["K"]))

    result = data(write(tmp_path, reseeded), "--seed", seed, "--trace", 9)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        pytest.param(
            of_file("train", R=lambda a: np.roll(a, 1, 0)),
            "D012",
            ["R_true and R_samp find each other in another row of the split", "Place: split train"],
            id="labels of other scenes",
        ),
        pytest.param(
            of_file("train/b", R=lambda a: np.roll(a, 1, 0)),
            "D017",
            ["R_true has more signals than K", "train/b.npz: ", "Place: train/b.npz"],
            id="labels of other scenes in one file",
        ),
        pytest.param(
            of_file("", R_samp=conjugated),
            "D013",
            ["split validation: conj(R_samp) is nearer to the truth", "Place: split train"],
            id="conjugated",
        ),
        pytest.param(
            of_file("val", R_samp=conjugated),
            "D013",
            ["split validation: conj(R_samp) is nearer to the truth", "Place: split validation"],
            id="conjugated in validation",
        ),
        pytest.param(
            of_file("train/b", y=one_nan),
            "D018",
            [
                "split train: NaN or infinity in y of 1 of 70 samples (train/b.npz: 17), limit 0",
                "Place: train/b.npz",
            ],
            id="one NaN",
        ),
        pytest.param(
            of_file("train/b", R=lambda a: 2 * a),
            "D014",
            ["R_true has a trace of 18 to 18, declared 9, in 30 of 70 samples (train/b.npz: 0, 1"],
            id="scaled",
        ),
        pytest.param(
            of_file("test", K=lambda a: np.roll(a, 1)),
            "D017",
            ["split test: K is not the number of positions that aren't zero in", "test/a.npz: "],
            id="numbers of sources of other scenes",
        ),
        pytest.param(
            lambda name, arrays: (
                {k: np.concatenate([scenes(0, 40)[k][:2], a[2:]]) for k, a in arrays.items()}
                if name == "val/a"
                else arrays
            ),
            "D019",
            [
                "2 samples of split validation stand in split train, too (train/a.npz: 0 is "
                "val/a.npz: 0, train/a.npz: 1 is val/a.npz: 1), limit 0",
                "Place: split validation",
            ],
            id="validation holds training scenes",
        ),
    ],
)
def test_faults_in_data_are_named(
    tmp_path: Path, change: Callable[[str, Arrays], Arrays], check: str, said: list[str]
) -> None:
    result = data(write(tmp_path, change), "--select", check, "--trace", 9)
    assert result.exit_code == 1, result.output
    assert f"fail  {check}" in result.stdout
    for text in said:
        assert text in result.stdout
    assert f"Reproduce: ris-diag data {tmp_path} --trace 9 --select {check} --seed 0" in (
        result.stdout
    )


def test_the_report_is_written(tmp_path: Path) -> None:
    folder, out = write(tmp_path / "scenes"), tmp_path / "out.json"
    result = data(folder, "--select", "D018", "--json", out)
    assert result.exit_code == 0
    report = json.loads(out.read_text())
    assert (report["case"], report["ok"]) == ("scenes", True)
    assert report["results"][0]["measurements"] == {"train": 70, "validation": 40, "test": 20}


def test_wrong_requests(tmp_path: Path) -> None:
    folder = write(tmp_path / "scenes")
    for args, said in (
        ((tmp_path / "nowhere",), "expected a folder of .npz files, or of train, val and test"),
        ((folder, "--select", "D999"), "unknown check 'D999'"),
        ((folder, "--json", tmp_path / "no" / "out.json"), "expected a file in a folder"),
        ((folder, "--trace", 0), "0.0 is not in the range x>0"),
        ((), "Missing argument 'DIR'"),
    ):
        result = data(*args)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
    (folder / "train" / "b.npz").write_bytes(b"PK")
    result = data(folder)
    assert result.exit_code == 2
    assert "train/b.npz: 2 bytes that are no complete zip archive" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    folder = write(tmp_path)
    monkeypatch.setattr(shards.Shards, "batch", interrupt)
    result = data(folder)
    assert result.exit_code == 130
    assert result.stdout.splitlines()[1].startswith("interrupted before the first check, in D001 ")
