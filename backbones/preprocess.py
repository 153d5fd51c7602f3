"""How does an RGB picture become an encoder's input? Explicit, and stored with the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..colour import GREY_FORMULAS, luma, rgb_to_lab, rgb_to_ycbcr, to_float
from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.pictures import to_rgb_image

CHROMA_SPACES = ("cbcr", "ab")
_AB_SCALE = 128.0
_DARKEST, _BRIGHTEST = -0.5, 1.5  # resampling overshoots black and white a little


@dataclass(frozen=True)
class Preprocess:
    """RGB to an encoder's input: grey, chroma, both or RGB, then (x − mean) / std.

    Attributes:
        in_chans: 1 (grey), 2 (chroma), 3 (RGB; grey, then chroma, if `chroma` is named).
        grey: the grey formula: rec601, rec709, mean or lstar.
        mean, std: the normalisation of each channel, in units of 0…1; one number serves all. By default 0.5 and 0.25 for grey
            and RGB, 0 and 0.125 for chroma.
        chroma: cbcr (in −0.5…0.5) or ab (CIE Lab's, divided by 128).

    >>> Preprocess(3, chroma="cbcr").mean
    (0.5, 0.0, 0.0)
    """

    in_chans: int = 1
    grey: str = "rec601"
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    chroma: str | None = None

    def __post_init__(self) -> None:
        if self.chroma is not None and self.chroma not in CHROMA_SPACES:
            raise UnknownNameError("chroma", self.chroma, CHROMA_SPACES)
        if self.in_chans not in ((1, 3) if self.chroma is None else (2, 3)):
            known = "2 (chroma) or 3 (grey and chroma)" if self.chroma else "1 (grey) or 3 (RGB)"
            raise ArgumentError(f"in_chans: {self.in_chans} channels can't be made from RGB pictures; use {known}.")
        if self.grey not in GREY_FORMULAS:
            raise UnknownNameError("grey", self.grey, GREY_FORMULAS)
        chroma_from = self.in_chans if self.chroma is None else self.in_chans - 2
        for name, plain, of_chroma in (("mean", 0.5, 0.0), ("std", 0.25, 0.125)):
            default = [plain if c < chroma_from else of_chroma for c in range(self.in_chans)]
            object.__setattr__(self, name, _per_channel(name, getattr(self, name), default))
        if not all(s > 0 for _, s in self.normalisation):
            raise ArgumentError(f"std: {self.std} must be a finite number above 0.")

    def __call__(self, images: Tensor | Image.Image | Sequence[Image.Image], size: int | None = None) -> Tensor:
        """Network input.

        Args:
            images: (n, 3, h, w), uint8 or float in 0…1; a PIL image, or several of one size.
            size: side in pixels that PIL images are resized to, after the longer side was cropped around the centre.

        Returns:
            float32 (n, in_chans, h, w).

        Raises:
            ArgumentError: the shape is not (n, 3, h, w), the numbers are neither uint8 nor floating in 0…1, or PIL images have
                different sizes and no `size` is given.
        """
        rgb = as_rgb(images, size)
        if self.chroma is not None:
            chroma = rgb_to_ycbcr(rgb)[:, 1:] if self.chroma == "cbcr" else rgb_to_lab(rgb)[:, 1:] / _AB_SCALE
            return self.normalise(chroma if self.in_chans == 2 else torch.cat([luma(rgb, self.grey), chroma], dim=1))
        if self.in_chans == 1:
            return self.normalise(luma(rgb, self.grey))
        return self.normalise(to_float(rgb) if rgb.dtype == torch.uint8 else rgb.to(torch.float32))

    def normalise(self, x: Tensor) -> Tensor:
        """(x − mean) / std, for input that has its channels already; float32 (n, in_chans, h, w)."""
        pairs = self.normalisation
        if len(set(pairs)) == 1:
            return (x - pairs[0][0]) / pairs[0][1]
        # channel by channel with plain numbers: a tensor of means would have to be copied to the device in each step
        return torch.cat([(x[:, c : c + 1] - m) / s for c, (m, s) in enumerate(pairs)], dim=1)

    @property
    def normalisation(self) -> list[tuple[float, float]]:
        """(mean, std) of each channel."""
        assert isinstance(self.mean, tuple)
        assert isinstance(self.std, tuple)
        return list(zip(self.mean, self.std, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `Preprocess(**these)` makes it again."""
        means, deviations = zip(*self.normalisation, strict=True)
        return asdict(self) | {"mean": list(means), "std": list(deviations)}


def _per_channel(name: str, value: Any, default: list[float]) -> tuple[float, ...]:
    """One number a channel."""
    if value is None:
        return tuple(default)
    numbers = [value] * len(default) if isinstance(value, (int, float)) else list(value)
    if len(numbers) != len(default):
        raise ArgumentError(f"{name}: {len(numbers)} numbers for {len(default)} channels; give one, or one a channel.")
    if not all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise ArgumentError(f"{name}: {value} must be a finite number, or one for each channel.")
    return tuple(float(n) for n in numbers)


def _check_rgb(rgb: Tensor) -> None:
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise ArgumentError(f"images: shape {tuple(rgb.shape)} is not (n, 3, h, w); stack RGB pictures channel first.")
    if rgb.dtype == torch.uint8:
        return  # the training loop's case: nothing here may wait for the device
    if not rgb.is_floating_point():
        raise ArgumentError(
            f"images: {rgb.dtype} is neither uint8 in 0…255 nor floating in 0…1; convert them to uint8."
        )
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or rgb.numel() == 0:
        return  # numbers are not known while a graph is recorded
    low, high = (float(x) for x in rgb.detach().aminmax())
    if not (low >= _DARKEST and high <= _BRIGHTEST):  # NaN is neither
        raise ArgumentError(
            f"images: floating pictures must lie in 0…1, these in {low:.3g}…{high:.3g}; divide them by 255, or, if they are "
            "normalised already, use fold_rgb."
        )


def as_rgb(images: Tensor | Image.Image | Sequence[Image.Image], size: int | None = None) -> Tensor:
    """Pictures as one tensor (n, 3, h, w), uint8 or float; arguments and errors as of :meth:`Preprocess.__call__`."""
    if isinstance(images, Tensor):
        _check_rgb(images)
        return images
    pictures = [images] if isinstance(images, Image.Image) else images
    if not isinstance(pictures, Sequence) or not all(isinstance(p, Image.Image) for p in pictures) or not pictures:
        kind = "an empty list" if isinstance(images, list) and not images else type(images).__name__
        raise ArgumentError(f"images: {kind} is neither a tensor nor a PIL image nor a list of these.")
    if any(p.mode == "F" for p in pictures):
        raise ArgumentError("images: a PIL image of mode F has no range of its own; make it 8-bit first.")
    rgb = [to_rgb_image(ImageOps.exif_transpose(p)) for p in pictures]
    if size is not None:
        rgb = [ImageOps.fit(p, (size, size), Image.Resampling.BICUBIC) for p in rgb]
    if len({p.size for p in rgb}) > 1:
        raise ArgumentError("images: pictures of different sizes make no batch; give size=, such as 32.")
    return torch.from_numpy(np.stack([np.asarray(p) for p in rgb])).permute(0, 3, 1, 2).contiguous()
