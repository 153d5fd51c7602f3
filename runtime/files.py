"""How is a file written so that a crash never leaves half of it? Under a temporary name in the same folder, flushed, renamed.

This module does without torch, so that verbs that only read results start at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import RunFolderError

# The largest file that Pretint writes, a palette of 4096 colours with its table, takes half of it.
MAX_JSON_BYTES = 2**26
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def write_atomically(path: Path, write: bytes | Callable[[Path], None]) -> None:
    """Replaces `path` in one step.

    Args:
        path: the final name; its folder is made if need be, by :func:`make_folder`.
        write: the bytes, or a function that writes the file whose (temporary) path it is given.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if callable(write):
            write(temporary)
        else:
            temporary.write_bytes(write)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)  # some writers make files that only their owner reads
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes a folder, if need be with those that it lies in, so that what is flushed in it is still found after a power cut."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        _sync_folder(one.parent)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that :func:`write_atomically` gives on the way.

    >>> is_temporary(".results.json.0123abcd.tmp"), is_temporary("results.json")
    (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


def remove_temporaries(folder: Path) -> None:
    """Removes what writers that were killed left in a folder; nobody else may be writing there now."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_temporary(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """The permissions that new files do not get; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# read once, while nobody else makes files: a checkpoint is written by a thread of its own
_UMASK = _umask()


def _sync_folder(folder: Path) -> None:
    """The names in it must reach the disk too; only POSIX systems can open a folder for that."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically; NaN and infinity are refused, because JSON has no word for them."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads JSON; NaN and infinity are refused, because JSON has no word for them.

    Raises:
        RunFolderError: the file is missing, is no JSON, or is larger than anything that Pretint writes.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise RunFolderError(
                f"{path} has {size} bytes, over the limit of {MAX_JSON_BYTES}; restore the file or run again."
            )
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise RunFolderError(f"{path} is missing; is {path.parent} a folder that Pretint wrote?") from None
    except (ValueError, OSError, RecursionError) as error:
        raise RunFolderError(f"{path} is no readable JSON ({error}); restore the file or run again.") from None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")
