"""At which resolution is a picture predicted, and how is a smaller painting enlarged?"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..colour import luma, with_luma
from ..runtime.errors import ArgumentError

PREDICT_AT = (1, 2, 4)


def enlarge(painted: Float[Tensor, "b 3 h2 w2"], rgb: Tensor) -> Float[Tensor, "b 3 h w"]:
    """A small painting at the size of `rgb`, bilinearly; of `rgb` nothing but its size is looked at."""
    return F.interpolate(painted, size=rgb.shape[-2:], mode="bilinear", align_corners=False)


def enlarge_chroma(painted: Float[Tensor, "b 3 h2 w2"], rgb: Tensor, grey: str) -> Float[Tensor, "b 3 h w"]:
    """A small painting's chroma, enlarged and joined with the full-size luma of `rgb`: for networks that were shown that luma."""
    return with_luma(enlarge(painted, rgb), luma(rgb, grey), grey)


def check_predict_at(predict_at: int) -> None:
    """Raises ArgumentError unless predictions can have that resolution."""
    if predict_at not in PREDICT_AT:
        raise ArgumentError(f"predict_at: {predict_at} must be 1 (full resolution), 2 (half) or 4 (a quarter).")
