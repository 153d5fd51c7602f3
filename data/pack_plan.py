"""What is there to pack: which files, in which units of work, and how is it known again?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from ..runtime.errors import DataError
from ..runtime.sealed import json_sha256
from .folders import file_state, is_tar, list_files
from .images import RESIZE_RULE
from .layout import Entry, check_not_empty, part_of, splits_of
from .pack_index import is_pack
from .pack_units import FileUnit, RowsUnit, ShardUnit, Unit
from .shards import find_shards
from .sources import available_splits, open_source, resolve


@dataclass(frozen=True)
class Expansion:
    """A compressed archive that is to be decompressed, and how many bytes it then has at least."""

    archive: Path
    bytes: int


@dataclass(frozen=True)
class PackPlan:
    """What is packed.

    Attributes:
        name: what messages and model cards call the data.
        where: what errors call it.
        units: by split, in the order of the pictures.
        refused: what is not read, as seen from its name or kind alone, as "name: reason" by split.
        class_names: one name per class number, or None.
        digest: SHA-256 of all that decides the pack's content.
        expands: a compressed archive, or None.
        in_memory: the pictures are decoded already, and stay in this process.
        slow_to_count: how many pictures a unit has is known only when its shard is read.
    """

    name: str
    where: str
    units: dict[str, list[Unit]]
    refused: dict[str, tuple[str, ...]]
    class_names: tuple[str, ...] | None
    digest: str
    expands: Expansion | None = None
    in_memory: bool = False
    slow_to_count: bool = False


def plan_pack(
    spec: str | Path,
    image_size: int,
    root: Path | None,
    unlabelled: bool,
    deduplicate: bool,
    extra_formats: Collection[str],
    pictures_each: int,
) -> PackPlan:
    """Lists what a spec holds; nothing is decoded, but of names, .npz files and sources of one's own, which open decoded.

    Args:
        spec: a name or path as :func:`open_source` takes it.
        image_size: side of the pictures, in pixels.
        root: the cache folder of named data sets.
        unlabelled: leave labels out.
        deduplicate: whether equal files are to be dropped.
        extra_formats: "gif" or "tiff", which are to be read too.
        pictures_each: pictures in a unit, but for tar shards, which are units as they are.

    Raises:
        UnknownNameError, DataError: as :func:`open_source`; a pack is not packed again.
    """
    settings = [image_size, RESIZE_RULE, unlabelled, deduplicate, sorted(set(extra_formats)), pictures_each]
    name, path = resolve(spec)
    if path is not None and is_pack(path):
        raise DataError(f"data: {str(path)!r} is a pack already; give the data that it was made of.")
    if path is not None and path.is_dir() and (shards := find_shards(path)):
        return _plan_shards(path, shards, unlabelled, settings)
    if path is not None and (path.is_dir() or is_tar(path)):
        return _plan_files(path, unlabelled, pictures_each, settings)
    return _plan_rows(name or str(path), spec, root, unlabelled, image_size, pictures_each, settings)


def _plan_files(path: Path, unlabelled: bool, pictures_each: int, settings: list[object]) -> PackPlan:
    listing = list_files(path)
    check_not_empty(listing)
    archive = None if path.is_dir() else path
    units: dict[str, list[Unit]] = {}
    names = None
    for split in splits_of(listing):
        part = part_of(listing, split, unlabelled)
        names = part.class_names or names
        starts = range(0, len(part.entries), pictures_each)
        units[split] = [
            FileUnit(
                part.entries[start : start + pictures_each],
                None if part.labels is None else part.labels[start : start + pictures_each],
                archive,
            )
            for start in starts
        ]
    states = [file_state(path)] if archive is not None else list(map(_state, listing.entries))
    expands = None
    if archive is not None and path.suffix.lower() != ".tar":
        expands = Expansion(path, max((sum(e.place) for e in listing.entries if isinstance(e.place, tuple)), default=0))
    return PackPlan(
        path.absolute().name, listing.where, units, dict.fromkeys(units, listing.refused), names,
        json_sha256(["files", settings, states]), expands,
    )  # fmt: skip


def _plan_shards(path: Path, shards: dict[str, list[Path]], unlabelled: bool, settings: list[object]) -> PackPlan:
    states = [(split, shard.name, *file_state(shard)) for split, paths in shards.items() for shard in paths]
    units: dict[str, list[Unit]] = {
        split: [ShardUnit(shard, unlabelled) for shard in paths] for split, paths in shards.items()
    }
    return PackPlan(
        path.absolute().name, f"the shards in {str(path)!r}", units, dict.fromkeys(units, ()), None,
        json_sha256(["shards", settings, states]), slow_to_count=True,
    )  # fmt: skip


def _plan_rows(
    name: str,
    spec: str | Path,
    root: Path | None,
    unlabelled: bool,
    image_size: int,
    pictures_each: int,
    settings: list[object],
) -> PackPlan:
    units: dict[str, list[Unit]] = {}
    fingerprints, names = [], None
    for split in available_splits(spec, root):
        source = open_source(spec, split, root, image_size=image_size, unlabelled=unlabelled)
        name, names = source.name, source.class_names
        fingerprints.append((split, source.fingerprint))
        units[split] = [RowsUnit(source, ids) for ids in torch.arange(len(source)).split(pictures_each)]
    return PackPlan(
        name, str(spec), units, dict.fromkeys(units, ()), names, json_sha256(["rows", settings, fingerprints]),
        in_memory=True,
    )  # fmt: skip


def _state(entry: Entry) -> tuple[str, int, int]:
    assert isinstance(entry.place, str)
    return entry.name, *file_state(entry.place)
