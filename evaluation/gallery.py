"""Which pictures does the report page show, in which rows, and how do they get inside the file?"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from .extremes import picture_delta_e2000
from .report_run import ReportRun
from .sheet import as_pictures
from .swatches import palette_confusion

MOST_PICTURES = 24
_MOST_EPOCHS = 8  # rows of a history; the first and the last are always among them
_MOST_SWATCHES = 64  # a larger confusion of colours has cells too small to see


def galleries(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """Contact sheets: runs that painted the same pictures stand in one, between grey and true.

    Below a run's paintings lies a row that says how sure it was of them, where that is known.
    """
    sheets: list[dict[str, Any]] = []
    for run in runs:
        if not run.pictures or any(run.pictures.get(key) is None for key in ("grey", "painted", "true")):
            continue
        true = as_pictures(run.pictures["true"], "true")[:MOST_PICTURES]
        for sheet in sheets:
            if np.array_equal(sheet["true"], true):
                break
        else:
            grey = as_pictures(run.pictures["grey"], "grey")[:MOST_PICTURES]
            sheet = {"true": true, "rows": [_strip("grey", grey)], "side": _shown_side(true)}
            sheets.append(sheet)
        sheet["rows"] += _painted_rows(run.name, run.pictures, true)
    for sheet in sheets:
        sheet["sure"] = any(row["kind"] == "sure" for row in sheet["rows"])
        sheet["rows"].append(_strip("true", sheet.pop("true")))
    return sheets


def extremes(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """The worst and the best pictures of each run, with what the whole sample's ΔE2000 comes to."""
    found = []
    for run in runs:
        if not run.extremes:
            continue
        true = as_pictures(run.extremes["true"], "true")
        half = len(true) // 2
        if not half:
            continue
        rows = [
            _strip("grey", as_pictures(run.extremes["grey"], "grey")),
            *_painted_rows(run.name, run.extremes, true),
            _strip("true", true),
        ]
        errors = np.asarray(run.extremes["delta_e2000"], dtype=np.float64)
        low, middle, high = np.quantile(errors, (0.1, 0.5, 0.9)).tolist()
        told = f"{len(errors):,} pictures: median ΔE2000 {middle:.1f}, four fifths between {low:.1f} and {high:.1f}"
        parts = {"worst": slice(None, half), "best": slice(half, None)}
        found.append(
            {
                "name": run.name,
                "told": told,
                "side": _shown_side(true),
                "sure": any(row["kind"] == "sure" for row in rows),
                "parts": [(word, [_cut(row, part) for row in rows]) for word, part in parts.items()],
            }
        )
    return found


def histories(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """How colour arrived: a run's paintings by epoch, at most eight epochs of them, and the true pictures below."""
    sheets = []
    for run in runs:
        history = (run.pictures or {}).get("history")
        if not history:
            continue
        epochs = sorted(history, key=int)
        if len(epochs) > _MOST_EPOCHS:
            # by ratios and not by differences: colour arrives early, and later epochs look alike
            kept = np.geomspace(1, len(epochs), _MOST_EPOCHS).round().astype(int) - 1
            epochs = [epochs[index] for index in dict.fromkeys(kept.tolist())]
        rows = [_strip(f"epoch {epoch}", as_pictures(history[epoch], "history")[:MOST_PICTURES]) for epoch in epochs]
        true = (run.pictures or {}).get("true")
        if true is not None:
            rows.append(_strip("true", as_pictures(true, "true")[: len(rows[0]["pictures"])]))
        side = _shown_side(as_pictures(history[epochs[0]]))
        sheets.append({"name": run.name, "rows": rows, "side": side, "sure": False})
    return sheets


def swatches(confusions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Confusions of palette colours, from `result_sections.palette_confusions`, as pictures."""
    drawn = []
    for each in confusions:
        if len(each["colours"]) <= _MOST_SWATCHES:
            image = palette_confusion(each["counts"], each["colours"])
            drawn.append({"name": each["name"], "title": each["title"], "picture": _png(image), "width": image.width})
    return drawn


def _painted_rows(name: str, pictures: Mapping[str, Any], true: np.ndarray) -> list[dict[str, Any]]:
    """A run's paintings with the error of each, and how sure it was where that is known."""
    painted = as_pictures(pictures["painted"], "painted")[: len(true)]
    errors = picture_delta_e2000(torch.from_numpy(painted), torch.from_numpy(true)).tolist()
    rows = [_strip(name, painted) | {"notes": [f"ΔE2000 {error:.1f}" for error in errors], "kind": "painted"}]
    if pictures.get("confidence") is not None:
        levels = np.asarray(pictures["confidence"])[: len(true)]
        rows.append(_strip(f"{name}, how sure", np.stack([levels] * 3, axis=1)) | {"kind": "sure"})
    return rows


def _shown_side(pictures: np.ndarray) -> int:
    """Screen pixels a side: whole multiples of small pictures, so that their pixels stay square."""
    side = max(pictures.shape[-2:])
    return side * max(1, round(72 / side))


def _strip(label: str, pictures: UInt8[np.ndarray, "n 3 h w"]) -> dict[str, Any]:
    uris = [_png(Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))) for picture in pictures]
    return {"label": label, "pictures": uris, "notes": [""] * len(uris), "kind": ""}


def _cut(row: Mapping[str, Any], part: slice) -> dict[str, Any]:
    """Some of a row's pictures."""
    return {**row, "pictures": row["pictures"][part], "notes": row["notes"][part]}


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
