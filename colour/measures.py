"""How colourful is a picture, and how far apart do two colours look?

Measures for judging, not losses: at equal colours the gradient of ΔE2000 is infinite.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ..runtime.errors import ArgumentError
from .spaces import Picture, to_float32

_POW25_7 = float(25**7)


def colourfulness(rgb: Picture) -> Float32[Tensor, " b"]:
    """Hasler and Süsstrunk's M3 of every picture: 0 for grey, about 15 slightly, 45 quite, 82 highly colourful.

    M3 = √(σ_rg² + σ_yb²) + 0.3 √(μ_rg² + μ_yb²) with rg = R - G and yb = (R + G)/2 - B over the picture's pixels, in
    0…255; standard deviations of the population (divided by n).

    Args:
        rgb: uint8 in 0…255 or floating in 0…1.

    Raises:
        ArgumentError: not (b, 3, h, w), or neither uint8 nor floating.

    Source: Hasler & Süsstrunk 2003, "Measuring colourfulness in natural images", equations 1–3 of section 7.

    >>> colourfulness(torch.full((1, 3, 4, 4), 90, dtype=torch.uint8)).item()
    0.0
    """
    red, green, blue = (to_float32(rgb) * 255).flatten(2).unbind(1)
    red_green = red - green
    yellow_blue = (red + green).div_(2).sub_(blue)
    variance_rg, mean_rg = torch.var_mean(red_green, dim=1, correction=0)
    variance_yb, mean_yb = torch.var_mean(yellow_blue, dim=1, correction=0)
    return (variance_rg + variance_yb).sqrt() + 0.3 * torch.hypot(mean_rg, mean_yb)


def _hue_and_chroma(lab1: Tensor, lab2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Equations 2–11 and 14: primed chromas, hue difference and mean hue (radians).

    The hue difference is the angle between two vectors, atan2(cross, dot), and not the difference of two angles. Where
    hues are opposite the formula jumps, and the sign of `cross` tells the side; that survives float32, a difference of
    angles does not.
    """
    (a1, b1), (a2, b2) = lab1.unbind(1)[1:], lab2.unbind(1)[1:]
    mean_chroma7 = ((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2).pow(7)
    stretch = 1.5 - 0.5 * (mean_chroma7 / (mean_chroma7 + _POW25_7)).sqrt()
    a1, a2 = a1 * stretch, a2 * stretch
    chroma1, chroma2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    hue1, hue2 = (torch.atan2(b, a).remainder(2 * math.pi) for a, b in ((a1, b1), (a2, b2)))
    cross = a1 * b2 - b1 * a2
    # Exactly opposite: h2 - h1 is +π or -π, whichever keeps both hues in 0…2π.
    cross = torch.where((cross == 0) & (hue1 >= math.pi), -0.0, cross)
    difference = torch.atan2(cross, a1 * a2 + b1 * b2)
    # A grey has no hue, so the mean is the other's.
    mean_hue = torch.where(chroma1 == 0, hue2, torch.where(chroma2 == 0, hue1, hue1 + difference / 2))
    return chroma1, chroma2, difference, mean_hue.remainder(2 * math.pi)


def delta_e2000(lab1: Float[Tensor, "b 3 h w"], lab2: Float[Tensor, "b 3 h w"]) -> Float32[Tensor, "b h w"]:
    """The CIEDE2000 colour difference of every pixel; just noticeable is about 1 to 2.

    Args:
        lab1, lab2: Lab pictures of the same shape (L* in 0…100).

    Raises:
        ArgumentError: the shapes differ, or are not (b, 3, h, w).

    Source: Sharma, Wu & Dalal 2005, "The CIEDE2000 color-difference formula: implementation notes, supplementary test
    data, and mathematical observations", equations 2–22, with k_L = k_C = k_H = 1.

    >>> blue, bluer = (torch.tensor(lab).view(1, 3, 1, 1) for lab in ((50, 2.6772, -79.7751), (50, 0, -82.7485)))
    >>> round(delta_e2000(blue, bluer).item(), 3)
    2.042
    """
    if lab1.shape != lab2.shape or lab1.ndim != 4 or lab1.shape[1] != 3:
        raise ArgumentError(
            f"lab1, lab2: two Lab pictures of one shape (batch, 3, height, width) are needed, "
            f"got {tuple(lab1.shape)} and {tuple(lab2.shape)}."
        )
    lab1, lab2 = lab1.to(torch.float32), lab2.to(torch.float32)
    chroma1, chroma2, hue_difference, hue = _hue_and_chroma(lab1, lab2)
    chroma = (chroma1 + chroma2) / 2
    lightness_offset = ((lab1[:, 0] + lab2[:, 0]) / 2 - 50).square()
    weight_t = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
    scaled_l = (lab2[:, 0] - lab1[:, 0]) / (1 + 0.015 * lightness_offset / (20 + lightness_offset).sqrt())
    scaled_c = (chroma2 - chroma1) / (1 + 0.045 * chroma)
    scaled_h = 2 * (chroma1 * chroma2).sqrt() * torch.sin(hue_difference / 2) / (1 + 0.015 * chroma * weight_t)
    rotation = math.radians(60) * torch.exp(-((hue - math.radians(275)) / math.radians(25)).square())
    chroma7 = chroma.pow(7)
    rotation_t = -torch.sin(rotation) * 2 * (chroma7 / (chroma7 + _POW25_7)).sqrt()
    squared = scaled_l.square() + scaled_c.square() + scaled_h.square() + rotation_t * scaled_c * scaled_h
    return squared.clamp_(min=0).sqrt()
