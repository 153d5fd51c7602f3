"""Which pictures of a folder or archive belong to which split and class? Decided from their names alone."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from ..runtime.errors import DataError
from .images import SUFFIXES

TEST_FOLDERS = ("test", "val")


@dataclass(frozen=True)
class Entry:
    """A picture file: its name relative to the root ("train/cat/1.jpg"), and its path or its (offset, bytes).

    The path is a string, which takes less memory than a `Path`: there may be millions.
    """

    name: str
    place: str | tuple[int, int]


@dataclass(frozen=True)
class Listing:
    """All picture files of a folder or archive, sorted by name, and those refused on sight as "name: reason"."""

    where: str
    entries: tuple[Entry, ...]
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """The files of one split in order, the class number of each (None: no labels), and the names of the classes."""

    entries: tuple[Entry, ...]
    labels: tuple[int, ...] | None
    class_names: tuple[str, ...] | None


def is_picture_name(name: str) -> bool:
    """Whether a file is meant as a picture: by its suffix; hidden files (.DS_Store, ._x.jpg) never are."""
    last = name.rstrip("/").rpartition("/")[2]
    return posixpath.splitext(last)[1].lower() in SUFFIXES and not last.startswith(".")


def check_not_empty(listing: Listing) -> None:
    """Raise a DataError unless there is a file that is meant as a picture."""
    if not listing.entries and not listing.refused:
        raise DataError(f"data: {listing.where} holds no picture; needed is at least one JPEG, PNG, WebP or BMP file.")


def splits_of(listing: Listing) -> dict[str, str]:
    """The splits found, as split -> its folder ("" is the root): train, and test from test/ or else val/.

    A root is divided when it has a train/ folder, or nothing but test/ or val/; otherwise all of it is "train".
    """
    tops = {entry.name.split("/", 1)[0] for entry in listing.entries if "/" in entry.name}
    flat = any("/" not in entry.name for entry in listing.entries)
    if "train" not in tops and (flat or not tops or not tops <= set(TEST_FOLDERS)):
        return {"train": ""}
    found = {"train": "train"} if "train" in tops else {}
    test = next((folder for folder in TEST_FOLDERS if folder in tops), None)
    return found if test is None else {**found, "test": test}


def part_of(listing: Listing, split: str, unlabelled: bool) -> Part:
    """The files of one split with their labels; class numbers are the same for all splits of the listing.

    Raises:
        DataError: there is no such split, or labelled and unlabelled pictures are mixed.
    """
    splits = splits_of(listing)
    if split not in splits:
        raise DataError(
            f"split: {listing.where} has no {split!r} pictures (found: {', '.join(splits)}); "
            f"put them into a sub-folder {' or '.join(TEST_FOLDERS) if split == 'test' else split}/, "
            f"or use split={next(iter(splits))!r}."
        )
    entries = tuple(_under(listing.entries, splits[split]))
    if unlabelled:
        return Part(entries, None, None)
    classes = [_class_of(entry, splits[split]) for entry in entries]
    if all(name is None for name in classes):
        return Part(entries, None, None)
    stray = next((entry.name for entry, name in zip(entries, classes, strict=True) if name is None), None)
    if stray is not None:
        raise DataError(
            f"data: {listing.where} has pictures both in class sub-folders and beside them (such as {stray!r}); "
            "move those into a class, or ask for unlabelled pictures."
        )
    # Numbered over all splits together, so that a class missing from one of them does not shift the others.
    named = {_class_of(entry, folder) for folder in splits.values() for entry in _under(listing.entries, folder)}
    class_names = tuple(sorted(name for name in named if name is not None))
    number = {name: index for index, name in enumerate(class_names)}
    return Part(entries, tuple(number[name] for name in classes if name is not None), class_names)


def _under(entries: Iterable[Entry], folder: str) -> Iterable[Entry]:
    return (entry for entry in entries if not folder or entry.name.startswith(folder + "/"))


def _class_of(entry: Entry, folder: str) -> str | None:
    """The first folder below the split's own, or None for a picture that lies in it directly."""
    inner = entry.name[len(folder) + 1 :] if folder else entry.name
    return inner.split("/", 1)[0] if "/" in inner else None
