"""Super-resolution as a sibling of colourization: the same network paints a large picture from a small one."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..backbones import Preprocess
from ..colour import Palette, to_uint8
from ..runtime.errors import ArgumentError
from .classification import PaletteTask
from .resolution import shrink

_FACTOR = 4


class SuperResolution(PaletteTask):
    """Classify each pixel into palette colours, from the picture averaged over 4 × 4 pixels and enlarged again by repetition.

    Args:
        preprocess: RGB input, three channels.
        palette: the colours; of space rgb or lab, since the input's luma is not the picture's.
        decode, temperature, predict_at, label_smoothing: as of :class:`PaletteTask`.
    """

    name: ClassVar[str] = "superres"

    def __init__(
        self,
        preprocess: Preprocess,
        palette: Palette,
        decode: str = "annealed",
        temperature: float = 0.38,
        predict_at: int = 1,
        *,
        label_smoothing: float = 0.0,
    ):
        if preprocess.in_chans != 3 or preprocess.chroma is not None:
            raise ArgumentError(
                "task: superres sees colour; it needs an encoder with three RGB channels (--in-chans 3)."
            )
        if palette.space not in ("rgb", "lab"):
            raise ArgumentError(
                f"--palette-space: {palette.space} has no luma, and superres must predict it; use rgb or lab."
            )
        super().__init__(preprocess, palette, decode, temperature, predict_at, label_smoothing=label_smoothing)

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.preprocess(coarse(rgb))


def coarse(rgb: UInt8[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """The picture averaged over 4 × 4 pixels, at its old size: what super-resolution starts from."""
    small = shrink(rgb, _FACTOR)
    return to_uint8(F.interpolate(small.float() / 255, size=rgb.shape[-2:], mode="nearest"))
