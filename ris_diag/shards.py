"""Scenes in a folder of .npz files: looked through at once, read row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ris_diag.case import Case, Covariance, Declared
from ris_diag.errors import CaseError, MissingSplitError
from ris_diag.npz import Member, NpzError, members

# Key to its axes: n scenes, L snapshots, M antennas, N elements; 2 is re, im.
AXES: dict[str, tuple[str | int, ...]] = {
    "y": ("n", "L", "M", 2),
    "H": ("n", "L", "M", 2),
    "H_full": ("n", "M", "N", 2),
    "codes": ("n", "L", "N", 2),
    "ptr": ("n", 15),
    "K": ("n",),
    "snr": ("n",),
    "R": ("n", "N", "N", 2),
    "R_samp": ("n", "N", "N", 2),
}
FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
INFLATED = 2**29  # bytes of compressed arrays that are kept
PIECE = 2**26  # bytes of a piece of a file
SHOWN = 20

Scenes = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One file: its name from the folder on, its arrays, its number of scenes."""

    name: str
    arrays: dict[str, Member]
    count: int


class Shards:
    """The scenes of a folder. Only the rows that are asked for are read.

    Scenes come as a dict of tensors: y complex [B, L, M], H complex [B, L, M], H_full complex
    [B, M, N], codes complex [B, L, N], ptr real [B, 15] (5 azimuths, 5 elevations, 5 ranges), K
    integer [B], snr real [B], R and R_samp complex [B, N, N].
    """

    def __init__(self, folder: Path, keys: Sequence[str], splits: dict[str, list[Shard]]) -> None:
        self.folder = folder
        self.keys = tuple(keys)
        self._splits = splits

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that are there, of "train", "validation" and "test"."""
        return tuple(self._splits)

    def __len__(self) -> int:
        return sum(map(self.count, self.splits))

    def count(self, split: str) -> int:
        """Number of scenes of a split.

        Raises:
            MissingSplitError: the folder doesn't have it.
        """
        return sum(shard.count for shard in self._shards(split))

    def batch(self, split: str, seed: int, size: int) -> Scenes:
        """`size` scenes of a split in an order of their own, each once; all if it has fewer.

        Raises:
            MissingSplitError: the folder doesn't have the split.
        """
        count = self.count(split)
        rng = np.random.default_rng(seed)
        return self._take(split, rng.choice(count, min(size, count), replace=False))

    def batches(self, split: str, size: int, seed: int | None = None) -> Iterator[Scenes]:
        """All scenes of a split in batches, shuffled if a seed is given; the last may be smaller.

        Raises:
            MissingSplitError: the folder doesn't have the split.
        """
        order = np.arange(self.count(split))
        if seed is not None:
            np.random.default_rng(seed).shuffle(order)
        return (self._take(split, order[k : k + size]) for k in range(0, len(order), size))

    def pieces(self, split: str) -> Iterator[tuple[str, Scenes]]:
        """All scenes of a split, file by file, large files in pieces; none without the split."""
        for shard in self._splits.get(split, ()):
            row = sum(array.bytes for array in shard.arrays.values()) // shard.count
            step = max(1, PIECE // max(1, row))
            for start in range(0, shard.count, step):
                rows = slice(start, min(start + step, shard.count))
                name = shard.name if step >= shard.count else f"{shard.name} from row {start}"
                yield name, {key: _tensor(key, shard.arrays[key].rows(rows)) for key in self.keys}

    def case(self, *, trace: float | None = None) -> Case:
        """The data alone as a case: the checks of family `data` apply to it.

        Args:
            trace: of every covariance, where they are scaled to one.

        Raises:
            CaseError: the keys that were asked for lack R or R_samp.
        """
        lacking = [key for key in ("R", "R_samp") if key not in self.keys]
        if lacking:
            raise CaseError(f"{self.folder}: a case needs R and R_samp, keys lack {lacking}")
        labels: dict[str, Any] = {}
        if "K" in self.keys:
            labels["sources"] = lambda batch: batch["K"]
        if "ptr" in self.keys:
            labels["positions"] = lambda batch: batch["ptr"].unflatten(1, (3, 5))
        return Case(
            name=self.folder.resolve().name,
            batch=self.batch,
            truth=lambda batch: batch["R"],
            stored=self.pieces,
            covariance=Covariance(
                sample=lambda batch: batch["R_samp"], truth=lambda batch: batch["R"], **labels
            ),
            declared=None if trace is None else Declared(trace=trace),
        )

    def _shards(self, split: str) -> list[Shard]:
        if split not in self._splits:
            raise MissingSplitError(
                f"{self.folder} has no split {split!r}, it has {', '.join(self.splits)}"
            )
        return self._splits[split]

    def _take(self, split: str, index: NDArray[np.int64]) -> Scenes:
        shards = self._shards(split)
        ends = np.cumsum([shard.count for shard in shards])
        file = np.searchsorted(ends, index, side="right")
        batch = {}
        for key in self.keys:
            first = shards[0].arrays[key]
            rows = np.empty((len(index), *first.shape[1:]), first.dtype)
            for number in np.unique(file):
                mine = file == number
                start = ends[number] - shards[number].count
                rows[mine] = shards[number].arrays[key].rows(index[mine] - start)
            batch[key] = _tensor(key, rows)
        return batch


def _tensor(key: str, rows: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(rows)
    if key == "K":
        return tensor if tensor.is_floating_point() else tensor.long()
    return torch.view_as_complex(tensor) if AXES[key][-1] == 2 else tensor


def open_folder(path: str | Path, keys: Sequence[str] = tuple(AXES)) -> Shards:
    """The scenes of `DIR/train`, `DIR/validation` (or `val`) and `DIR/test`, or of DIR itself.

    Every file is looked at, its content is not read: arrays are mapped into memory. What
    np.savez_compressed wrote can't be mapped; it is inflated when it is first read and kept.
    float32 and float64 are read as they are, into complex64 and complex128.

    Args:
        path: a folder of .npz files, or of folders of them, one a split; then it is "train".
        keys: the arrays to read; each must be in every file.

    Raises:
        CaseError: no such folder or files, a key that isn't known; all files that are damaged,
            lack a key, or hold an array of another dtype or shape than the others, at once.
    """
    folder = Path(path)
    unknown = [key for key in keys if key not in AXES]
    if unknown or not keys:
        raise CaseError(f"keys {list(keys)}: expected some of {', '.join(AXES)}")
    problems: list[str] = []
    splits: dict[str, list[Shard]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    dtypes: dict[str, tuple[np.dtype[Any], str]] = {}
    for split, files in _files(folder).items():
        for file in files:
            name = file.relative_to(folder).as_posix()
            shard, wrong = _shard(file, name, keys, sizes, dtypes)
            problems += wrong
            if shard is not None:
                splits.setdefault(split, []).append(shard)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise CaseError("\n  ".join([f"{folder}:", *problems[:SHOWN], *more]))
    _limit_inflated(folder, [shard for shards in splits.values() for shard in shards])
    return Shards(folder, keys, splits)


def _files(folder: Path) -> dict[str, list[Path]]:
    """Split to its files."""
    if not folder.is_dir():
        raise CaseError(f"{folder}: expected a folder of .npz files, or of train, val and test")
    own = sorted(folder.glob("*.npz"))
    found = {
        s: [folder / n for n in names if (folder / n).is_dir()] for s, names in FOLDERS.items()
    }
    problems = [
        f"both {' and '.join(p.name for p in paths)} are there: expected one of them"
        for paths in found.values()
        if len(paths) > 1
    ]
    splits = {split: sorted(paths[0].glob("*.npz")) for split, paths in found.items() if paths}
    problems += [
        f"{found[split][0].name} holds no .npz files"
        for split, files in splits.items()
        if not files
    ]
    if own and splits:
        problems.append(
            f"{len(own)} .npz files beside {', '.join(splits)}: expected one or the other"
        )
    if not own and not splits:
        held = sorted(entry.name for entry in folder.iterdir())[:5]
        problems.append(
            "no .npz files, and no folder train, validation, val or test; it holds "
            f"{', '.join(held) or 'nothing'}"
        )
    if problems:
        raise CaseError(f"{folder}: {'; '.join(problems)}")
    return splits or {"train": own}


def _shard(
    file: Path,
    name: str,
    keys: Sequence[str],
    sizes: dict[str, tuple[int, str]],
    dtypes: dict[str, tuple[np.dtype[Any], str]],
) -> tuple[Shard | None, list[str]]:
    """A file's arrays, or what is wrong with them.

    Args:
        sizes, dtypes: of the files before, by axis and key, with the name of the first one that
            has them; this file's are added.
    """
    try:
        arrays, wrong = members(file)
    except NpzError as error:
        return None, [f"{name}: {error}"]
    problems = [f"{name}: {key} {text}" for key, text in wrong.items() if key in keys]
    problems += [
        f"{name}: {key} is missing, found {', '.join(sorted(arrays)) or 'no array'}"
        for key in keys
        if key not in arrays and key not in wrong
    ]
    own: dict[str, tuple[int, str]] = {}
    for key in keys:
        if key in arrays:
            problem = _misfit(key, arrays[key], name, {**own, **sizes}, own, dtypes)
            problems += [f"{name}: {problem}"] if problem else []
    if problems:
        return None, problems
    count, _ = own.pop("n")
    sizes.update({axis: size for axis, size in own.items() if axis not in sizes})
    for key in keys:
        dtypes.setdefault(key, (arrays[key].dtype, name))
    return Shard(name=name, arrays={key: arrays[key] for key in keys}, count=count), []


def _misfit(
    key: str,
    array: Member,
    name: str,
    sizes: dict[str, tuple[int, str]],
    own: dict[str, tuple[int, str]],
    dtypes: dict[str, tuple[np.dtype[Any], str]],
) -> str | None:
    """How an array differs from what its key and the files before say."""
    axes = AXES[key]
    fits = len(array.shape) == len(axes)
    reasons = []
    for axis, size in zip(axes, array.shape, strict=False) if fits else ():
        if isinstance(axis, int):
            fits &= axis == size
        elif axis in sizes:
            wanted, where = sizes[axis]
            if wanted != size:
                fits = False
                reasons.append(f"{axis}={wanted} in {where}")
    whole = key == "K" and array.dtype.kind in "iu"
    kinds = (np.dtype(np.float32), np.dtype(np.float64))
    known = dtypes.get(key)
    alike = known is None or known[0] == array.dtype
    if known is not None and not alike:
        reasons.append(f"{known[0]} in {known[1]}")
    if not (fits and alike and (whole or array.dtype in kinds)):
        shape = [sizes[a][0] if a in sizes else a for a in axes]
        kind = known[0] if known is not None else "float32"
        expected = f"{kind} [{', '.join(map(str, shape))}]"
        because = f" ({', '.join(dict.fromkeys(reasons))})" if reasons else ""
        hint = "; re and im go into the last axis" if array.dtype.kind == "c" else ""
        return f"{key} is {array.dtype} {list(array.shape)}, expected {expected}{because}{hint}"
    if array.shape[0] == 0:
        return f"{key} is {array.dtype} {list(array.shape)}: no samples, expected one or more"
    for axis, size in zip(axes, array.shape, strict=True):
        if isinstance(axis, str):
            own.setdefault(axis, (size, f"{name} {key}" if axis == "n" else name))
    return None


def _limit_inflated(folder: Path, shards: list[Shard]) -> None:
    arrays = [a for shard in shards for a in shard.arrays.values() if a.compressed]
    needed = sum(array.bytes for array in arrays)
    if needed > INFLATED:
        raise CaseError(
            f"{folder}: {len({a.path for a in arrays})} compressed files hold {needed / 2**20:.1f} "
            f"MiB, limit {INFLATED / 2**20:g} MiB: write them with np.savez instead of "
            "np.savez_compressed, then they are mapped and not held in memory"
        )
