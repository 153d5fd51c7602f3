"""How is trained from tar shards directly, in an order that is a function of (seed, epoch, id)?

An index of where each picture lies makes every one of them reachable at once, so that shards are read in the same order as any
other source: a shuffle buffer, the usual way, gives an order that depends on how the buffer was filled, can't be resumed in the
middle, and mixes only what happens to be near. The price is one small read for each picture instead of one long one for a shard;
decoding it takes longer. The index is made once, by reading the headers, and kept in the cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..runtime.errors import DataError
from ..runtime.files import write_atomically
from .downloads import cache_root
from .images import RESIZE_RULE, BrokenImageError, decode_quietly
from .pack_index import json_digest
from .reading import check_max_broken, stop_if_too_broken
from .shards import ShardListing, find_shards, list_shard
from .streams import StreamedSource
from .workers import FEWEST_FILES, in_processes, usable_cores

_INDEX_VERSION = 1
_PART = 8
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
    ):
        self.image_size = size
        self._paths, self._starts, self._places, self._labels = tuple(paths), starts, places, labels
        self._max_broken, self._refused = max_broken, refused
        self._bad: dict[int, str] = {}  # row -> "name: reason"
        self._lock = threading.Lock()
        # Pillow warns of odd files, in threads; what matters of it becomes a BrokenImageError
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
        for tried in range(min(len(self), _MOST_TRIED)):
            candidate = (row + tried) % len(self)
            known = candidate in self._bad
            other = tried and self._labels is not None and bool(self._labels[candidate] != self._labels[row])
            if known or other:
                continue
            try:
                return torch.from_numpy(decode_quietly(self._content(candidate), self.image_size))
            except BrokenImageError as error:
                self._count(candidate, str(error))
        raise DataError(
            f"data: no picture behind number {row} of {self._paths[0].parent} can be read; mend the shards."
        )

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
        line = f"{self._shard_of(row).name} at byte {int(self._places[row, 0])}: {reason}"
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
    reader = TarPictures(paths, tensors["starts"], tensors["places"], labels, size, max_broken, refused)
    stop_if_too_broken(list(refused), len(reader) + len(refused), f"the shards in {str(folder)!r}", max_broken)
    fingerprint = json_digest([digest, size, RESIZE_RULE])[:16]
    name = folder.absolute().name
    return StreamedSource(reader, labels, None, name=name, split=split, fingerprints=(fingerprint, fingerprint))


def _index(paths: list[Path], unlabelled: bool, cache: Path) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Places, starts and labels of the pictures, the refused members, and a digest; from the cache where it has them.

    Sizes and times of the shards tell whether it still holds; a damaged file is made anew. Read from the cache, the tensors
    are mapped and take no memory of their own.
    """
    states = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    path = cache / f"{json_digest([_INDEX_VERSION, unlabelled, states])[:32]}.safetensors"
    known = _cached(path)
    if known is None:
        tensors, refused, digest = _made(paths, unlabelled)
        facts = {"refused": "\n".join(refused), "digest": digest, "sha256": _digest(tensors)}
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: save_file(tensors, temporary, facts))
        known = _cached(path)
        if known is None:
            raise DataError(f"data: the index {str(path)!r} can't be read back; is the disk in order?")
    return known


def _cached(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...], str] | None:
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(tensors) != facts["sha256"]:
            return None
        return tensors, tuple(facts["refused"].split("\n")) if facts["refused"] else (), facts["digest"]
    except (OSError, SafetensorError, KeyError, TypeError):
        return None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def _made(paths: list[Path], unlabelled: bool) -> tuple[dict[str, Tensor], tuple[str, ...], str]:
    """Reads the headers of all shards; in several processes where there are many."""
    workers = usable_cores() if len(paths) >= FEWEST_FILES else 1
    list_one = functools.partial(_listed, unlabelled=unlabelled)
    listings = dict(in_processes(list_one, paths, workers))
    places, labels, starts = [], [], [0]
    for path in paths:
        listing = listings[path]
        places.append(torch.tensor([entry.place for entry in listing.entries], dtype=torch.int64).view(-1, 2))
        labels.append(None if listing.labels is None else torch.tensor(listing.labels))
        starts.append(starts[-1] + len(listing.entries))
        _check_sizes(path, listing)
    tensors = {"places": torch.cat(places), "starts": torch.tensor(starts[:-1])}
    filled = [part for part, place in zip(labels, places, strict=True) if len(place)]
    if any(part is not None for part in filled):
        if any(part is None for part in filled):
            raise DataError(
                f"data: some shards in {str(paths[0].parent)!r} have labels and others have none; add those, or ask for "
                "unlabelled pictures."
            )
        tensors["labels"] = torch.cat([part for part in filled if part is not None])
    refused = tuple(line for path in paths for line in listings[path].refused)
    return tensors, refused, json_digest([listings[path].digest for path in paths])


def _listed(path: Path, unlabelled: bool) -> tuple[Path, ShardListing]:
    return path, list_shard(path, unlabelled)


def _check_sizes(path: Path, listing: ShardListing) -> None:
    """A shard cut short inside its last picture has headers as good as any."""
    end = max(
        (offset + size for offset, size in (e.place for e in listing.entries if isinstance(e.place, tuple))), default=0
    )
    if end > path.stat().st_size:
        raise DataError(f"data: the shard {str(path)!r} ends inside a picture; restore it.")
