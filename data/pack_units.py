"""What is done for one file of a pack, in a process of its own: pictures read, decoded, and written with their checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..runtime.errors import RunFolderError
from ..runtime.files import write_atomically
from ..runtime.sealed import read_sealed, write_sealed
from ..runtime.words import legible
from .folders import read_members
from .images import BrokenImageError, decode_quietly, pillow_warnings, read_content
from .layout import Entry
from .shards import list_shard
from .tensors import ImageSource
from .workers import check_stop

PARTS = "parts"
DIGEST_BYTES = 16
_CHUNK = 256


@dataclass(frozen=True)
class FileUnit:
    """Some files of a folder, or members of an archive, in order; class numbers or None."""

    entries: tuple[Entry, ...]
    labels: tuple[int, ...] | None
    archive: Path | None

    def files(self) -> FileUnit:
        """The files themselves."""
        return self

    def without(self, dropped: frozenset[int]) -> FileUnit:
        """All but the files at these positions."""
        kept = [k for k in range(len(self.entries)) if k not in dropped]
        labels = None if self.labels is None else tuple(self.labels[k] for k in kept)
        return FileUnit(tuple(self.entries[k] for k in kept), labels, self.archive)


@dataclass(frozen=True)
class ShardUnit:
    """A tar shard, whose list of pictures is read where it is needed, and the positions of those to leave out."""

    archive: Path
    unlabelled: bool
    dropped: frozenset[int] = frozenset()

    def files(self) -> FileUnit:
        """The pictures in it."""
        listing = list_shard(self.archive, self.unlabelled)
        return FileUnit(listing.entries, listing.labels, self.archive).without(self.dropped)

    def without(self, dropped: frozenset[int]) -> ShardUnit:
        """All but the pictures at these positions."""
        return ShardUnit(self.archive, self.unlabelled, dropped)


@dataclass(frozen=True)
class RowsUnit:
    """Pictures of a source that gives them decoded; it stays in this process."""

    source: ImageSource
    ids: torch.Tensor

    def without(self, dropped: frozenset[int]) -> RowsUnit:
        """All but the pictures at these positions."""
        kept = [k for k in range(len(self.ids)) if k not in dropped]
        return RowsUnit(self.source, self.ids[kept])


Unit = FileUnit | ShardUnit | RowsUnit


@dataclass(frozen=True)
class Job:
    """A unit, which file of which split it becomes (`file` without suffix), in which folder, how large its pictures are, and which
    formats are read besides the usual ones."""

    unit: Unit
    split: str
    file: str
    folder: Path
    image_size: int
    extra_formats: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What came of a job: the file's pictures and their SHA-256, their class numbers, and the broken files."""

    file: str
    pictures: int
    pictures_sha256: str
    labels: list[int] | None
    broken: list[str]


def pack(job: Job) -> Done:
    """Writes a job's file, and beside it, in parts/, what came of it; a unit without good pictures leaves no file.

    The second file is written behind the first one, so that after a kill whatever has it is complete.
    """
    path = job.folder / f"{job.file}.u8"
    digest, broken, labels, count = hashlib.sha256(), list[str](), list[int | None](), 0

    def write(temporary: Path) -> None:
        nonlocal count
        with pillow_warnings(), temporary.open("wb") as file:
            for label, picture in _pictures(job.unit, job.image_size, job.extra_formats):
                check_stop()
                if isinstance(picture, str):
                    broken.append(picture)
                    continue
                file.write(picture.data)
                digest.update(picture.data)
                labels.append(label)
                count += 1

    write_atomically(path, write)
    if not count:
        path.unlink()
    known = [label for label in labels if label is not None]
    done = Done(path.name, count, digest.hexdigest(), known if len(known) == len(labels) else None, broken)
    write_sealed(job.folder / PARTS / f"{job.file}.json", asdict(done))
    return done


def done_before(job: Job) -> Done | None:
    """What came of a job in a run that was stopped, if it was done there and its record is whole."""
    path = job.folder / f"{job.file}.u8"
    try:
        done = _recorded(read_sealed(job.folder / PARTS / f"{job.file}.json"))
        size = path.stat().st_size if done.pictures else 0
    except (RunFolderError, OSError, TypeError):
        return None
    return done if (done.file, size) == (path.name, done.pictures * 3 * job.image_size**2) else None


def _recorded(record: dict[str, Any]) -> Done:
    """A record as :func:`pack` wrote it; anything else raises TypeError."""
    done = Done(**record)
    kinds: list[tuple[object, type]] = [(done.pictures, int), (done.pictures_sha256, str), (done.broken, list)]
    kinds += [(line, str) for line in done.broken]
    if done.labels is not None:
        kinds += [(label, int) for label in done.labels]
    if not all(isinstance(value, kind) for value, kind in kinds) or len(done.labels or ()) not in (0, done.pictures):
        raise TypeError("no such record")
    return done


def digests(job: Job) -> tuple[str, np.ndarray]:
    """The name of a job and 16 bytes of the SHA-256 of each file's content, uint8 (n, 16); of decoded pictures, of the pixels.

    A file that can't be read has a digest of its own, so that it is not taken for a copy of another.
    """
    found = []
    if isinstance(job.unit, RowsUnit):
        contents: Iterator[bytes | str] = (p.tobytes() for _, p in _rows(job.unit) if not isinstance(p, str))
    else:
        contents = _contents(job.unit.files())
    for number, content in enumerate(contents):
        check_stop()
        whole = f"{job.file} {number}".encode() if isinstance(content, str) else content
        found.append(hashlib.sha256(whole).digest()[:DIGEST_BYTES])
    return job.file, np.frombuffer(b"".join(found), np.uint8).reshape(-1, DIGEST_BYTES)


def count(job: Job) -> tuple[str, int, tuple[str, ...]]:
    """The name of a job, how many pictures it has, and the refused members of its shard."""
    if isinstance(job.unit, ShardUnit):
        listing = list_shard(job.unit.archive, job.unit.unlabelled)
        return job.file, len(listing.entries) - len(job.unit.dropped), listing.refused
    return job.file, len(job.unit.ids if isinstance(job.unit, RowsUnit) else job.unit.entries), ()


def _contents(unit: FileUnit) -> Iterator[bytes | str]:
    """Each file's content, or why it is broken."""
    if unit.archive is not None:
        yield from read_members(unit.archive, unit.entries)
        return
    for entry in unit.entries:
        assert isinstance(entry.place, str)
        try:
            yield read_content(Path(entry.place))
        except BrokenImageError as error:
            yield str(error)


def _pictures(unit: Unit, size: int, extra_formats: tuple[str, ...]) -> Iterator[tuple[int | None, np.ndarray | str]]:
    """Class number and picture, uint8 (3, size, size), of each file, or "name: reason" of a broken one."""
    if isinstance(unit, RowsUnit):
        yield from _rows(unit)
        return
    files = unit.files()
    where = f"{legible(files.archive.name)}/" if files.archive is not None and isinstance(unit, ShardUnit) else ""
    labels = files.labels or (None,) * len(files.entries)
    for entry, label, content in zip(files.entries, labels, _contents(files), strict=True):
        try:
            if isinstance(content, str):
                raise BrokenImageError(content)
            yield label, decode_quietly(content, size, extra_formats=extra_formats)
        except BrokenImageError as error:
            yield label, f"{where}{entry.name}: {legible(str(error))}"


def _rows(unit: RowsUnit) -> Iterator[tuple[int | None, np.ndarray | str]]:
    for ids in unit.ids.split(_CHUNK):
        labels = unit.source.labels_of(ids)
        numbers = [None] * len(ids) if labels is None else labels.tolist()
        yield from zip(numbers, unit.source.gather(ids, "cpu").numpy(), strict=True)
