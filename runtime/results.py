"""What was measured? Reads and writes a run's `results.json`.

The form: ``{"schema_version": 1, "colour": [entry, …], "transfer": [entry, …], "features": [entry, …]}``; a list that an older
file lacks is empty. Accuracies are fractions of 1, what does not apply is null. An entry replaces the one with the same identifying
keys, so that measuring again never doubles a row.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .errors import RunFolderError
from .files import read_json, write_json

SCHEMA_VERSION = 1
IDENTITY = {
    "colour": ("data", "fingerprint", "split", "palette", "resolution", "decode", "temperature", "saturation"),
    "transfer": ("data", "fingerprint", "pretrained_on", "protocol", "init", "labels", "seed", "sees"),
    "features": ("data", "fingerprint", "pretrained_on", "init", "seed", "sees", "layer"),
}

Entry = dict[str, Any]


def read_results(folder: Path) -> dict[str, Any]:
    """The results of a run folder; empty lists where nothing was measured yet.

    Raises:
        RunFolderError: the file is damaged or of a newer schema.
    """
    path = folder / "results.json"
    if not path.exists():
        return {"schema_version": SCHEMA_VERSION, **{part: [] for part in IDENTITY}}
    results = read_json(path)
    if not isinstance(results, dict) or not all(_is_list_of_entries(results.get(part, [])) for part in IDENTITY):
        raise RunFolderError(f"{path} does not hold results in Pretint's form; delete it and measure again.")
    version = results.get("schema_version", 0)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise RunFolderError(
            f"{path} has schema {version}, this Pretint reads up to {SCHEMA_VERSION}; upgrade Pretint."
        )
    return {"schema_version": SCHEMA_VERSION, **{part: results.get(part, []) for part in IDENTITY}}


def add_results(folder: Path, part: str, entries: list[Entry]) -> dict[str, Any]:
    """Merges entries into one part (a key of `IDENTITY`) of a run's results and writes the file; returns all results."""
    results = read_results(folder)
    keys = IDENTITY[part]
    merged = {_identity(entry, keys): entry for entry in results[part]}
    for entry in entries:
        merged[_identity(entry, keys)] = {name: _plain(value) for name, value in entry.items()}
    results[part] = list(merged.values())
    write_json(folder / "results.json", results)
    return results


def _identity(entry: Entry, keys: tuple[str, ...]) -> str:
    return json.dumps([entry.get(key) for key in keys])  # text, since a fingerprint may be a list


# Keys whose values are words; of numbers, what else they may be is null.
_WORDS = frozenset({
    "data", "decode", "init", "layer", "leaks", "palette", "pretrained_on", "protocol", "resolution", "sees",
    "split", "task",
})  # fmt: skip
_NUMBERS = frozenset({"bits_per_pixel", "labels", "saturation", "seed", "temperature", "top1", "top5"})


def _is_list_of_entries(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(entry, dict) and _has_known_kinds(entry) for entry in part)


def _has_known_kinds(entry: Entry) -> bool:
    """Whether what every reader takes for a word or a number is one; lists among the identifying keys could not be looked up."""
    words = all(isinstance(entry[key], (str, type(None))) for key in _WORDS & entry.keys())
    return words and all(entry[key] is None or _is_number(entry[key]) for key in _NUMBERS & entry.keys())


def _is_number(value: Any) -> bool:
    """Whether it is one that a float holds; JSON knows whole numbers of any length, and reads 1e999 as infinity."""
    return isinstance(value, (int, float)) and abs(value) < 1e300


def _plain(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite did not come out, and is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
