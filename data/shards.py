"""What is in tar shards of the WebDataset layout: which pictures, where in which shard, and with which labels?

A folder of shards holds nothing but archives (000000.tar, 000001.tar, …), or train/ and test/ (or val/) with nothing but such.
A sample's files lie side by side and share a key, their name up to the first dot: `key.jpg` is the picture, and `key.cls` (a
number) or `key.json` (with "cls" or "label") its label.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..runtime.errors import DataError
from ..runtime.words import legible, shortened
from .folders import is_folder, is_tar, walk_tar, why_refused
from .layout import TEST_FOLDERS, Entry, is_picture_name

_LABEL_SUFFIXES = (".cls", ".json")
_MAX_LABEL_BYTES = 2**16


@dataclass(frozen=True)
class ShardListing:
    """The pictures of one shard in the order in which they lie in it.

    Attributes:
        entries: name and (offset, bytes) of each picture.
        labels: of each; None where no picture has one.
        refused: members that are no plain files, as "name: reason".
        digest: SHA-256 of the names, sizes, header checksums and labels.
    """

    entries: tuple[Entry, ...]
    labels: tuple[int, ...] | None
    refused: tuple[str, ...]
    digest: str


def find_shards(folder: Path) -> dict[str, list[Path]] | None:
    """The shards of each split, sorted by name; None for a folder that holds anything else.

    Raises:
        DataError: the folder cannot be listed, or a shard is no file.
    """
    try:
        items = _visible(folder)
        if shards := _only_shards(items):
            return {"train": _regular(shards)}
        if any(is_picture_name(item.name) for item in items):
            return None
        folders = [item for item in items if is_folder(item)]
        if not folders or not {item.name for item in folders} <= {"train", *TEST_FOLDERS}:
            return None
        parts = {item.name: _only_shards(_visible(Path(item.path))) for item in folders}
    except OSError as error:
        raise DataError(f"data: the folder {error.filename!r} cannot be listed ({error.strerror}).") from error
    if not all(parts.values()):
        return None
    test = next((parts[name] for name in TEST_FOLDERS if name in parts), None)
    found = {"train": parts.get("train"), "test": test}
    return {split: _regular(shards) for split, shards in found.items() if shards}


def list_shard(path: Path, unlabelled: bool = False) -> ShardListing:
    """What is in one shard, compressed or not; labels are not looked at if pictures are wanted `unlabelled`.

    Raises:
        DataError: it is damaged, a label is no number, or only some pictures have one.
    """
    entries: list[Entry] = []
    labels: dict[str, int] = {}
    refused: list[str] = []
    digest = hashlib.sha256()
    for member, content in walk_tar(path):
        name = legible(str(PurePosixPath(member.name)))
        if is_picture_name(name):
            if reason := why_refused(member):
                refused.append(f"{legible(path.name)}/{name}: {reason}")
                continue
            entries.append(Entry(name, (member.offset_data, member.size)))
            digest.update(f"{name} {member.size} {member.chksum}\n".encode())
        elif not unlabelled and name.endswith(_LABEL_SUFFIXES) and why_refused(member) is None:
            label = _label(path, member, content)
            if label is not None:
                labels[_key(name)] = label
    found = [labels.get(_key(entry.name)) for entry in entries]
    known = tuple(label for label in found if label is not None)
    if known and len(known) < len(entries):
        stray = entries[found.index(None)].name
        raise DataError(
            f"data: the picture {stray!r} of the shard {str(path)!r} has no .cls or .json with its label, though others have; "
            "add it, or ask for unlabelled pictures."
        )
    digest.update(repr(known).encode())
    return ShardListing(tuple(entries), known or None, tuple(refused), digest.hexdigest())


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return [item for item in found if not item.name.startswith(".")]


def _only_shards(items: list[os.DirEntry[str]]) -> list[Path]:
    """The archives among some files, sorted by name; nothing where there are folders or pictures too."""
    if any(is_folder(item) or is_picture_name(item.name) for item in items):
        return []
    return sorted((path for item in items if is_tar(path := Path(item.path))), key=lambda path: path.name)


def _regular(shards: list[Path]) -> list[Path]:
    """The shards; a pipe of such a name would be waited for without end."""
    for shard in shards:
        if not shard.is_file():
            raise DataError(f"data: the shard {str(shard)!r} is no file; restore or remove it.")
    return shards


def _key(name: str) -> str:
    """A sample's key: the path up to the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.split(".", 1)[0]


def _label(path: Path, member: tarfile.TarInfo, content: Callable[[], bytes]) -> int | None:
    """The class number in a .cls or .json member; None where a .json tells none."""
    try:
        if member.size > _MAX_LABEL_BYTES:
            raise ValueError(f"{member.size} bytes")
        text = content().decode()
        value = text
        if member.name.endswith(".json"):
            value = json.loads(text)
            value = value.get("cls", value.get("label")) if isinstance(value, dict) else None
            if value is None:
                return None
        number = int(value)
        if isinstance(value, bool | float) or not 0 <= number < 2**31:
            raise ValueError(repr(value))
        return number
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"data: {shortened(member.name)!r} in the shard {str(path)!r} is no class number from 0 ({str(error)[:100]}); "
            "mend it, or ask for unlabelled pictures."
        ) from error
