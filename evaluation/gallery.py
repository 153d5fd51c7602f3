"""Which pictures does the report page show, in which rows, and how do they get inside the file?"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from .report_run import ReportRun
from .sheet import as_pictures

MOST_PICTURES = 24


def galleries(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """Contact sheets: runs that painted the same pictures stand in one, between grey and true."""
    sheets: list[dict[str, Any]] = []
    for run in runs:
        if not run.pictures or any(run.pictures.get(key) is None for key in ("grey", "painted", "true")):
            continue
        true = as_pictures(run.pictures["true"], "true")[:MOST_PICTURES]
        painted = as_pictures(run.pictures["painted"], "painted")[:MOST_PICTURES]
        for sheet in sheets:
            if np.array_equal(sheet["true"], true):
                break
        else:
            grey = as_pictures(run.pictures["grey"], "grey")[:MOST_PICTURES]
            sheet = {"true": true, "rows": [_strip("grey", grey)], "side": _shown_side(true)}
            sheets.append(sheet)
        sheet["rows"].append(_strip(run.name, painted))
    for sheet in sheets:
        sheet["rows"].append(_strip("true", sheet.pop("true")))
    return sheets


def histories(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """How colour arrived: a run's paintings by epoch, and the true pictures below."""
    sheets = []
    for run in runs:
        history = (run.pictures or {}).get("history")
        if not history:
            continue
        epochs = sorted(history, key=int)
        rows = [_strip(f"epoch {epoch}", as_pictures(history[epoch], "history")[:MOST_PICTURES]) for epoch in epochs]
        true = (run.pictures or {}).get("true")
        if true is not None:
            rows.append(_strip("true", as_pictures(true, "true")[: len(rows[0]["pictures"])]))
        sheets.append({"name": run.name, "rows": rows, "side": _shown_side(as_pictures(history[epochs[0]]))})
    return sheets


def _shown_side(pictures: np.ndarray) -> int:
    """Screen pixels a side: whole multiples of small pictures, so that their pixels stay square."""
    side = max(pictures.shape[-2:])
    return side * max(1, round(72 / side))


def _strip(label: str, pictures: np.ndarray) -> dict[str, Any]:
    return {"label": label, "pictures": [_data_uri(picture) for picture in pictures]}


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0))).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
