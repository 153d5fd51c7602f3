"""How well does a run paint a data set? One entry for `results.json`, and pictures to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from ..colour import luma, to_uint8
from ..data import ImageSource
from ..evaluation import ColourQuality, contact_sheet
from ..pretext import Painter
from ..runtime.files import write_atomically
from ..runtime.runfolder import RunFolder

SHOWN_PICTURES = 12


def measure_colour(painter: Painter, source: ImageSource, split: str) -> dict[str, Any]:
    """Colour quality over all images of a source, with baselines; keys as in `results.json`."""
    task = painter.task
    quality = ColourQuality(task.palette)
    for true, painted, predictions in painter.predictions(source, torch.arange(len(source))):
        quality.update(painted, true, predictions if task.palette is not None else None, task.grey)
    palette = None if task.palette is None else f"{task.palette.space}-{task.palette.size}"
    about = {
        "data": source.name,
        "fingerprint": source.fingerprint,
        "split": split,
        "task": task.name,
        "palette": palette,
    }
    return {**about, "images": len(source), **quality.compute()}


def save_pictures(
    folder: RunFolder, name: str, rgb: UInt8[Tensor, "b 3 h w"], painter: Painter
) -> UInt8[np.ndarray, "height width 3"]:
    """Writes grey | painted | true as `figures/<name>.npz` (for reports) and `.png` (for people); returns the sheet."""
    rgb = rgb.to(painter.compute.device)
    grey = to_uint8(luma(rgb, painter.task.grey).expand(-1, 3, -1, -1))
    rows = {"grey": grey, "painted": painter.paint(rgb), "true": rgb}
    arrays = {key: value.cpu().numpy() for key, value in rows.items()}
    write_atomically(folder.figures / f"{name}.npz", lambda path: _save_arrays(path, arrays))
    sheet = contact_sheet(list(arrays.values()), labels=list(arrays))
    write_atomically(folder.figures / f"{name}.png", lambda path: sheet.save(path, format="PNG"))
    return np.asarray(sheet.convert("RGB"))


def spread_ids(images: int) -> Int64[Tensor, " n"]:
    """A handful of image ids spread evenly over a source, so that every class shows."""
    return torch.linspace(0, images - 1, min(SHOWN_PICTURES, images)).round().long()


def _save_arrays(path: Any, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
