"""Colour spaces, palettes and measures: pure functions on tensors, on any device."""

from .balance import PixelWeights, class_weights, has_colour, smoothed_prior
from .bins import ab_bins, bin_palette, bin_prior, nearest_bin
from .histogram import Histogram, fit_palette, rgb_histogram
from .measures import colourfulness, delta_e2000
from .palette import Palette, build_palette, count_palette
from .resolution import shrink, shrink_to
from .soft import SoftLabels
from .spaces import (
    GREY_FORMULAS,
    LUMA_WEIGHTS,
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
    "LUMA_WEIGHTS",
    "PALETTE_SPACES",
    "Histogram",
    "Palette",
    "PixelWeights",
    "SoftLabels",
    "ab_bins",
    "bin_palette",
    "bin_prior",
    "build_palette",
    "class_weights",
    "colourfulness",
    "count_palette",
    "delta_e2000",
    "fit_palette",
    "grey_levels",
    "has_colour",
    "lab_to_rgb",
    "luma",
    "nearest_bin",
    "rgb_histogram",
    "rgb_to_lab",
    "rgb_to_ycbcr",
    "shrink",
    "shrink_to",
    "smoothed_prior",
    "to_float",
    "to_palette_space",
    "to_uint8",
    "with_luma",
    "ycbcr_to_rgb",
]
