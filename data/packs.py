"""How is a pack read, so that data larger than memory costs a training run no memory?

Its files are mapped: what is read lies in the system's page cache, which gives way whenever memory is wanted for anything else,
and a batch is copied out of it. Nothing of the data is ever in the process's own (anonymous) memory but the batches under way.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ..runtime.errors import DataError
from ..runtime.files import file_sha256, write_json
from ..runtime.processes import main_first
from ..runtime.sealed import json_sha256
from .folders import file_state
from .pack_index import (
    PackIndex,
    SplitIndex,
    check_settings,
    damaged_files,
    labels_file,
    read_index,
    wrong_checksum,
)
from .reading import check_max_broken, stop_if_too_broken
from .streams import StreamedSource

try:
    import resource
except ImportError:  # of POSIX systems alone
    resource = None

# Of the machine's memory: a larger pack does not stay in the page cache from one epoch to the next.
_CACHED_SHARE = 0.5
# A container's limit, which the page cache counts towards.
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
# Before Python 3.13 each map keeps its file open.
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
_OPEN_FILES = 10_240  # as many as macOS lets a process have where it says that there is no limit
_SOON_READ = 4 * 2**30  # bytes; the checksums of more take a time that is worth a word
# Enters pages of a file into the process's page table, reading what is not in memory (Linux 5.14, madvise(2)); Python has no name
# for it yet.
_POPULATE_READ = 22
_PIECE = 16 * 2**20  # bytes that are so entered at a time
_AHEAD = 4  # times as many of them as are read


class MappedShards:
    """The pictures of a pack's files, by row over all of them.

    Args:
        folder: the pack.
        parts: the splits whose files these are, one after the other.
        size: side of the pictures, in pixels.
    """

    decoded = True

    def __init__(self, folder: Path, parts: Sequence[SplitIndex], size: int):
        shards = [shard for part in parts for shard in part.shards]
        self.image_size = size
        self.broken = tuple(line for part in parts for line in part.broken)
        counts = torch.tensor([shard.pictures for shard in shards])
        self._ends = counts.cumsum(0)
        self._starts = self._ends - counts
        _open_as_many_as_allowed()
        self._maps = [_mapped(folder / shard.file) for shard in shards]
        self._shards = [np.frombuffer(memory, np.uint8).reshape(-1, 3, size, size) for memory in self._maps]
        self._advises = (
            hasattr(mmap, "MADV_WILLNEED") and sum(map(len, self._maps)) > _CACHED_SHARE * _physical_memory()
        )
        self._untouched: Iterator[tuple[mmap.mmap, int]] = iter(())
        if self._advises:
            for memory in self._maps:
                memory.madvise(mmap.MADV_RANDOM)
        elif sys.platform == "linux":
            pieces = [(memory, start) for memory in self._maps for start in range(0, len(memory), _PIECE)]
            self._untouched = iter(pieces)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, rows: Int64[Tensor, " b"], out: UInt8[Tensor, "b 3 s s"]) -> None:
        """Copies the pictures of these rows to `out`, in the order in which they lie on the disk.

        One by one: of a large pack a batch has hardly two pictures in the same file, and an operation for each file would take
        longer than the copies do.
        """
        rows, places = rows.sort()
        numbers = torch.bucketize(rows, self._ends, right=True)  # (b,) which shard each row is in
        found = list(zip(numbers.tolist(), (rows - self._starts[numbers]).tolist(), strict=True))
        if self._advises:
            self._want(found)
        self._touch(1 + _AHEAD * out.nbytes // _PIECE)
        pictures = out.numpy()
        for place, (number, row) in zip(places.tolist(), found, strict=True):
            pictures[place] = self._shards[number][row]

    def files(self) -> Iterator[UInt8[Tensor, "_ 3 s s"]]:
        """The pictures of each file, in order, as they are mapped."""
        return (_as_tensor(memory, torch.uint8).view(-1, 3, self.image_size, self.image_size) for memory in self._maps)

    def _touch(self, pieces: int) -> None:
        """Touches the next pieces of the files, in order, all pages of a piece at once.

        Else nearly every picture of a first epoch would be a page fault, which takes longer than copying the picture. A few
        batches' worth at a time, so that a run need not wait for a whole pack to be read from a disk before it starts.
        """
        for memory, start in itertools.islice(self._untouched, pieces):
            with suppress(OSError):  # an older kernel; the pages are touched when they are wanted
                memory.madvise(_POPULATE_READ, start, min(_PIECE, len(memory) - start))

    def _want(self, found: Sequence[tuple[int, int]]) -> None:
        """Asks the system to fetch these pictures, by shard and row in it, all of a batch at once.

        Left to itself it would fetch one at the first touch of each, wait, and read some 100 kB around it, of which one picture
        is wanted: with `MADV_RANDOM` and `MADV_WILLNEED` the disk has many small orders at a time and nothing else to read.
        """
        bytes_each = 3 * self.image_size**2
        for number, row in found:
            start = row * bytes_each // mmap.PAGESIZE * mmap.PAGESIZE
            self._maps[number].madvise(mmap.MADV_WILLNEED, start, (row + 1) * bytes_each - start)


def open_pack(
    folder: Path,
    splits: Sequence[str],
    split: str,
    size: int,
    *,
    unlabelled: bool,
    max_broken: float,
    cache: Path | None,
) -> StreamedSource:
    """The pictures of a pack's splits, one after the other.

    Args:
        folder: the pack.
        splits: which of its splits.
        split: what to call them together.
        size: side of the pictures that is asked for.
        unlabelled: leave labels out.
        max_broken: the share of broken files at which a run goes on, as when the data was packed.
        cache: where is remembered which files were found to have the right checksums; None: no checksum is compared but that of
            labels.

    Raises:
        DataError: the pack is damaged, not ended, of another size, or without such a split, or more files were broken than allowed.
    """
    check_max_broken(max_broken)
    index = read_index(folder)
    check_settings(folder, index, size)
    parts = [_part(folder, index, name) for name in splits]
    for part in parts:
        stop_if_too_broken(list(part.broken), part.files, f"the pack {str(folder)!r}", max_broken)
    if cache is not None:
        _check_once(folder, replace(index, splits=dict(zip(splits, parts, strict=True))), cache)
    labels = None
    if not unlabelled and all(part.labels_sha256 is not None for part in parts):
        every = [_labels(folder, name, part, index.class_names) for name, part in zip(splits, parts, strict=True)]
        labels = every[0] if len(every) == 1 else torch.cat(every)
    reader = MappedShards(folder, parts, size)
    fingerprints = _joint([part.fingerprint for part in parts]), _joint([part.fingerprint_unlabelled for part in parts])
    names = index.class_names if labels is not None else None
    return StreamedSource(reader, labels, names, name=index.name, split=split, fingerprints=fingerprints)


def pack_splits(folder: Path) -> tuple[str, ...]:
    """The splits that a pack holds.

    Raises:
        DataError: it is damaged or not packed to its end.
    """
    index = read_index(folder)
    return tuple(split for split in ("train", "test") if split in index.splits)


def _part(folder: Path, index: PackIndex, split: str) -> SplitIndex:
    if split not in index.splits:
        raise DataError(
            f"split: the pack {str(folder)!r} has no {split!r} pictures (found: {', '.join(index.splits)}); "
            f"use split={next(iter(index.splits))!r}."
        )
    return index.splits[split]


def _check_once(folder: Path, index: PackIndex, cache: Path) -> None:
    """Compares the checksums of all files with the index, unless these very ones, by size and time, were found right before."""
    shards = [shard for part in index.splits.values() for shard in part.shards]
    states = [
        (str((folder / shard.file).absolute()), *file_state(folder / shard.file), shard.sha256) for shard in shards
    ]
    found_right = cache / f"{json_sha256(states)[:32]}.json"
    with main_first():
        if found_right.is_file():
            return
        if (size := sum(state[1] for state in states)) > _SOON_READ:
            from ..runtime.runlog import note  # which brings TensorBoard along

            note(f"{folder}: the checksums of {size / 1e9:.1f} GB are compared, this once")
        if damaged := damaged_files(folder, index):
            raise wrong_checksum(folder, damaged)
        with suppress(OSError):  # where nothing can be written, they are compared each time
            write_json(found_right, {"pack": str(folder.absolute()), "splits": list(index.splits)})


def _labels(folder: Path, split: str, part: SplitIndex, class_names: Sequence[str] | None) -> Int64[Tensor, " n"]:
    """The labels, mapped as the pictures are; being small beside them, they are checked whenever the pack is opened."""
    path = labels_file(folder, split)
    try:
        found = file_sha256(path)
    except OSError as error:
        raise DataError(f"data: {str(path)!r} cannot be read ({error.strerror}); check its permissions.") from error
    if found != part.labels_sha256:
        raise DataError(f"data: the checksum of {str(path)!r} is wrong; restore the file, or pack the data again.")
    labels = _as_tensor(_mapped(path), torch.int64)
    if int(labels.min()) < 0 or (class_names is not None and int(labels.max()) >= len(class_names)):
        raise DataError(f"data: {str(path)!r} numbers classes that the pack does not have; pack the data again.")
    return labels


def _joint(fingerprints: Sequence[str]) -> str:
    """The fingerprint of several splits together; of one, its own."""
    return fingerprints[0] if len(fingerprints) == 1 else json_sha256(fingerprints)[:16]


def _mapped(path: Path) -> mmap.mmap:
    """A file as memory that can only be read."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_UNTRACKED)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            raise DataError(
                f"data: the pack {str(path.parent)!r} has more files than this process may have open; allow more with "
                "ulimit -n, or pack the data again with a larger --shard-mb."
            ) from error
        raise DataError(f"data: {str(path)!r} cannot be mapped into memory ({error}); restore the file.") from error


def _open_as_many_as_allowed() -> None:
    """Raises the usual number of open files, often 1024, to what the system allows this process."""
    if resource is None:
        return
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(usual, _OPEN_FILES) if most == resource.RLIM_INFINITY else most
    if usual != wanted and usual != resource.RLIM_INFINITY:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _as_tensor(memory: mmap.mmap, dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        # torch warns that it can't be written to; nothing here writes
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.frombuffer(memory, dtype=dtype)


def _physical_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or fewer in a container."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(_MEMORY_LIMIT.read_text()))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return machine
