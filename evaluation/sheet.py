"""How do the same pictures look grey, painted by each run, and true? A labelled contact sheet as a PIL image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..runtime.errors import ArgumentError

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


def plain_label(text: str, limit: int = 40) -> str:
    """A label that any renderer takes: control characters become spaces, the middle of a long one is left out.

    >>> plain_label("a\\nb"), plain_label("0123456789", limit=7)
    ('a b', '012…789')
    """
    text = _CONTROL.sub(" ", str(text))
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def as_pictures(pictures: Any, name: str = "pictures") -> UInt8[np.ndarray, "n 3 h w"]:
    """Pictures, a tensor on any device or an array, as a uint8 array (n, 3, h, w); ArgumentError for anything else."""
    array = pictures.detach().cpu().numpy() if isinstance(pictures, Tensor) else np.asarray(pictures)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] != 3:
        raise ArgumentError(
            f"{name}: got {array.dtype} of shape {array.shape}; pictures are uint8 of shape (n, 3, h, w)."
        )
    return array


def contact_sheet(
    rows: Sequence[Any],
    labels: Sequence[str] | None = None,
    *,
    scale: int = 3,
    columns: int | None = None,
    gutter: int = 4,
) -> Image.Image:
    """The same pictures several times over, one row a version: grey, each run's painting, true.

    `rows` are uint8 RGB (n, 3, h, w), tensors or arrays, all of one shape; `labels` name them at the left margin.
    Pixels are enlarged `scale` times by nearest neighbour. With more pictures than `columns` the sheet goes on in
    further blocks below. White gutters of `gutter` pixels. Returns an RGB image. Raises ArgumentError for no rows,
    shapes that differ, or a wrong number of labels.
    """
    arrays = [as_pictures(row, f"rows[{index}]") for index, row in enumerate(rows)]
    names = [plain_label(label) for label in (labels if labels is not None else [""] * len(arrays))]
    _check_sheet(arrays, names, scale, columns)
    count, _, height, width = arrays[0].shape
    across = min(columns or count, count)
    font = label_font(max(11, min(18, height * scale // 5)))
    margin = max(_text_size(font, name)[0] for name in names)
    left = gutter + (margin + 2 * gutter if margin else 0)
    cell_h, cell_w = max(height * scale, _text_size(font, "Äg")[1]) + gutter, width * scale + gutter
    blocks = -(-count // across)
    between = 3 * gutter  # blocks stand further apart than rows
    size = (left + across * cell_w, gutter + blocks * len(arrays) * cell_h + (blocks - 1) * between)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for block in range(blocks):
        top = gutter + block * (len(arrays) * cell_h + between)
        for array, name in zip(arrays, names, strict=True):
            draw.text((gutter, top + (cell_h - gutter) // 2), name, fill="#222222", font=font, anchor="lm")
            for column, picture in enumerate(array[block * across : (block + 1) * across]):
                sheet.paste(_enlarged(picture, scale), (left + column * cell_w, top))
            top += cell_h
    return sheet


def _check_sheet(arrays: Sequence[np.ndarray], names: Sequence[str], scale: int, columns: int | None) -> None:
    if not arrays or arrays[0].shape[0] == 0:
        raise ArgumentError("rows: got no pictures; a contact sheet needs at least one row with one picture.")
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ArgumentError(f"rows: got shapes {sorted(shapes)}; every row needs the same pictures in the same size.")
    if len(names) != len(arrays):
        raise ArgumentError(f"labels: got {len(names)} for {len(arrays)} rows; give one label a row.")
    if scale < 1 or (columns is not None and columns < 1):
        raise ArgumentError(f"scale and columns: got {scale} and {columns}; both are positive whole numbers.")


def label_font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships this file, so that names with accents, Greek or Cyrillic letters are drawn the same on every
    # machine
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _text_size(font: ImageFont.FreeTypeFont, text: str) -> tuple[int, int]:
    left, top, right, bottom = font.getbbox(text)
    return round(right - min(left, 0)), round(bottom - min(top, 0))


def _enlarged(picture: UInt8[np.ndarray, "3 h w"], scale: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
