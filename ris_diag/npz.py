"""Arrays of .npz archives, read row by row: mapped into memory where they aren't compressed."""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

LOCAL_HEADER = struct.Struct("<26xHH")  # lengths of name and extra field, which end it
MAPPED = zipfile.ZIP_STORED
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class NpzError(ValueError):
    """What is wrong with an archive or with one of its arrays."""


@dataclass
class Member:
    """One array of an archive: its header is known, its content is read when rows are asked for.

    Attributes:
        compressed: it can't be mapped; the first access inflates and keeps it.
        bytes: of its content.
    """

    path: Path
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    compressed: bool
    offset: int
    _array: NDArray[Any] | None = field(default=None, repr=False)

    @property
    def bytes(self) -> int:
        """Of its content."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def rows(self, index: Any) -> NDArray[Any]:
        """A copy of the rows at `index`, a slice or whole numbers."""
        if self._array is None:
            self._array = self._read() if self.compressed else self._map()
        return np.array(self._array[index], order="C")

    def _map(self) -> NDArray[Any]:
        if self.bytes == 0:
            return np.empty(self.shape, self.dtype)
        order: Any = "F" if self.fortran else "C"
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order)

    def _read(self) -> NDArray[Any]:
        with _archive(self.path) as archive, archive.open(f"{self.name}.npy") as stream:
            return npy.read_array(stream, allow_pickle=False)


def members(path: Path) -> tuple[dict[str, Member], dict[str, str]]:
    """The arrays of an archive by name, and what is wrong with those that can't be read.

    Nothing is unpickled or executed, and no content is read.

    Raises:
        NpzError: the file can't be read, or is no zip archive.
    """
    found, wrong = {}, {}
    with _archive(path) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                continue
            if name in found:
                wrong[name] = "stands twice in the archive"
                continue
            try:
                found[name] = _member(path, archive, info, name)
            except NpzError as error:
                wrong[name] = str(error)
    return found, wrong


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        size = path.stat().st_size
        raise NpzError(
            f"{size} bytes that are no complete zip archive ({error}): expected what np.savez "
            "writes, to its end"
        ) from error
    except OSError as error:
        raise NpzError(f"can't be read: {error.strerror or error}") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    if info.flag_bits & 1 or info.compress_type not in READABLE:
        raise NpzError(f"is packed by method {info.compress_type}: expected what np.savez writes")
    try:
        with archive.open(info) as stream:
            dtype, shape, fortran = _header(stream)
            header = stream.tell()
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise NpzError(f"is no array that can be read ({error})") from error
    if dtype.hasobject:
        raise NpzError("holds pickled objects, which are never loaded: expected numbers")
    member = Member(
        path=path,
        name=name,
        dtype=dtype,
        shape=shape,
        fortran=fortran,
        compressed=info.compress_type != MAPPED,
        offset=_content(path, info) + header,
    )
    if header + member.bytes != info.file_size:
        raise NpzError(
            f"is {dtype} {list(shape)}, {member.bytes} bytes, but {info.file_size - header} are "
            "there"
        )
    if not member.compressed and member.offset + member.bytes > path.stat().st_size:
        raise NpzError("reaches beyond the end of the file")
    return member


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format {version}")
    shape, fortran, dtype = readers[version](stream)
    return dtype, shape, fortran


def _content(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the content of a member begins: behind its local header, which has its own extra."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise NpzError("has no header where the archive's directory says")
    name, extra = LOCAL_HEADER.unpack(header)
    return info.header_offset + LOCAL_HEADER.size + int(name) + int(extra)
