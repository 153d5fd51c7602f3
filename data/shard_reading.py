"""How is trained from tar shards directly, in an order that is a function of (seed, epoch, id)?

An index of where each picture lies makes every one of them reachable at once, so that shards are read in the same order as any
other source: a shuffle buffer, the usual way, gives an order that depends on how the buffer was filled, can't be resumed in the
middle, and mixes only what happens to be near. The price is one small read for each picture instead of one long one for a shard;
decoding it takes longer. The index is made once, by reading the headers, and kept in the cache folder.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ..runtime.errors import DataError, RunFolderError
from ..runtime.processes import main_first
from ..runtime.sealed import json_sha256
from ..runtime.tensors import read_metadata, read_tensors, tensors_checksum, write_tensors
from ..runtime.words import legible
from .downloads import cache_root
from .folders import file_state
from .images import MAX_FILE_BYTES, RESIZE_RULE, BrokenImageError, decode_quietly
from .reading import check_max_broken, stop_if_too_broken
from .shards import find_shards, list_shard
from .streams import StreamedSource
from .workers import FEWEST_FILES, in_processes, usable_cores

_INDEX_VERSION = 1
_PART = 8
_BLOCK = 1 << 16  # labels that are looked through at a time
_MOST_TRIED = 1000
_NAMED = 10


class TarPictures:
    """The pictures of tar shards, by row over all of them; decoded by threads when they are read.

    A picture that can't be decoded is counted and named, and the next one in order takes its place (of the same class, where
    there are labels), as a function of its row alone.

    Args:
        paths: the shards.
        starts: the row of each one's first picture, int64 (shards,).
        places: offset and bytes of each picture in its shard, int64 (n, 2).
        labels: int64 (n,), or None.
        size: side that pictures are resized and cropped to, in pixels.
        max_broken: the share of broken pictures at which reading goes on.
        refused: members that are not read, each as "name: reason"; they count as broken.
        extra_formats: "gif" or "tiff", to read these too.
    """

    decoded = False

    def __init__(
        self,
        paths: Sequence[Path],
        starts: Int64[Tensor, " shards"],
        places: Int64[Tensor, "n 2"],
        labels: Int64[Tensor, " n"] | None,
        size: int,
        max_broken: float,
        refused: tuple[str, ...] = (),
        extra_formats: Collection[str] = (),
    ):
        self.image_size = size
        self._paths, self._starts, self._places, self._labels = tuple(paths), starts, places, labels
        self._max_broken, self._refused, self._extra_formats = max_broken, refused, extra_formats
        self._bad: dict[int, str] = {}  # row -> "name: reason"
        self._lock = threading.Lock()
        # For good, and of Pillow alone: pictures are decoded by threads beside whatever else goes on, where images.pillow_warnings
        # would silence others. The limit of pixels is below the one that Pillow warns at.
        warnings.filterwarnings("ignore", module=r"PIL\..*")

    def __len__(self) -> int:
        return len(self._places)

    @property
    def broken(self) -> tuple[str, ...]:
        """What could not be read, of the pictures that were asked for so far."""
        with self._lock:
            return (*self._refused, *sorted(self._bad.values()))

    @functools.cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(usable_cores(), 16), thread_name_prefix="decode")

    def read(self, rows: Int64[Tensor, " b"], out: UInt8[Tensor, "b 3 s s"]) -> None:
        """Decodes the pictures of these rows into `out`.

        Raises:
            DataError: a shard can't be read, or more pictures are broken than allowed.
        """
        rows, places = rows.sort()

        def decode(part: tuple[list[int], list[int]]) -> None:
            for row, place in zip(*part, strict=True):
                out[place] = self._picture(row)

        parts = zip(rows.split(_PART), places.split(_PART), strict=True)
        for _ in self._threads.map(decode, [(a.tolist(), b.tolist()) for a, b in parts]):
            pass  # an error in a thread comes out here

    def _picture(self, row: int) -> UInt8[Tensor, "3 s s"]:
        """The picture of a row, or the first behind it that can be decoded."""
        unknown = (candidate for candidate in self._candidates(row) if candidate not in self._bad)
        for candidate in itertools.islice(unknown, _MOST_TRIED):
            try:
                picture = decode_quietly(self._content(candidate), self.image_size, extra_formats=self._extra_formats)
                return torch.from_numpy(picture)
            except BrokenImageError as error:
                self._count(candidate, str(error))
        label = "" if self._labels is None else f" of class {int(self._labels[row])}"
        raise DataError(
            f"data: no picture{label} behind number {row} of {self._paths[0].parent} can be read; mend the shards."
        )

    def _candidates(self, row: int) -> Iterator[int]:
        """The row, and those that may take its place: all behind it, of the same class where there are labels; behind the last
        one come those before it."""
        yield row
        for first, end in ((row + 1, len(self)), (0, row)):
            if self._labels is None:
                yield from range(first, end)
                continue
            for start in range(first, end, _BLOCK):
                same = self._labels[start : min(start + _BLOCK, end)] == self._labels[row]
                yield from (start + torch.nonzero(same).flatten()).tolist()

    def _content(self, row: int) -> bytes:
        path, (offset, size) = self._shard_of(row), self._places[row].tolist()
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                content = os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(f"data: the shard {str(path)!r} can't be read ({error.strerror}); restore it.") from error
        if len(content) != size:
            raise DataError(f"data: the shard {str(path)!r} ends inside a picture; restore it.")
        return content

    def _shard_of(self, row: int) -> Path:
        return self._paths[int(torch.searchsorted(self._starts, row, right=True)) - 1]

    def _count(self, row: int, reason: str) -> None:
        line = f"{legible(self._shard_of(row).name)} at byte {int(self._places[row, 0])}: {legible(reason)}"
        with self._lock:
            self._bad[row] = line
            found = len(self._bad)
        if found <= _NAMED:
            warnings.warn(f"a broken picture is skipped: {line}", stacklevel=2)
        total = len(self) + len(self._refused)
        if found + len(self._refused) > self._max_broken * total:  # else there is no need to list them all each time
            stop_if_too_broken(
                list(self.broken), total, f"the shards in {str(self._paths[0].parent)!r}", self._max_broken
            )


def open_shards(
    folder: Path,
    splits: Sequence[str],
    split: str,
    size: int,
    *,
    unlabelled: bool,
    max_broken: float,
    root: Path | None,
    extra_formats: Collection[str] = (),
) -> StreamedSource:
    """The pictures of a folder of tar shards, which must not be compressed.

    Args:
        folder: the folder of shards (see :mod:`.shards`).
        splits: which of its splits, one after the other.
        split: what to call them together.
        size: side that pictures are resized and cropped to, in pixels.
        unlabelled: leave labels out.
        max_broken: the share of broken pictures at which reading goes on.
        root: the cache folder, where the index is kept.
        extra_formats: "gif" or "tiff", to read these too.

    Raises:
        DataError: no such split, a compressed or damaged shard, or no pictures.
    """
    check_max_broken(max_broken)
    found = find_shards(folder) or {}
    if missing := [name for name in splits if name not in found]:
        raise DataError(
            f"split: the shards in {str(folder)!r} have no {missing[0]!r} pictures (found: {', '.join(found)}); "
            f"put them into a sub-folder {missing[0]}/, or use split={next(iter(found))!r}."
        )
    paths = [path for name in splits for path in found[name]]
    if packed := next((path for path in paths if path.suffix.lower() != ".tar"), None):
        raise DataError(
            f"data: the shard {str(packed)!r} is compressed, so its pictures can't be reached one by one; decompress it, or "
            f"pack the shards with pretint data pack {folder} OUT."
        )
    tensors, refused, digest = _index(paths, unlabelled, cache_root(root) / "indices")
    if not len(tensors["places"]):
        raise DataError(f"data: the shards in {str(folder)!r} hold no picture; needed is at least one.")
    labels = tensors.get("labels")
    reader = TarPictures(paths, tensors["starts"], tensors["places"], labels, size, max_broken, refused, extra_formats)
    stop_if_too_broken(list(refused), len(reader) + len(refused), f"the shards in {str(folder)!r}", max_broken)
    fingerprint = json_sha256([digest, size, RESIZE_RULE, sorted(set(extra_formats))])[:16]
    name = folder.absolute().name
    return StreamedSource(reader, labels, None, name=name, split=split, fingerprints=(fingerprint, fingerprint))


def _index(paths: list[Path], unlabelled: bool, cache: Path) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Places, starts and labels of the pictures, the refused members, and a digest; from the cache where it has them.

    Sizes and times of the shards tell whether it still holds; a damaged file is made anew. Read from the cache, the tensors
    are mapped and take no memory of their own.
    """
    states = [(str(path.absolute()), *file_state(path)) for path in paths]
    path = cache / f"{json_sha256([_INDEX_VERSION, unlabelled, states])[:32]}.safetensors"
    with main_first():
        known = _cached(path, len(paths))
        if known is None:
            tensors, refused, digest = _made(paths, unlabelled)
            facts = {"refused": "\n".join(refused), "digest": digest, "sha256": tensors_checksum(tensors)}
            write_tensors(path, tensors, facts, copied=True)
            known = _cached(path, len(paths))
    if known is None:
        raise DataError(f"data: the index {str(path)!r} can't be read back; is the disk in order?")
    return known


def _cached(path: Path, shards: int) -> tuple[dict[str, Tensor], tuple[str, ...], str] | None:
    """The index of so many shards, if it is there and whole."""
    try:
        tensors, facts = read_tensors(path), read_metadata(path)
        if tensors_checksum(tensors) != facts["sha256"] or not _is_sound(tensors, shards):
            return None
        return tensors, tuple(facts["refused"].split("\n")) if facts["refused"] else (), facts["digest"]
    except (RunFolderError, KeyError):
        return None


def _is_sound(tensors: dict[str, Tensor], shards: int) -> bool:
    """Whether tensors are as an index has them: nothing that a file says makes a read larger than a picture's may be."""
    places, starts, labels = tensors["places"], tensors["starts"], tensors.get("labels")
    if any(tensor.dtype != torch.int64 for tensor in tensors.values()) or places.ndim != 2 or places.shape[1] != 2:
        return False
    n = len(places)
    if starts.shape != (shards,) or (labels is not None and labels.shape != (n,)):
        return False
    if bool((starts.diff() < 0).any()) or int(starts[0]) != 0 or int(starts[-1]) > n:
        return False
    if labels is not None and n and int(labels.min()) < 0:
        return False
    return not n or (int(places.min()) >= 0 and int(places[:, 1].max()) <= MAX_FILE_BYTES)


class _Listed(NamedTuple):
    """What is kept of a shard: places (n, 2), labels (n,) or None, refused members, and the digest of its headers.

    Arrays, which go from one process to another as bytes, where tensors would take an open file each.
    """

    places: Int64[np.ndarray, "n 2"]
    labels: Int64[np.ndarray, " n"] | None
    refused: tuple[str, ...]
    digest: str


def _made(paths: list[Path], unlabelled: bool) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Reads the headers of all shards; in several processes where there are many."""
    workers = usable_cores() if len(paths) >= FEWEST_FILES else 1
    list_one = functools.partial(_listed, unlabelled=unlabelled)
    found = dict(in_processes(list_one, paths, workers))
    listed = [found[path] for path in paths]
    counts = [len(one.places) for one in listed]
    starts = list(itertools.accumulate(counts, initial=0))[:-1]
    tensors = {
        "places": torch.from_numpy(np.concatenate([one.places for one in listed])),
        "starts": torch.tensor(starts),
    }
    labels = [one.labels for one in listed if len(one.places)]
    known = [part for part in labels if part is not None]
    if known:
        if len(known) < len(labels):
            raise DataError(
                f"data: some shards in {str(paths[0].parent)!r} have labels and others have none; add those, or ask for "
                "unlabelled pictures."
            )
        tensors["labels"] = torch.from_numpy(np.concatenate(known))
    refused = tuple(line for one in listed for line in one.refused)
    return tensors, refused, json_sha256([one.digest for one in listed])


def _listed(path: Path, unlabelled: bool) -> tuple[Path, _Listed]:
    listing = list_shard(path, unlabelled)
    places = np.array([entry.place for entry in listing.entries], np.int64).reshape(-1, 2)
    # cut short inside its last picture, it has headers as good as any
    if len(places) and int(places.sum(axis=1).max()) > path.stat().st_size:
        raise DataError(f"data: the shard {str(path)!r} ends inside a picture; restore it.")
    labels = None if listing.labels is None else np.array(listing.labels, np.int64)
    return path, _Listed(places, labels, listing.refused, listing.digest)
