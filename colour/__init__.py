"""Colour spaces, palettes and measures: pure functions on tensors, on any device."""

from .histogram import Histogram, fit_palette, rgb_histogram
from .measures import colourfulness, delta_e2000
from .palette import Palette, build_palette
from .spaces import (
    GREY_FORMULAS,
    grey_levels,
    lab_to_rgb,
    luma,
    rgb_to_lab,
    rgb_to_ycbcr,
    to_float,
    to_uint8,
    with_luma,
    ycbcr_to_rgb,
)
from .tables import PALETTE_SPACES, to_palette_space

__all__ = [
    "GREY_FORMULAS",
    "PALETTE_SPACES",
    "Histogram",
    "Palette",
    "build_palette",
    "colourfulness",
    "delta_e2000",
    "fit_palette",
    "grey_levels",
    "lab_to_rgb",
    "luma",
    "rgb_histogram",
    "rgb_to_lab",
    "rgb_to_ycbcr",
    "to_float",
    "to_palette_space",
    "to_uint8",
    "with_luma",
    "ycbcr_to_rgb",
]
