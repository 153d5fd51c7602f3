"""How are the pictures of a folder or a tar archive found and read, whoever packed them? Nothing is ever written."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from ..runtime.errors import DataError
from ..runtime.words import legible
from .images import MAX_FILE_BYTES
from .layout import Entry, Listing, Part, is_picture_name, part_of
from .reading import Job, decode_all
from .tensors import TensorSource

TAR_SUFFIXES: dict[str, Callable[..., Any]] = {
    ".tar": open,
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
    ".tar.bz2": bz2.open,
}
_MAX_HEADER_BYTES = 2**20
_MAX_TRAILING_BYTES = 2**26
# Pictures hardly compress: an archive that unpacks to more than this many bytes, and this many times its own size, is a bomb.
_BOMB_BYTES, _BOMB_RATIO = 2**30, 200
# What tarfile and the decompressors raise on damaged or hostile bytes.
_DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError)


def is_tar(path: Path) -> bool:
    """Whether the name is that of a tar archive which can be read."""
    return path.name.lower().endswith(tuple(TAR_SUFFIXES))


def is_picture_store(path: Path) -> bool:
    """Whether it is a folder, or a tar archive by its name."""
    return path.is_dir() or (path.is_file() and is_tar(path))


def file_state(path: str | Path) -> tuple[int, int]:
    """Size and time of a file, by which a changed one is known; of one that can't be read, zeros."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def list_files(path: Path) -> Listing:
    """All picture files of a folder or tar archive, sorted by name.

    Raises:
        DataError: the folder cannot be listed or the archive is damaged.
    """
    if path.is_dir():
        return _list_folder(path)
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"data: {str(path)!r} cannot be read ({error.strerror}); check its permissions.") from error
    return _list_tar(path, status.st_mtime_ns, status.st_size)


def read_files(
    path: Path, split: str, size: int, *, unlabelled: bool, max_broken: float, extra_formats: Collection[str] = ()
) -> TensorSource:
    """The pictures of one split of a folder or tar archive, in the order of their names.

    Raises:
        DataError: no such split, no readable picture, a damaged archive, or more broken files than allowed.
    """
    listing = list_files(path)
    part = part_of(listing, split, unlabelled)
    decoded = decode_all(
        jobs_of(path, part), len(part.entries), size,
        where=listing.where, max_broken=max_broken, refused=listing.refused, extra_formats=extra_formats,
    )  # fmt: skip
    labels = None if part.labels is None else torch.tensor(part.labels, dtype=torch.int64)
    images = decoded.images
    if not decoded.good.all():
        images, labels = images[decoded.good], labels if labels is None else labels[decoded.good]
    return TensorSource(
        images, labels, part.class_names, name=path.absolute().name, split=split, broken=tuple(sorted(decoded.broken))
    )


def jobs_of(path: Path, part: Part) -> Iterator[Job]:
    """The pictures of a part of a folder or tar archive, to be decoded one after another.

    Raises:
        DataError: the archive is damaged.
    """
    return _folder_jobs(part) if path.is_dir() else _tar_jobs(path, part)


def _list_folder(root: Path) -> Listing:
    """Follows links to folders (data sets are often assembled so), but never into one it is already inside of."""
    entries: list[Entry] = []
    refused: list[str] = []
    ancestors: list[tuple[int, int]] = []

    def walk(folder: Path, prefix: str) -> None:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            return
        ancestors.append(identity)
        with os.scandir(folder) as found:
            items = sorted(found, key=lambda item: item.name)
        for item in items:
            name = prefix + legible(item.name)
            if is_folder(item):
                if not item.name.startswith("."):
                    before = len(entries)
                    walk(folder / item.name, f"{name}/")
                    if is_picture_name(item.name) and len(entries) == before:
                        refused.append(f"{name}: a folder, not a file")
            elif is_picture_name(item.name):
                entries.append(Entry(name, item.path))
        ancestors.pop()

    try:
        walk(root, "")
    except OSError as error:
        raise DataError(
            f"data: the folder {error.filename!r} cannot be listed ({error.strerror}); check its permissions."
        ) from error
    return Listing(f"the folder {str(root)!r}", tuple(sorted(entries, key=lambda entry: entry.name)), tuple(refused))


def is_folder(item: os.DirEntry[str]) -> bool:
    """Whether an item of a folder is a folder, or a link to one."""
    try:
        return item.is_dir()
    except OSError:  # a link that leads in a circle: left to the decoder, which names it if it is called a picture
        return False


def _folder_jobs(part: Part) -> Iterator[Job]:
    for row, entry in enumerate(part.entries):
        assert isinstance(entry.place, str)
        yield Job(row, entry.name, Path(entry.place))


class _HeaderReader:
    """A stream for tarfile to read headers from, which hostile headers cannot make go backwards or read a gigabyte."""

    def __init__(self, stream: io.BufferedIOBase, most: int):
        self.stream, self.position, self.last, self.most = stream, 0, b"", most

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {count} bytes")
        self.last = self.stream.read(count)
        self.position += len(self.last)
        return self.last

    def seek(self, position: int) -> None:
        if position < self.position:
            raise tarfile.ReadError("a header points backwards")
        if position > self.most:
            raise tarfile.ReadError(f"it unpacks to more than {self.most} bytes, as no archive of pictures does")
        self.position = self.stream.seek(position)

    def tell(self) -> int:
        return self.position

    def finish(self) -> None:
        """Check the end: tarfile takes a damaged header for it, but it is a block of zeros.

        Then read on, so that the decompressor compares its checksum.
        """
        if self.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"no valid header at byte {self.position}")
        trailing = 0
        while block := self.stream.read(2**20):
            trailing += len(block)
            if trailing > _MAX_TRAILING_BYTES:
                raise tarfile.ReadError("it does not end where it should")


def walk_tar(path: Path) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """Every member of a tar archive from front to back, each with a function that reads its content while it is at hand.

    The function gives contents of up to 1 MiB, and raises what this does.

    Raises:
        DataError: the archive is damaged, or unpacks to more than pictures could.
    """
    try:
        with _open_stream(path) as stream:
            reader = _HeaderReader(stream, _most_bytes(path))
            with tarfile.open(fileobj=reader, mode="r:") as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
                for member in tar:
                    tar.members = []  # it would keep every member ever seen
                    yield member, functools.partial(_content_of, path, reader, member)
            reader.finish()
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _content_of(path: Path, reader: _HeaderReader, member: tarfile.TarInfo) -> bytes:
    try:
        reader.seek(member.offset_data)
        content = reader.read(member.size)
        if len(content) != member.size:
            raise EOFError("it ends inside a file")
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    return content


# An archive is listed once per process, not again for each split: listing means decompressing all of it.
@functools.lru_cache(maxsize=4)
def _list_tar(path: Path, mtime_ns: int, size: int) -> Listing:
    found: dict[str, tuple[int, int]] = {}  # a later member of the same name replaces the earlier one, as on unpacking
    refused: list[str] = []
    for member, _ in walk_tar(path):
        if not is_picture_name(member.name):
            continue
        reason = why_refused(member)
        if reason:
            refused.append(f"{legible(member.name.removeprefix('./'))}: {reason}")
        else:
            found[legible(str(PurePosixPath(member.name)))] = (member.offset_data, member.size)
    prefix = _common_folder(found)
    entries = (Entry(name.removeprefix(prefix), place) for name, place in found.items())
    return Listing(
        f"the archive {str(path)!r}",
        tuple(sorted(entries, key=lambda entry: entry.name)),
        tuple(line.removeprefix(prefix) for line in refused),
    )


def why_refused(member: tarfile.TarInfo) -> str | None:
    """The reason for which a member is not read, or None.

    Nothing is written to disk, so no member can do harm; these are refused because no honest data set has them.
    """
    if member.name.startswith(("/", "\\")) or ".." in PurePosixPath(member.name).parts or "\0" in member.name:
        return "its path leads out of the archive"
    if not member.isreg() or member.issparse():
        return "a link, device or sparse file, not a plain file"
    if member.size > MAX_FILE_BYTES:
        return f"has {member.size} bytes, over the limit of {MAX_FILE_BYTES}"
    return None


def _common_folder(names: Iterable[str]) -> str:
    """Archives are usually packed as one folder: if everything lies in one that is no split, "its name/", else nothing."""
    tops = {name.split("/", 1)[0] if "/" in name else "" for name in names}
    top = next(iter(tops), "")
    return "" if len(tops) != 1 or top in ("", "train", "test", "val") else f"{top}/"


def _tar_jobs(path: Path, part: Part) -> Iterator[Job]:
    """The members in the order in which they lie in the archive, so that one pass of decompression reads them all."""
    rows = sorted(range(len(part.entries)), key=lambda row: part.entries[row].place)
    entries = [part.entries[row] for row in rows]
    for row, entry, content in zip(rows, entries, read_members(path, entries), strict=True):
        yield Job(row, entry.name, content)


def read_members(path: Path, entries: Iterable[Entry]) -> Iterator[bytes]:
    """The content of some members of an archive; of a compressed one, fastest in the order in which they lie in it.

    Raises:
        DataError: the archive is damaged, or ends inside one of them.
    """
    try:
        with _open_stream(path) as stream:
            for entry in entries:
                assert isinstance(entry.place, tuple)
                offset, size = entry.place
                stream.seek(offset)
                content = stream.read(size)
                if len(content) != size:
                    raise EOFError("it ends inside a file")
                yield content
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def read_whole(path: Path) -> Iterator[bytes]:
    """The bytes of a whole archive, decompressed, some at a time.

    Raises:
        DataError: the archive is damaged, or unpacks to more than pictures could.
    """
    total, most = 0, _most_bytes(path) + _MAX_TRAILING_BYTES
    try:
        with _open_stream(path) as stream:
            while block := stream.read(2**20):
                total += len(block)
                if total > most:
                    raise tarfile.ReadError(f"it unpacks to more than {most} bytes, as no archive of pictures does")
                yield block
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _most_bytes(path: Path) -> int:
    """As many as an archive may unpack to."""
    return max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size)


def _open_stream(path: Path) -> io.BufferedIOBase:
    suffix = next(s for s in sorted(TAR_SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s))
    return TAR_SUFFIXES[suffix](path, "rb")


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"data: the archive {str(path)!r} is damaged ({error}); download it again or pack it anew.")
