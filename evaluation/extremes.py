"""Which pictures were painted worst, and which best? The mean ΔE2000 of each picture decides."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from ..colour import delta_e2000, rgb_to_lab, to_float
from ..runtime.errors import ArgumentError


def picture_delta_e2000(
    painted: UInt8[Tensor, "_b 3 _h _w"], true: UInt8[Tensor, "_b 3 _h _w"]
) -> Float32[Tensor, " _b"]:
    """The mean CIEDE2000 difference over the pixels of each picture; just noticeable is about 1 to 2.

    Raises:
        ArgumentError: the shapes differ.

    Source:
        Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula", equations 2–22; the mean over a picture is
        this project's.

    >>> picture = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    >>> picture_delta_e2000(picture, picture).tolist()
    [0.0]
    """
    if painted.shape != true.shape:
        raise ArgumentError(
            f"painted, true: got {tuple(painted.shape)} and {tuple(true.shape)}; give the same pictures in one size."
        )
    return delta_e2000(rgb_to_lab(to_float(painted)), rgb_to_lab(to_float(true))).mean((1, 2))


def worst_and_best(
    errors: Float32[Tensor, " n"], most: int = 6
) -> tuple[Int64[Tensor, " worst"], Int64[Tensor, " best"]]:
    """Places of the largest errors, largest first, and of the smallest, smallest first; no picture is in both.

    Args:
        errors: one a picture.
        most: places in each list at most; both are shorter when there are fewer than twice as many pictures.

    >>> [places.tolist() for places in worst_and_best(torch.tensor([3.0, 9.0, 1.0, 5.0, 4.0]), most=2)]
    [[1, 3], [2, 0]]
    """
    order = torch.argsort(errors, stable=True)  # smallest first; equals in the pictures' own order
    count = min(most, len(errors) // 2)
    return order.flip(0)[:count], order[:count]
