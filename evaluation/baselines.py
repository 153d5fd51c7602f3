"""What can be had without any network: grey pictures, the most frequent colours, the best guess from a grey level?"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float, Float32, Float64, UInt8
from torch import Tensor

from ..colour import Palette, ab_bins, grey_levels, lab_to_rgb, luma, rgb_to_lab

Picture: TypeAlias = UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]
# (log P(label), rank of the label)
LabelTable: TypeAlias = tuple[Tensor, Tensor]

# A prior that calls a label impossible would make one such pixel infinitely wrong: probabilities are at least this.
SMALLEST_PROBABILITY = 1e-12


def grey_picture(rgb: Picture, formula: str = "rec601") -> Float[Tensor, "b 3 h w"]:
    """The all-grey picture, RGB in 0…1: every pixel the grey of the same luma (of the same L* for `lstar`)."""
    grey = luma(rgb, formula)
    if formula == "lstar":
        chroma = torch.zeros_like(grey).expand(-1, 2, -1, -1)
        return lab_to_rgb(torch.cat((grey * 100, chroma), dim=1))
    return grey.expand(-1, 3, -1, -1)


def prior_chroma(bin_prior: Float64[Tensor, " q"]) -> Float32[Tensor, " 2"]:
    """The mean chroma (a*, b*) of pixels whose ab bins are so frequent: the best constant guess, by squared error."""
    return (bin_prior @ ab_bins().to(torch.float64)).to(torch.float32)


def prior_picture(rgb: Picture, chroma: Float[Tensor, " 2"], formula: str = "rec601") -> Float[Tensor, "b 3 h w"]:
    """The picture with the same chroma (a*, b*) everywhere and the lightness of its grey: RGB, clipped to 0…1."""
    lightness = rgb_to_lab(grey_picture(rgb, formula))[:, :1]
    return lab_to_rgb(torch.cat((lightness, chroma.view(1, 2, 1, 1).expand(len(rgb), 2, *rgb.shape[-2:])), dim=1))


def grey_lookup_picture(rgb: UInt8[Tensor, "b 3 h w"], palette: Palette) -> Float32[Tensor, "b 3 h w"]:
    """Every pixel in the palette's colour that was most frequent at its grey level in training, RGB in 0…1."""
    best = palette.grey_lookup.argmax(1).to(rgb.device)  # (256,)
    labels = best[grey_levels(rgb, palette.grey).long()]  # (b, h, w)
    return palette.decode(palette.centres.to(rgb.device)[labels].movedim(-1, 1), luma(rgb, palette.grey))


def label_tables(palette: Palette, device: torch.device) -> tuple[LabelTable, LabelTable]:
    """(log P(label), rank of the label) as (k,) tables, and the same given the grey level as (256, k) tables.

    The lookup is smoothed by adding one to every count, so that a label never met at a grey level is improbable and
    not impossible.
    """
    prior = palette.prior.to("cpu", torch.float64)
    counts = palette.grey_lookup.to("cpu", torch.float64) + 1
    tables = []
    for probabilities in (prior.clamp_min(SMALLEST_PROBABILITY), counts / counts.sum(1, keepdim=True)):
        # twice argsort: the place of every label among the most probable, equals by index
        ranks = probabilities.argsort(dim=-1, descending=True, stable=True).argsort(-1)
        log = probabilities.log().float() if device.type == "mps" else probabilities.log()
        tables.append((log.to(device), ranks.to(device)))
    return tables[0], tables[1]
