"""How do charts and groups of contact sheets become PNG pictures for the documents?"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pretint.colour import to_uint8
from pretint.evaluation import contact_sheet, grey_picture

_STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "text.parse_math": False,
}
_DOTS_PER_INCH = 110
_TITLE = 18.0
_BETWEEN = 14


def chart_style() -> Any:
    """The context in which a chart is drawn."""
    return matplotlib.rc_context(_STYLE)


def rendered(figure: Figure) -> Image.Image:
    """A chart as an RGB picture on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, facecolor="white")
    return Image.open(buffer).convert("RGB")


def grey_of(rgb: Tensor, grey: str) -> Tensor:
    """The grey of pictures by a formula, as pictures."""
    return to_uint8(grey_picture(rgb, grey))


def side_by_side(groups: Mapping[str, Sequence[Any]], labels: Sequence[str], scale: int = 2) -> Image.Image:
    """Contact sheets of different pictures in the same rows, each below its title; the rows' labels stand at the left."""
    sheets = [
        contact_sheet(rows, labels if place == 0 else None, scale=scale) for place, rows in enumerate(groups.values())
    ]
    font = ImageFont.load_default(_TITLE)
    top = round(1.4 * _TITLE)
    widths = [max(sheet.width, round(font.getlength(name)) + 8) for name, sheet in zip(groups, sheets, strict=True)]
    whole = Image.new("RGB", (sum(widths) + _BETWEEN * (len(sheets) - 1), top + sheets[0].height), "white")
    draw, left = ImageDraw.Draw(whole), 0
    for name, sheet, width in zip(groups, sheets, widths, strict=True):
        pictures_wide = len(groups[name][0]) * (groups[name][0].shape[-1] * scale + 4)
        title_at = max(left, left + sheet.width - pictures_wide)  # above the pictures, not above the labels
        draw.text((title_at, 2), name, fill="#222222", font=font)
        whole.paste(sheet, (left, top))
        left += width + _BETWEEN
    return whole
