"""Which palette colours are painted for which? A confusion matrix with swatches on both axes, as a PIL image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..runtime.errors import ArgumentError
from .sheet import label_font

_FULL = np.array((0x1B, 0x5E, 0xA8))  # the cell of a colour that is always painted so
_TITLES = ("painted →", "← true")
_INK, _FRAME = "#222222", "#999999"
_LEAST_WRITTEN = 0.05
_LEAST_CELL = 8
_FONT_SHARE = 0.46  # of the cell's side: two digits fit
_NUMBERS_FROM = 18  # a smaller cell could hold no readable number


def palette_confusion(
    counts: Integer[np.ndarray, "_r _c"] | Integer[Tensor, "_r _c"] | Sequence[Sequence[int]],
    # underscores: colours that do not fit the counts are the user's mistake, and get a sentence
    colours: UInt8[np.ndarray, "_k _3"] | UInt8[Tensor, "_k _3"],
    *,
    cell: int = 26,
) -> Image.Image:
    """How often a palette colour was painted where another was true: rows are true colours, columns painted ones.

    The darker a cell, the larger its share of its row (the square root of the share, so that small shares show); shares of 5 % and
    more are written into it, per cent. Cells of right colours are framed. A colour that never occurs has a white row. Colours stand
    in the order given; sorted by lightness, what strays far from the diagonal is a mistake of lightness.

    Args:
        counts: (k, k) pixels by true and painted label.
        colours: (k, 3) swatches, as `Palette.colours` gives them.
        cell: side of a cell in pixels, at least 8; numbers are left out below 18.

    Returns:
        An RGB image on white.

    Raises:
        ArgumentError: counts that are not square or negative, colours that do not fit them, or a cell too small.

    >>> red_and_blue = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    >>> palette_confusion([[30, 10], [0, 20]], red_and_blue, cell=20).size
    (106, 106)
    """
    matrix, swatches = _as_array(counts).astype(np.float64), _as_array(colours)
    _check(matrix, swatches, cell)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size, gap = len(matrix), max(3, cell // 6)
    font = label_font(round(cell * _FONT_SHARE))
    title_font = label_font(max(12, round(cell * _FONT_SHARE)))
    title = round(title_font.size * 1.4)
    start = gap + title + cell + gap  # where the cells begin, at the top and at the left
    # a few small colours are narrower than the words beside them
    side = start + max(size * cell, *(round(title_font.getlength(text)) for text in _TITLES)) + gap
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    draw.text((start, gap), _TITLES[0], fill=_INK, font=title_font)
    _write_upwards(image, _TITLES[1], (gap, start), title_font)
    for place, swatch in enumerate(swatches):
        at, fill = start + place * cell, tuple(int(value) for value in swatch)
        draw.rectangle(_box(at, gap + title, cell), fill=fill, outline=_FRAME)
        draw.rectangle(_box(gap + title, at, cell), fill=fill, outline=_FRAME)
    for (row, column), share in np.ndenumerate(shares):
        left, top = start + column * cell, start + row * cell
        right = row == column
        draw.rectangle(_box(left, top, cell), fill=_shade(share), outline=_INK if right else None)
        if share >= _LEAST_WRITTEN and cell >= _NUMBERS_FROM:
            middle, ink = (left + cell // 2, top + cell // 2), "white" if share > 0.3 else _INK
            draw.text(middle, f"{100 * share:.0f}", fill=ink, font=font, anchor="mm")
    return image


def _as_array(values: object) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _check(matrix: Float[np.ndarray, ...], swatches: np.ndarray, cell: int) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size or matrix.min() < 0:
        raise ArgumentError(
            f"counts: got shape {matrix.shape}; needed are counts of k × k pairs of colours, none negative."
        )
    if swatches.dtype != np.uint8 or swatches.shape != (len(matrix), 3):
        raise ArgumentError(
            f"colours: got {swatches.dtype} of shape {swatches.shape}; {len(matrix)} uint8 RGB colours are needed."
        )
    if cell < _LEAST_CELL:
        raise ArgumentError(f"cell: got {cell}; a cell is at least {_LEAST_CELL} pixels wide.")


def _box(left: int, top: int, cell: int) -> tuple[int, int, int, int]:
    """A cell's rectangle, one pixel short of its neighbour: PIL paints the last pixel too."""
    return left, top, left + cell - 2, top + cell - 2


def _shade(share: float) -> tuple[int, ...]:
    weight = share**0.5
    return tuple(int(value) for value in np.round(255 * (1 - weight) + _FULL * weight))


def _write_upwards(image: Image.Image, text: str, corner: tuple[int, int], font: ImageFont.FreeTypeFont) -> None:
    """Text turned by a quarter, read from below, its end at the corner."""
    left, _, right, bottom = font.getbbox(text)
    strip = Image.new("RGB", (round(right - left) + 2, round(bottom) + 2), "white")
    ImageDraw.Draw(strip).text((1 - left, 0), text, fill=_INK, font=font)
    image.paste(strip.transpose(Image.Transpose.ROTATE_90), corner)
