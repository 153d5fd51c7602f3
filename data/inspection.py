"""What does a data set hold, picture by picture? Everything is read once, nothing is kept but facts."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from ..runtime.errors import DataError
from ..runtime.words import legible
from .folders import is_picture_store, jobs_of, list_files, read_members
from .images import BrokenImageError, check_extra_formats, decode_quietly, pillow_warnings
from .layout import Listing, Part, check_not_empty, part_of, splits_of
from .pack_index import damaged_files, is_pack, read_index, wrong_checksum
from .packs import open_pack
from .reading import Job
from .shards import find_shards, list_shard
from .sources import available_splits, open_source, source_names
from .tensors import ImageSource
from .workers import usable_cores

_CHUNK = 64
_ROWS = 1024


@dataclass(frozen=True)
class PictureFacts:
    """A picture that can be read.

    Attributes:
        name: of the file, or its number in its split.
        height, width: in pixels, as stored.
        grey: whether red = green = blue in all pixels.
        digest: of size and pixels, so that equal pictures have equal ones in whatever format they lie.
        label: the number of its class, or None.
    """

    name: str
    height: int
    width: int
    grey: bool
    digest: bytes
    label: int | None = None


@dataclass(frozen=True)
class SplitFacts:
    """A split: its pictures, its broken files as "name: reason", the names of the classes, and whether pictures lie beside
    class folders, so that labels can't be told."""

    split: str
    pictures: tuple[PictureFacts, ...]
    broken: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    stray: bool = False


def inspect_data(
    spec: str, root: Path | None = None, *, image_size: int = 32, extra_formats: Collection[str] = ()
) -> tuple[SplitFacts, ...]:
    """All splits of a data set. Files are looked at as they are, other data at `image_size`.

    Args:
        spec, root: as of :func:`open_source`.
        image_size: side in pixels at which data without files is opened; a pack has its own.
        extra_formats: "gif" or "tiff", to read these too.

    Raises:
        UnknownNameError, DataError: there is no such data, it holds no picture at all, or its archive or pack is damaged.
    """
    check_extra_formats(extra_formats)
    splits = available_splits(spec, root)
    path = Path(spec).expanduser()
    if spec in source_names() or not is_picture_store(path):
        return tuple(_of_source(open_source(spec, split, root, image_size=image_size)) for split in splits)
    if is_pack(path):
        return _of_pack(path, splits)
    if path.is_dir() and (shards := find_shards(path)):
        return tuple(_of_shards(paths, split, extra_formats) for split, paths in shards.items())
    listing = list_files(path)
    check_not_empty(listing)
    found = [_of_files(path, listing, split, extra_formats) for split in splits_of(listing)]
    # what was refused on sight belongs to no split; it is told once
    return (replace(found[0], broken=tuple(sorted((*listing.refused, *found[0].broken)))), *found[1:])


def _of_pack(path: Path, splits: Sequence[str]) -> tuple[SplitFacts, ...]:
    index = read_index(path)
    if damaged := damaged_files(path, index):
        raise wrong_checksum(path, damaged)
    size = index.image_size
    opened = (open_pack(path, (split,), split, size, unlabelled=False, max_broken=1.0, cache=None) for split in splits)
    return tuple(map(_of_source, opened))


def _of_source(source: ImageSource) -> SplitFacts:
    labels = None if source.labels is None else source.labels.tolist()
    facts = []
    for ids in torch.arange(len(source)).split(_ROWS):
        rows = source.gather(ids, "cpu").numpy()
        facts += [
            replace(_facts(str(number), rgb), label=None if labels is None else labels[number])
            for number, rgb in zip(ids.tolist(), rows, strict=True)
        ]
    return SplitFacts(source.split, tuple(facts), source.broken, source.class_names)


def _of_shards(paths: Sequence[Path], split: str, extra_formats: Collection[str]) -> SplitFacts:
    listings = [list_shard(path) for path in paths]

    def jobs() -> Iterator[Job]:
        row = itertools.count()
        for path, listing in zip(paths, listings, strict=True):
            for entry, content in zip(listing.entries, read_members(path, listing.entries), strict=True):
                yield Job(next(row), f"{legible(path.name)}/{entry.name}", content)

    labels = [label for listing in listings for label in listing.labels or [None] * len(listing.entries)]
    broken = [line for listing in listings for line in listing.refused]
    return _facts_of(split, jobs(), labels, None, broken, extra_formats)


def _of_files(path: Path, listing: Listing, split: str, extra_formats: Collection[str]) -> SplitFacts:
    part, stray = _part(listing, split)
    labels = part.labels or [None] * len(part.entries)
    return replace(_facts_of(split, jobs_of(path, part), labels, part.class_names, [], extra_formats), stray=stray)


def _facts_of(
    split: str,
    jobs: Iterator[Job],
    labels: Sequence[int | None],
    class_names: tuple[str, ...] | None,
    refused: Sequence[str],
    extra_formats: Collection[str],
) -> SplitFacts:
    """What the jobs' pictures are like, by row; `labels` has one of each."""
    broken = list(refused)
    found: dict[int, PictureFacts] = {}
    for row, looked in _look_at_all(jobs, extra_formats):
        if isinstance(looked, str):
            broken.append(looked)
        else:
            found[row] = replace(looked, label=labels[row])
    return SplitFacts(split, tuple(found[row] for row in sorted(found)), tuple(sorted(broken)), class_names)


def _part(listing: Listing, split: str) -> tuple[Part, bool]:
    """The files of a split; without labels, and True, where pictures lie beside class folders."""
    try:
        return part_of(listing, split, unlabelled=False), False
    except DataError:
        return part_of(listing, split, unlabelled=True), True


def _look_at_all(jobs: Iterator[Job], extra_formats: Collection[str]) -> Iterator[tuple[int, PictureFacts | str]]:
    """Row and facts, or "name: reason", of each job; a bounded number of files is held at a time."""
    look = partial(_look, extra_formats=extra_formats)
    with pillow_warnings(), ThreadPoolExecutor(max_workers=min(usable_cores(), 16)) as pool:
        while chunk := list(itertools.islice(jobs, _CHUNK)):
            yield from zip((job.row for job in chunk), pool.map(look, chunk), strict=True)


def _look(job: Job, extra_formats: Collection[str]) -> PictureFacts | str:
    try:
        return _facts(job.name, decode_quietly(job.content, None, extra_formats=extra_formats))
    except BrokenImageError as error:
        return f"{job.name}: {legible(str(error))}"


def _facts(name: str, rgb: UInt8[np.ndarray, "3 h w"]) -> PictureFacts:
    _, height, width = rgb.shape
    digest = hashlib.sha256(f"{height} {width}\n".encode() + rgb.tobytes()).digest()[:16]
    grey = bool((rgb[0] == rgb[1]).all() and (rgb[1] == rgb[2]).all())
    return PictureFacts(name, height, width, grey, digest)
