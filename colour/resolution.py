"""How is a picture averaged down to a lower resolution?"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from .spaces import to_float, to_uint8


def shrink(rgb: UInt8[Tensor, "b 3 h w"], factor: int) -> UInt8[Tensor, "b 3 h2 w2"]:
    """Average-pools pictures by `factor`, rounded back to uint8; a side that does not divide is rounded up, its border averaged.

    >>> import torch
    >>> shrink(torch.tensor([0, 40, 100], dtype=torch.uint8).expand(1, 3, 2, 3), 2)[0, 0].tolist()
    [[20, 100]]
    """
    return rgb if factor == 1 else _averaged(rgb, (factor, factor))


def shrink_to(rgb: UInt8[Tensor, "b 3 h w"], height: int, width: int) -> UInt8[Tensor, "b 3 h2 w2"]:
    """Averages pictures down to a size, at most theirs, rounded back to uint8.

    A side that the factor does not divide has a smaller last cell, as of :func:`shrink`; where no whole factor leads to the size,
    cells overlap.
    """
    factors = (-(-rgb.shape[2] // height), -(-rgb.shape[3] // width))
    if factors == (1, 1):
        return rgb
    pooled = _averaged(rgb, factors)
    if pooled.shape[-2:] == (height, width):
        return pooled
    return to_uint8(F.adaptive_avg_pool2d(to_float(rgb), (height, width)))


def _averaged(rgb: UInt8[Tensor, "b 3 h w"], factors: tuple[int, int]) -> UInt8[Tensor, "b 3 h2 w2"]:
    """Means of cells of so many rows and columns, those at the border over what is there."""
    return to_uint8(F.avg_pool2d(to_float(rgb), factors, ceil_mode=True, count_include_pad=False))
