"""Super-resolution as a sibling of colourization: the same network paints a large picture from a small one."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..backbones import Preprocess
from ..colour import Palette, shrink, to_uint8
from ..runtime.errors import ArgumentError
from .classification import PaletteTask
from .resolution import enlarge

_FACTOR = 4


class SuperResolution(PaletteTask):
    """Classify each pixel into palette colours, from the picture averaged over 4 × 4 pixels and enlarged again by repetition.

    What is painted comes from these averages alone, at any resolution of the prediction.

    Args:
        preprocess: RGB input, three channels.
        palette: the colours; of space rgb or lab, since the input's luma is not the picture's.
        decode, temperature, label_smoothing: as of :class:`PaletteTask`.
        predict_at: 1 or 2; at 4 the averages themselves would be the answer.

    Raises:
        ArgumentError: a palette without luma, or an option that does not fit.
    """

    name: ClassVar[str] = "superres"
    sees: ClassVar[str] = "RGB"
    colourizes: ClassVar[bool] = False

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
        if palette.space not in ("rgb", "lab"):
            raise ArgumentError(
                f"--palette-space: {palette.space} has no luma, and superres must predict it; use rgb or lab."
            )
        if predict_at == _FACTOR:
            raise ArgumentError(
                f"--predict-at: at {_FACTOR} superres would predict the very averages it sees; use 1 or 2."
            )
        super().__init__(preprocess, palette, decode, temperature, predict_at, label_smoothing=label_smoothing)

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.preprocess(coarse(rgb))

    def _enlarged(self, painted: Float[Tensor, "b 3 h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return enlarge(painted, rgb)  # the picture's own luma is what was asked for


def coarse(rgb: UInt8[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
    """The picture averaged over 4 × 4 pixels, at its old size: what super-resolution starts from."""
    small = shrink(rgb, _FACTOR)
    return to_uint8(F.interpolate(small.float() / 255, size=rgb.shape[-2:], mode="nearest"))
