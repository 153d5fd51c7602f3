"""How do pictures move between sRGB, luma, CIE Lab and YCbCr, fast and on any device?

All conversions are elementwise on whole batches: no matrix product, whose precision autocast or TF32 would lower
behind our back, no host synchronisation, and no constant that has to be copied to the device. Pictures are
(b, 3, h, w), either uint8 in 0…255 or floating in 0…1; whatever comes back as floating is float32.
Made for targets, painting and measuring: some work in place, and near black their slopes are infinite or undefined.

Sources: IEC 61966-2-1 (sRGB), CIE 15:2004 (Lab), ITU-R BT.601 and BT.709 (luma), ITU-T T.871 (JPEG's full-range YCbCr).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError, UnknownNameError

GREY_FORMULAS = ("rec601", "rec709", "mean", "lstar")

Picture: TypeAlias = UInt8[Tensor, "b 3 h w"] | Float[Tensor, "b 3 h w"]

LUMA_WEIGHTS = {"rec601": (0.299, 0.587, 0.114), "rec709": (0.2126, 0.7152, 0.0722), "mean": (1 / 3, 1 / 3, 1 / 3)}

# Linear sRGB to XYZ (D65), to six digits, as scikit-image and OpenCV have it.
_XYZ_FROM_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
# White is what this matrix gives for R = G = B = 1, and not the rounded (0.95047, 1, 1.08883): so every grey has
# a = b = 0 up to rounding, and "no chroma" means the same in Lab as in RGB. scikit-image is less than 0.01 away.
_XYZ_FROM_RGB_WHITE_1 = tuple(tuple(weight / sum(row) for weight in row) for row in _XYZ_FROM_RGB)
# Where Lab's cube root gives way to a straight line, and that line, with scikit-image's digits.
_LAB_KNEE, _LAB_SLOPE, _LAB_OFFSET = 0.008856, 7.787, 16 / 116


def _inverse3(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """The inverse of a 3 × 3 matrix by cofactors, in double precision."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    cofactors = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    return tuple(tuple(value / determinant for value in row) for row in cofactors)


_RGB_FROM_XYZ_WHITE_1 = _inverse3(_XYZ_FROM_RGB_WHITE_1)


def _check_picture(argument: str, picture: Tensor) -> None:
    """ArgumentError unless `picture` is a batch of three channels; looks at shape and kind alone, so nothing waits."""
    if picture.ndim != 4 or picture.shape[1] != 3:
        raise ArgumentError(f"{argument}: pictures must be (batch, 3, height, width), got {tuple(picture.shape)}.")
    if picture.dtype != torch.uint8 and not picture.is_floating_point():
        raise ArgumentError(f"{argument}: pictures must be uint8 in 0…255 or floating in 0…1, got {picture.dtype}.")


def _check_formula(formula: str) -> None:
    if formula not in GREY_FORMULAS:
        raise UnknownNameError("grey formula", formula, GREY_FORMULAS)


def _combine(channels: tuple[Tensor, ...], weights: tuple[float, ...]) -> Float32[Tensor, "b h w"]:
    """The weighted sum of three channels (uint8 or floating), as float32."""
    first, *rest = channels
    total = first.to(torch.float32) * weights[0]
    for channel, weight in zip(rest, weights[1:], strict=True):
        total.add_(channel, alpha=weight)
    return total


def to_float(rgb: UInt8[Tensor, "b 3 h w"]) -> Float32[Tensor, "b 3 h w"]:
    """uint8 RGB as float32 in 0…1.

    Raises:
        ArgumentError: not uint8, or not (b, 3, h, w).

    >>> to_float(torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)).flatten().tolist()
    [0.20000000298023224, 0.20000000298023224, 0.20000000298023224]
    """
    _check_picture("rgb", rgb)
    if rgb.dtype != torch.uint8:
        raise ArgumentError(f"rgb: to_float takes uint8 pictures, got {rgb.dtype}; floating ones are in 0…1 already.")
    return rgb.to(torch.float32).div_(255)


def to_uint8(rgb: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """Floating pictures of 0…1 as uint8: rounded to the nearest level (halves to even), clamped to 0…255.

    >>> to_uint8(torch.tensor([-0.5, 0.2, 7.0]).view(1, 3, 1, 1)).flatten().tolist()
    [0, 51, 255]
    """
    return (rgb.to(torch.float32) * 255).round_().clamp_(0, 255).to(torch.uint8)


def to_float32(rgb: Tensor) -> Tensor:
    """A picture as float32 in 0…1; a float32 one comes back as it is, not as a copy."""
    _check_picture("rgb", rgb)
    return to_float(rgb) if rgb.dtype == torch.uint8 else rgb.to(torch.float32)


def _srgb_to_linear(rgb: Float32[Tensor, ...]) -> Float32[Tensor, ...]:
    """sRGB's transfer function: display values to light, both in 0…1."""
    return torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp_(min=0).pow_(2.4), rgb / 12.92)


def _linear_to_srgb(light: Float32[Tensor, ...]) -> Float32[Tensor, ...]:
    """The inverse of :func:`_srgb_to_linear`, clipped to 0…1; overwrites its argument."""
    light.clamp_(min=0)
    straight = light * 12.92
    return torch.where(light > 0.0031308, light.pow_(1 / 2.4).mul_(1.055).sub_(0.055), straight).clamp_(max=1)


def _linear_light(rgb: Picture) -> Float32[Tensor, "b 3 h w"]:
    """A picture's linear light in 0…1."""
    if rgb.dtype != torch.uint8:
        return _srgb_to_linear(rgb.to(torch.float32))
    # Only 256 values are possible, so the power is taken 256 times and looked up (4 times quicker on a CPU). The table
    # is made on the device by the same function: nothing is copied there, and uint8 and float pictures agree.
    table = _srgb_to_linear(torch.arange(256, device=rgb.device, dtype=torch.float32) / 255)
    return table.index_select(0, rgb.flatten().to(torch.int32)).view(rgb.shape)


def _lab_compress(xyz: Float32[Tensor, "b h w"]) -> Float32[Tensor, "b h w"]:
    """Lab's f: a cube root with a straight line near black; overwrites its argument."""
    straight = (xyz * _LAB_SLOPE).add_(_LAB_OFFSET)
    return torch.where(xyz > _LAB_KNEE, xyz.clamp_(min=0).pow_(1 / 3), straight)


def _lab_expand(f: Float32[Tensor, "b h w"]) -> Float32[Tensor, "b h w"]:
    """The inverse of :func:`_lab_compress`."""
    return torch.where(f > _LAB_KNEE ** (1 / 3), f * f * f, (f - _LAB_OFFSET) / _LAB_SLOPE)


def rgb_to_lab(rgb: Picture) -> Float32[Tensor, "b 3 h w"]:
    """sRGB to CIE Lab (D65, 2° observer).

    Args:
        rgb: uint8 in 0…255 or floating in 0…1.

    Returns:
        L* in 0…100, a* and b* about -128…127; within 0.01 of scikit-image's `rgb2lab`.

    Raises:
        ArgumentError: not (b, 3, h, w), or neither uint8 nor floating.

    >>> white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    >>> [round(value, 2) + 0 for value in rgb_to_lab(white).flatten().tolist()]
    [100.0, 0.0, 0.0]
    """
    _check_picture("rgb", rgb)
    light = _linear_light(rgb).unbind(1)
    x, y, z = (_lab_compress(_combine(light, row)) for row in _XYZ_FROM_RGB_WHITE_1)
    return torch.stack((y * 116 - 16, (x - y).mul_(500), (y - z).mul_(200)), dim=1)


def lab_to_rgb(lab: Float[Tensor, "b 3 h w"]) -> Float32[Tensor, "b 3 h w"]:
    """CIE Lab (D65) to sRGB in 0…1; colours that no display has are clipped, channel by channel.

    The inverse of :func:`rgb_to_lab`: uint8 pictures come back as they were, after :func:`to_uint8`.

    Raises:
        ArgumentError: not (b, 3, h, w).

    >>> mid_grey = torch.tensor([53.585, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> to_uint8(lab_to_rgb(mid_grey)).flatten().tolist()
    [128, 128, 128]
    """
    _check_picture("lab", lab)
    lightness, a, b = lab.to(torch.float32).unbind(1)
    y = (lightness + 16) / 116
    # A strong yellow asks for less Z than there can be; the limit is scikit-image's, so that both clip alike.
    xyz = (_lab_expand(y + a / 500), _lab_expand(y), _lab_expand((y - b / 200).clamp_(min=0)))
    return _linear_to_srgb(torch.stack([_combine(xyz, row) for row in _RGB_FROM_XYZ_WHITE_1], dim=1))


def rgb_to_ycbcr(rgb: Picture) -> Float32[Tensor, "b 3 h w"]:
    """sRGB to JPEG's full-range YCbCr (rec601 luma): Y in 0…1, Cb and Cr in -0.5…0.5, grey at 0.

    Raises:
        ArgumentError: not (b, 3, h, w), or neither uint8 nor floating.

    >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    >>> [round(value, 3) for value in rgb_to_ycbcr(red).flatten().tolist()]
    [0.299, -0.169, 0.5]
    """
    red, green, blue = to_float32(rgb).unbind(1)
    # From the differences to green, and not as B - Y: a grey pixel then has a chroma of exactly zero.
    red_green, blue_green = red - green, blue - green
    y = green + red_green * 0.299 + blue_green * 0.114
    cb = (blue_green * (1 - 0.114)).sub_(red_green, alpha=0.299).div_(1.772)
    cr = (red_green * (1 - 0.299)).sub_(blue_green, alpha=0.114).div_(1.402)
    return torch.stack((y, cb, cr), dim=1)


def ycbcr_to_rgb(ycbcr: Float[Tensor, "b 3 h w"]) -> Float32[Tensor, "b 3 h w"]:
    """Full-range YCbCr (Y in 0…1, Cb and Cr in -0.5…0.5) to sRGB, clipped to 0…1.

    Raises:
        ArgumentError: not (b, 3, h, w).

    >>> red = torch.tensor([0.299, -0.168736, 0.5]).view(1, 3, 1, 1)
    >>> to_uint8(ycbcr_to_rgb(red)).flatten().tolist()
    [255, 0, 0]
    """
    _check_picture("ycbcr", ycbcr)
    y, cb, cr = ycbcr.to(torch.float32).unbind(1)
    red_minus_y, blue_minus_y = cr * 1.402, cb * 1.772
    green = (y - red_minus_y * (0.299 / 0.587)).sub_(blue_minus_y, alpha=0.114 / 0.587)
    return torch.stack((red_minus_y.add_(y), green, blue_minus_y.add_(y)), dim=1).clamp_(0, 1)


def luma(rgb: Picture, formula: str = "rec601") -> Float32[Tensor, "b 1 h w"]:
    """The grey picture of a colour picture.

    Args:
        rgb: uint8 in 0…255 or floating in 0…1.
        formula: "rec601" (0.299 R + 0.587 G + 0.114 B), "rec709" (0.2126, 0.7152, 0.0722), "mean" (a third each), all
            on display values, or "lstar" (CIE L* divided by 100).

    Returns:
        Grey in 0…1.

    Raises:
        UnknownNameError: `formula` is none of these.
        ArgumentError: not (b, 3, h, w), or neither uint8 nor floating.

    >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    >>> [round(luma(red, formula).item(), 3) for formula in GREY_FORMULAS]
    [0.299, 0.213, 0.333, 0.532]
    """
    _check_formula(formula)
    _check_picture("rgb", rgb)
    if formula == "lstar":
        y = _lab_compress(_combine(_linear_light(rgb).unbind(1), _XYZ_FROM_RGB_WHITE_1[1]))
        grey = y.mul_(1.16).sub_(0.16)
    else:
        grey = _combine(rgb.unbind(1), LUMA_WEIGHTS[formula])
        if rgb.dtype == torch.uint8:
            grey.div_(255)
    return grey.unsqueeze(1)


def grey_levels(rgb: Picture, formula: str = "rec601") -> UInt8[Tensor, "b h w"]:
    """The grey picture as a viewer would store it: :func:`luma` rounded to one of 256 levels.

    >>> grey_levels(torch.full((1, 3, 1, 1), 77, dtype=torch.uint8)).item()
    77
    """
    return to_uint8(luma(rgb, formula)).squeeze(1)


def with_luma(
    rgb: Float[Tensor, "b 3 h w"], grey: Float[Tensor, "b 1 h w"], formula: str = "rec601"
) -> Float32[Tensor, "b 3 h w"]:
    """A picture with its own chroma and another picture's luma.

    The linear formulas add the missing luma to all three channels, which is what joining Y with Cb and Cr does; "lstar"
    replaces L* and keeps a* and b*. The luma is the wanted one wherever nothing had to be clipped.

    Args:
        rgb: the colours, 0…1.
        grey: the wanted luma by the same formula, 0…1.
        formula: one of :data:`GREY_FORMULAS`.

    Returns:
        RGB, clipped to 0…1.

    Raises:
        UnknownNameError: an unknown `formula`.
        ArgumentError: not (b, 3, h, w).

    >>> brown = torch.tensor([0.4, 0.3, 0.2]).view(1, 3, 1, 1)
    >>> [round(value, 3) for value in with_luma(brown, torch.full((1, 1, 1, 1), 0.5), "mean").flatten().tolist()]
    [0.6, 0.5, 0.4]
    """
    _check_formula(formula)
    if formula == "lstar":
        lab = rgb_to_lab(rgb)
        lab[:, :1] = grey * 100
        return lab_to_rgb(lab)
    return (rgb + (grey - luma(rgb, formula))).to(torch.float32).clamp_(0, 1)
