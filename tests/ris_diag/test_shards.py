"""Folders of scenes: what is read, and what is wrong with them, all at once."""

import pickle
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ris_diag
from ris_diag import npz, shards
from ris_diag.errors import CaseError, MissingSplitError
from ris_diag.shards import Shards, open_folder
from tests.shards import Arrays, scenes, write


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def opened(folder: Path) -> Shards:
    return open_folder(folder)


def test_what_is_there(opened: Shards) -> None:
    assert opened.splits == ("train", "validation", "test")
    assert [opened.count(split) for split in opened.splits] == [70, 40, 20]
    assert len(opened) == 130
    assert opened.keys == ("y", "H", "H_full", "codes", "ptr", "K", "snr", "R", "R_samp")


def test_a_batch_holds_complex_tensors(opened: Shards) -> None:
    batch = opened.batch("train", 3, 8)
    shapes = {key: (list(value.shape), value.dtype) for key, value in batch.items()}
    assert shapes == {
        "y": ([8, 16, 4], torch.complex64),
        "H": ([8, 16, 4], torch.complex64),
        "H_full": ([8, 4, 9], torch.complex64),
        "codes": ([8, 16, 9], torch.complex64),
        "ptr": ([8, 15], torch.float32),
        "K": ([8], torch.int64),
        "snr": ([8], torch.float32),
        "R": ([8, 9, 9], torch.complex64),
        "R_samp": ([8, 9, 9], torch.complex64),
    }
    same, other = opened.batch("train", 3, 8), opened.batch("train", 4, 8)
    assert all(torch.equal(batch[key], same[key]) for key in batch)
    assert not torch.equal(batch["R"], other["R"])


def test_rows_of_all_arrays_and_files_stay_together(opened: Shards) -> None:
    batch = opened.batch("train", 0, 70)
    written = {
        part["snr"][row].item(): (part, row)
        for part in (scenes(0, 40), scenes(1, 30))
        for row in range(len(part["snr"]))
    }
    assert len(written) == 70
    for index, snr in enumerate(batch["snr"].tolist()):
        part, row = written.pop(snr)
        for key in ("y", "H", "H_full", "codes", "R", "R_samp"):
            pairs = torch.view_as_real(batch[key][index])
            assert torch.equal(pairs, torch.from_numpy(part[key][row])), key
        assert batch["K"][index] == part["K"][row]
    assert written == {}


def test_a_split_with_fewer_scenes_gives_all_once(opened: Shards) -> None:
    assert len(set(opened.batch("test", 0, 1000)["snr"].tolist())) == 20


def test_batches_go_through_a_split_once(opened: Shards) -> None:
    plain = list(opened.batches("train", 32))
    assert [len(batch["K"]) for batch in plain] == [32, 32, 6]
    snr = torch.cat([batch["snr"] for batch in plain])
    written = np.concatenate([scenes(0, 40)["snr"], scenes(1, 30)["snr"]])
    assert torch.equal(snr, torch.from_numpy(written))
    shuffled = torch.cat([batch["snr"] for batch in opened.batches("train", 32, seed=1)])
    assert not torch.equal(shuffled, snr)
    assert torch.equal(shuffled.sort().values, snr.sort().values)


def test_pieces_name_file_and_row(opened: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name, _ in opened.pieces("train")] == ["train/a.npz", "train/b.npz"]
    assert list(opened.pieces("nowhere")) == []
    row = sum(array.bytes for array in opened._splits["train"][0].arrays.values()) // 40
    monkeypatch.setattr(shards, "PIECE", 15 * row)
    names, parts = zip(*opened.pieces("train"), strict=True)
    assert names[:3] == (
        "train/a.npz from row 0",
        "train/a.npz from row 15",
        "train/a.npz from row 30",
    )
    assert [len(part["K"]) for part in parts] == [15, 15, 10, 15, 15]


def test_only_rows_that_are_asked_for_are_read(tmp_path: Path) -> None:
    part = scenes(0, 40)
    large = {key: np.repeat(value, 100, 0) for key, value in part.items()}
    (tmp_path / "train").mkdir()
    np.savez(tmp_path / "train" / "large.npz", **large)  # type: ignore[arg-type]  # numpy's stub
    size = (tmp_path / "train" / "large.npz").stat().st_size
    opened = open_folder(tmp_path)
    opened.batch("train", 0, 4)
    tracemalloc.start()
    opened.batch("train", 1, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 10_000_000
    assert peak < 200_000


def test_some_keys_alone(folder: Path) -> None:
    assert set(open_folder(folder, keys=("R", "R_samp")).batch("test", 0, 2)) == {"R", "R_samp"}
    with pytest.raises(CaseError, match=r"a case needs R and R_samp, keys lack \['R_samp'\]"):
        open_folder(folder, keys=("R",)).case()
    with pytest.raises(CaseError, match=r"keys \['Q'\]: expected some of y, H, H_full"):
        open_folder(folder, keys=("Q",))


def test_a_part_of_a_training_of_ones_own(opened: Shards) -> None:
    case = ris_diag.Case(
        name="own",
        batch=opened.batch,
        covariance=ris_diag.Covariance(sample=lambda b: b["R_samp"], truth=lambda b: b["R"]),
    )
    assert ris_diag.run(case, select="D012")["D012"].status == "pass"


def test_compressed_archives_and_double_precision_are_read(tmp_path: Path) -> None:
    def doubled(name: str, arrays: Arrays) -> Arrays:
        return {key: a.astype(np.float64) if key != "K" else a for key, a in arrays.items()}

    opened = open_folder(write(tmp_path, doubled, save=np.savez_compressed))
    batch = opened.batch("validation", 0, 40)
    assert batch["R"].dtype == torch.complex128
    assert len(set(batch["snr"].tolist())) == 40


def test_compressed_archives_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, save=np.savez_compressed)
    monkeypatch.setattr(shards, "INFLATED", 2**18)
    with pytest.raises(CaseError) as refused:
        open_folder(tmp_path)
    assert re.search(
        r"4 compressed files hold 0\.\d MiB, limit 0\.25 MiB: write them with np\.savez instead",
        str(refused.value),
    )


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_both_names_of_validation(tmp_path: Path, validation: str) -> None:
    assert open_folder(write(tmp_path, validation=validation)).count("validation") == 40


def test_files_in_the_folder_itself_are_one_split(folder: Path) -> None:
    opened = open_folder(folder / "train")
    assert opened.splits == ("train",)
    with pytest.raises(MissingSplitError, match="has no split 'validation', it has train"):
        opened.batch("validation", 0, 4)


def test_what_needs_a_split_that_is_not_there_does_not_apply(folder: Path) -> None:
    case = open_folder(folder / "train").case()
    report = ris_diag.run(case, select="data")
    assert report.ok
    assert report["D012"].status == "pass"


# ---- what is wrong


def refused(folder: Path) -> list[str]:
    """What is said of a folder, line by line."""
    with pytest.raises(CaseError) as error:
        open_folder(folder)
    lines = str(error.value).removeprefix(f"{folder}:").split("\n")
    return [line.strip() for line in lines if line.strip()]


def changed(key: str, make: Callable[[Any], Any], *names: str) -> Callable[[str, Arrays], Arrays]:
    def change(name: str, arrays: Arrays) -> Arrays:
        return {**arrays, key: make(arrays[key])} if name in names else arrays

    return change


@pytest.mark.parametrize(
    ("key", "make", "said"),
    [
        (
            "R",
            lambda a: a[:, :4, :4],
            "train/b.npz: R is float32 [30, 4, 4, 2], expected float32 [30, 9, 9, 2] "
            "(N=9 in train/a.npz)",
        ),
        (
            "R_samp",
            lambda a: a[..., :1],
            "train/b.npz: R_samp is float32 [30, 9, 9, 1], expected float32 [30, 9, 9, 2]",
        ),
        (
            "R",
            lambda a: a[..., 0],
            "train/b.npz: R is float32 [30, 9, 9], expected float32 [30, 9, 9, 2]",
        ),
        (
            "R",
            lambda a: a[..., 0] + 1j * a[..., 1],
            "train/b.npz: R is complex64 [30, 9, 9], expected float32 [30, 9, 9, 2] "
            "(float32 in train/a.npz); re and im go into the last axis",
        ),
        (
            "y",
            lambda a: a.astype(np.float16),
            "train/b.npz: y is float16 [30, 16, 4, 2], expected float32 [n, 16, 4, 2] "
            "(float32 in train/a.npz)",
        ),
        (
            "y",
            lambda a: a.astype(np.float64),
            "train/b.npz: y is float64 [30, 16, 4, 2], expected float32 [n, 16, 4, 2] "
            "(float32 in train/a.npz)",
        ),
        (
            "snr",
            lambda a: a[:-1],
            "train/b.npz: snr is float32 [29], expected float32 [30] (n=30 in train/b.npz y)",
        ),
        (
            "ptr",
            lambda a: a[:, :12],
            "train/b.npz: ptr is float32 [30, 12], expected float32 [30, 15]",
        ),
        (
            "K",
            lambda a: a.astype(str),
            "train/b.npz: K is <U21 [30], expected int64 [30] (int64 in train/a.npz)",
        ),
    ],
)
def test_arrays_that_differ_from_the_others(
    tmp_path: Path, key: str, make: Callable[[Any], Any], said: str
) -> None:
    assert refused(write(tmp_path, changed(key, make, "train/b"))) == [said]


def test_a_folder_of_nothing_but_wrong_dtypes(tmp_path: Path) -> None:
    halves = changed("R", lambda a: a.astype(np.float16), "train/a", "train/b", "val/a", "test/a")
    found = refused(write(tmp_path, halves))
    assert found[0] == "train/a.npz: R is float16 [40, 9, 9, 2], expected float32 [40, 9, 9, 2]"
    assert len(found) == 4


def test_a_missing_key(tmp_path: Path) -> None:
    def change(name: str, arrays: Arrays) -> Arrays:
        return {k: a for k, a in arrays.items() if k != "K"} if name == "val/a" else arrays

    assert refused(write(tmp_path, change)) == [
        "val/a.npz: K is missing, found H, H_full, R, R_samp, codes, ptr, snr, y"
    ]


def test_no_samples(tmp_path: Path) -> None:
    def change(name: str, arrays: Arrays) -> Arrays:
        return {k: a[:0] for k, a in arrays.items()} if name == "test/a" else arrays

    found = refused(write(tmp_path, change))
    assert found[0] == ("test/a.npz: y is float32 [0, 16, 4, 2]: no samples, expected one or more")


class Bomb:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    objects = changed("K", lambda a: np.array([Bomb(trap)] * len(a), dtype=object), "train/b")
    assert refused(write(tmp_path / "data", objects)) == [
        "train/b.npz: K holds pickled objects, which are never loaded: expected numbers"
    ]
    assert not trap.exists()
    with zipfile.ZipFile(tmp_path / "data/train/b.npz", "a") as archive:
        archive.writestr("snr2.npy", pickle.dumps(Bomb(trap)))
    refused(tmp_path / "data")
    assert not trap.exists()


def test_damaged_files_are_named_all_at_once(tmp_path: Path) -> None:
    write(tmp_path)
    whole = (tmp_path / "train/b.npz").read_bytes()
    (tmp_path / "train/b.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "val/a.npz").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "test/a.npz").write_bytes(b"")
    found = refused(tmp_path)
    assert [line.split(": ")[0] for line in found] == ["train/b.npz", "val/a.npz", "test/a.npz"]
    assert f"{len(whole) // 2} bytes that are no complete zip archive" in found[0]
    assert "expected what np.savez writes, to its end" in found[1]


def with_member(path: Path, name: str, content: bytes) -> None:
    """Replace a member of an archive."""
    with zipfile.ZipFile(path) as archive:
        held = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in {**held, name: content}.items():
            archive.writestr(key, value)


def test_an_array_that_ends_early_or_is_none(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "train/b.npz"
    with zipfile.ZipFile(path) as archive:
        snr = archive.read("snr.npy")
    with_member(path, "snr.npy", snr[:-8])
    with_member(path, "K.npy", b"nothing of the kind")
    assert refused(tmp_path) == [
        "train/b.npz: K is no array that can be read (the magic string is not correct; expected "
        "b'\\x93NUMPY', got b'nothin')",
        "train/b.npz: snr is float32 [30], 120 bytes, but 112 are there",
    ]


def test_a_directory_that_lies_about_an_array(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "test/a.npz"
    content = bytearray(path.read_bytes())
    content[:4] = b"XXXX"  # the first local header
    path.write_bytes(content)
    assert "y is no array that can be read" in refused(tmp_path)[0]


def test_other_members_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path)
    with zipfile.ZipFile(tmp_path / "train/a.npz", "a") as archive:
        archive.writestr("README.txt", "simulated on a Monday")
        archive.writestr("more.npy", b"\x93NUMPY")
    assert len(open_folder(tmp_path)) == 130


def test_fortran_order(tmp_path: Path) -> None:
    write(tmp_path, changed("R", np.asfortranarray, "train/a", "train/b", "val/a", "test/a"))
    R = open_folder(tmp_path).batch("test", 0, 20)["R"]
    assert torch.allclose(R, R.mH)
    first = next(open_folder(tmp_path).batches("test", 3))["R"]
    assert torch.equal(torch.view_as_real(first), torch.from_numpy(scenes(3, 20)["R"][:3]))


def test_folders_that_hold_no_scenes(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == [
        "expected a folder of .npz files, or of train, val and test"
    ]
    assert refused(tmp_path) == [
        "no .npz files, and no folder train, validation, val or test; it holds nothing"
    ]
    (tmp_path / "notes.txt").touch()
    assert refused(tmp_path)[0].endswith("it holds notes.txt")
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "validation").mkdir()
    (tmp_path / "more.npz").touch()
    assert refused(tmp_path) == [
        "both validation and val are there: expected one of them; train holds no .npz files; "
        "validation holds no .npz files; 1 .npz files beside train, validation: expected one or "
        "the other"
    ]


def test_many_problems_are_cut(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for number in range(25):
        (tmp_path / f"train/{number:02}.npz").touch()
    found = refused(tmp_path)
    assert len(found) == 21
    assert found[-1] == "and 5 more"


def test_a_member_of_no_bytes_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", empty=np.empty((3, 0), np.float32))
    found, wrong = npz.members(tmp_path / "a.npz")
    assert (found["empty"].rows(slice(0, 2)).shape, wrong) == ((2, 0), {})
