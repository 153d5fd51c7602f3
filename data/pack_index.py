"""What does a pack's index say, and how is one that was damaged or tampered with told from a good one?

A pack is a folder: `pack.json` (the index), `train-00000.u8`, … (pictures as they lie in memory, uint8 (n, 3, s, s), nothing
else) and, where there are labels, `train.labels` (int64, little-endian, one a picture).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import DataError, RunFolderError
from ..runtime.files import MAX_JSON_BYTES, file_sha256
from ..runtime.sealed import read_sealed, write_sealed
from ..runtime.words import legible, shortened
from .images import RESIZE_RULE
from .workers import usable_cores

FORMAT, FORMAT_VERSION = "pretint-pack", 1
INDEX = "pack.json"
# Its presence without the index says that packing was begun and not ended.
PLAN = "packing.json"
SPLITS = ("train", "test")

# What a hostile index claims is multiplied and printed.
_MOST, _LARGEST_SIDE = 2**62, 2**31
_SHARD_NAME = re.compile(r"(train|test)-\d{5,}\.u8")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """A file of pictures: its name, how many it holds, and the SHA-256 of its content."""

    file: str
    pictures: int
    sha256: str


@dataclass(frozen=True)
class SplitIndex:
    """One split of a pack.

    Attributes:
        shards: its files in order.
        labels_sha256: SHA-256 of its file of labels; None without labels.
        files: picture files there were, the broken ones and duplicates too.
        duplicates: how many were left out because another has the same content.
        broken: the files that could not be read, each as "name: reason".
        fingerprint, fingerprint_unlabelled: of the pictures with their labels, and without.
    """

    shards: tuple[Shard, ...]
    labels_sha256: str | None
    files: int
    duplicates: int
    broken: tuple[str, ...]
    fingerprint: str
    fingerprint_unlabelled: str

    @property
    def pictures(self) -> int:
        """How many pictures it holds."""
        return sum(shard.pictures for shard in self.shards)


@dataclass(frozen=True)
class PackIndex:
    """A whole pack.

    Attributes:
        name: what messages and model cards call the data.
        image_size: side of every picture, in pixels.
        resize: the rule by which pictures of other sizes became square (`RESIZE_RULE`).
        class_names: one name per class number, or None.
        splits: by name.
        plan: SHA-256 of what was to be packed, and how.
        pretint: the version that packed.
    """

    name: str
    image_size: int
    resize: str
    class_names: tuple[str, ...] | None
    splits: dict[str, SplitIndex]
    plan: str
    pretint: str


def labels_file(folder: Path, split: str) -> Path:
    """Where a split's labels lie."""
    return folder / f"{split}.labels"


def is_pack(path: Path) -> bool:
    """Whether a folder is a pack, or one that is being packed."""
    return (path / INDEX).is_file() or (path / PLAN).is_file()


def write_index(folder: Path, index: PackIndex) -> None:
    """Writes the index, which makes the folder a pack.

    Raises:
        DataError: it would be larger than an index may be that is read.
    """
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(index)}
    if len(json.dumps(content, indent=2)) > MAX_JSON_BYTES - 1000:  # of which the checksum takes a part
        broken = sum(len(part.broken) for part in index.splits.values())
        raise DataError(
            f"data: {broken} broken files are more than a pack's index can name; remove them and pack what is left."
        )
    write_sealed(folder / INDEX, content)


def read_index(folder: Path) -> PackIndex:
    """The index of a pack, checked against itself and against the sizes of the files.

    Raises:
        DataError: packing was not ended, or the index or a file is missing, damaged, of another version or of another size.
    """
    path = folder / INDEX
    if not path.is_file():
        raise DataError(
            f"data: {str(folder)!r} is not packed to its end; give the same pretint data pack command again, and it goes on."
        )
    try:
        content = read_sealed(path)
        version = content.get("format_version") if content.get("format") == FORMAT else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            maker = shortened(repr(content.get("pretint")))
            raise DataError(
                f"data: the pack {str(folder)!r} is of format {shortened(str(version))}, made by Pretint {maker}; this one "
                f"reads formats up to {FORMAT_VERSION}: update it, or pack anew."
            )
        _demand(version == FORMAT_VERSION, "format")
        index = _parsed(content)
    except (RunFolderError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"data: the index {str(path)!r} is damaged ({shortened(str(error), 500)}); restore the file, or pack anew."
        ) from error
    for split, part in index.splits.items():
        _check_sizes(folder, split, part, index.image_size)
    return index


def check_settings(folder: Path, index: PackIndex, image_size: int) -> None:
    """Raises DataError unless the pack's pictures are what a run asks for."""
    if index.image_size != image_size:
        raise DataError(
            f"data: the pack {str(folder)!r} holds pictures of {index.image_size} px, and {image_size} px are asked for; use "
            f"--image-size {index.image_size}, or pack the data again with --image-size {image_size}."
        )
    if index.resize != RESIZE_RULE:
        raise DataError(
            f"data: the pack {str(folder)!r} was resized by another rule ({shortened(index.resize)!r}) than this version's "
            f"({RESIZE_RULE!r}); pack the data again."
        )


def damaged_files(folder: Path, index: PackIndex) -> list[str]:
    """Reads a whole pack and names the files that can't be read, or whose SHA-256 is not that of the index."""
    expected: list[tuple[Path, str]] = []
    for split, part in index.splits.items():
        expected += [(folder / shard.file, shard.sha256) for shard in part.shards]
        expected += [(labels_file(folder, split), part.labels_sha256)] if part.labels_sha256 else []
    with ThreadPoolExecutor(min(usable_cores(), 16)) as pool:  # hashing needs no lock of the interpreter
        right = list(pool.map(_is_right, expected))
    return [path.name for (path, _), whole in zip(expected, right, strict=True) if not whole]


def wrong_checksum(folder: Path, damaged: list[str]) -> DataError:
    """The error that names such files, the first of them."""
    first = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} more" if len(damaged) > 3 else "")
    return DataError(
        f"data: the checksum of {first} in the pack {str(folder)!r} is wrong; restore what is named, or pack the data again."
    )


def _is_right(expected: tuple[Path, str]) -> bool:
    path, sha256 = expected
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False


def _parsed(content: dict[str, Any]) -> PackIndex:
    """The index from JSON; anything that no packer writes raises ValueError, TypeError, KeyError or AttributeError."""
    names, splits = content["class_names"], {split: _parsed_split(part) for split, part in content["splits"].items()}
    _demand(set(splits) <= set(SPLITS) and len(splits) > 0, "splits")
    _demand(_is_count(content["image_size"], 1, _LARGEST_SIDE), "image_size")
    _demand(names is None or _are_words(names), "class_names")
    _demand(_are_words(content[key] for key in ("name", "resize", "plan", "pretint")), "texts")
    return PackIndex(
        legible(content["name"]), content["image_size"], content["resize"], None if names is None else tuple(map(legible, names)),
        splits, content["plan"], content["pretint"],
    )  # fmt: skip


def _parsed_split(part: dict[str, Any]) -> SplitIndex:
    shards = tuple(Shard(**shard) for shard in part["shards"])
    for shard in shards:
        # a name with a path in it would read files from elsewhere
        _demand(_SHARD_NAME.fullmatch(shard.file) is not None, f"shard {shard.file!r}")
        _demand(_is_count(shard.pictures, 1), f"pictures of {shard.file}")
        _demand(_DIGEST.fullmatch(shard.sha256) is not None, f"checksum of {shard.file}")
    labels = part["labels_sha256"]
    _demand(len(shards) > 0, "shards")
    _demand(labels is None or _DIGEST.fullmatch(labels) is not None, "checksum of labels")
    _demand(all(_is_count(part[key], 0) for key in ("files", "duplicates")), "counts")
    _demand(_are_words(part["broken"]), "broken")
    _demand(_are_words(part[key] for key in ("fingerprint", "fingerprint_unlabelled")), "fingerprints")
    return SplitIndex(
        shards, labels, part["files"], part["duplicates"], tuple(map(legible, part["broken"])), part["fingerprint"],
        part["fingerprint_unlabelled"],
    )  # fmt: skip


def _are_words(values: Iterable[Any]) -> bool:
    return not isinstance(values, str) and all(isinstance(value, str) for value in values)


def _is_count(value: Any, least: int, most: int = _MOST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} can't be so")


def _check_sizes(folder: Path, split: str, part: SplitIndex, side: int) -> None:
    """A missing or shortened file is named at once; what has changed inside one, `damaged_files` tells."""
    sizes = {shard.file: shard.pictures * 3 * side**2 for shard in part.shards}
    if part.labels_sha256 is not None:
        sizes[labels_file(folder, split).name] = 8 * part.pictures
    for name, size in sizes.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise DataError(
                f"data: {str(folder / name)!r} is missing ({error.strerror}); restore it, or pack the data again."
            ) from error
        if found != size:
            raise DataError(
                f"data: {str(folder / name)!r} has {found} bytes, and {size} are right; restore it, or pack the data again."
            )
