"""At which resolution is a picture predicted? Targets are shrunk to it, paintings enlarged from it."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..colour import luma, to_float, to_uint8, with_luma
from ..runtime.errors import ArgumentError

PREDICT_AT = (1, 2, 4)


def shrink(rgb: UInt8[Tensor, "b 3 h w"], factor: int) -> UInt8[Tensor, "b 3 h2 w2"]:
    """Average-pools pictures by `factor`, rounded back to uint8; a side that does not divide is rounded up, its border averaged."""
    return (
        rgb if factor == 1 else to_uint8(F.avg_pool2d(to_float(rgb), factor, ceil_mode=True, count_include_pad=False))
    )


def enlarge(painted: Float[Tensor, "b 3 h2 w2"], rgb: Tensor, grey: str) -> Float[Tensor, "b 3 h w"]:
    """A small painting joined with the full-size luma of `rgb`: its chroma is upsampled bilinearly."""
    large = F.interpolate(painted, size=rgb.shape[-2:], mode="bilinear", align_corners=False)
    return with_luma(large, luma(rgb, grey), grey)


def check_predict_at(predict_at: int) -> None:
    """Raises ArgumentError unless predictions can have that resolution."""
    if predict_at not in PREDICT_AT:
        raise ArgumentError(f"predict_at: {predict_at} must be 1 (full resolution), 2 (half) or 4 (a quarter).")
