"""How is a flipped byte in a JSON file noticed? The file carries the SHA-256 of what it says.

For files that programs write and nobody edits, such as a palette. A file of an earlier release without a sum is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .errors import RunFolderError
from .files import read_json, write_json

_KEY = "sha256"


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Writes a dictionary as JSON, atomically, with its sum; the dictionary has no key `sha256` of its own."""
    write_json(path, {**value, _KEY: json_sha256(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """What :func:`write_sealed` wrote.

    Raises:
        RunFolderError: the file is missing, is no JSON dictionary, or was changed since.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise RunFolderError(f"{path} does not hold what Pretint writes there; restore the file or run again.")
    found = value.pop(_KEY, None)
    if found is not None and found != json_sha256(value):
        raise RunFolderError(f"{path} was changed since it was written (checksum); restore the file or run again.")
    return value


def json_sha256(value: Any) -> str:
    """The SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()
