"""Which chromas can a display show at all? A regular grid of ab bins that holds them, the same for every data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from .palette import Palette, count_palette
from .spaces import rgb_to_lab

BIN_STEP = 10.0

# The grid reaches beyond every chroma of sRGB (a* from -86 to 98, b* from -108 to 94).
_GRID_STEPS = 13
# Directions in which the hull is measured: its outline is then off by at most 0.005 units, a tenth of the distance by
# which the most doubtful grid point is in or out.
_DIRECTIONS = 360


@cache
def ab_bins() -> Float32[Tensor, "q 2"]:
    """The 313 bins of Zhang et al.: a* and b* in steps of 10, as far as a chroma of sRGB can lie between them.

    The rule: a grid point is a bin if it is a corner of a 10 × 10 square of the grid that the convex hull of all sRGB
    chromas touches. So every chroma of the hull lies among four bins. The paper says "in gamut" and gives Q = 313; this
    rule gives that number, and is this project's reading of it. The nearest bin of a real colour is one of 261 of them;
    the others stand around the gamut's edge, and soft targets use them.

    Returns:
        (313, 2) a* and b* in Lab's units, ordered by a*, then by b*; do not write into it.

    Source: Zhang, Isola & Efros 2016, "Colorful image colorization", section 2.1.

    >>> ab_bins().shape, ab_bins()[0].tolist(), ab_bins()[-1].tolist()
    (torch.Size([313, 2]), [-90.0, 50.0], [100.0, 0.0])
    """
    angles = torch.arange(_DIRECTIONS, dtype=torch.float64) * (2 * torch.pi / _DIRECTIONS)
    directions = torch.stack((angles.cos(), angles.sin()), dim=1)  # (d, 2)
    reach = _reach_of_srgb(directions)
    steps = torch.arange(-_GRID_STEPS, _GRID_STEPS + 1, dtype=torch.float64) * BIN_STEP
    grid = torch.cartesian_prod(steps, steps)  # (n, 2)
    # The four squares around a grid point are one square of ±10, and two convex sets are apart if and only if some
    # direction separates them: there the square's nearest corner is farther out than anything of the hull.
    nearest_corner = grid @ directions.t() - BIN_STEP * directions.abs().sum(1)  # (n, d)
    touched = (nearest_corner - reach).amax(1) < 0
    return grid[touched].to(torch.float32)


def _reach_of_srgb(directions: Float64[Tensor, "d 2"]) -> Float64[Tensor, " d"]:
    """How far the chromas of sRGB reach in each direction: the support function of their convex hull.

    The surface of the RGB cube is enough: whatever is inside it is paler than something on it.
    """
    levels = torch.arange(256)
    first, second = torch.cartesian_prod(levels, levels).to(torch.uint8).unbind(1)
    faces = []
    for end in (0, 255):
        third = torch.full_like(first, end)
        faces += [
            torch.stack(face) for face in ((third, first, second), (first, third, second), (first, second, third))
        ]
    chroma = rgb_to_lab(torch.cat(faces, dim=1)[None, :, None])[0, 1:, 0].to(torch.float64)  # (2, n)
    return torch.stack([(direction @ chroma).amax() for direction in directions])


def bin_palette(batches: Callable[[], Iterable[UInt8[Tensor, "_ 3 _ _"]]], grey: str = "rec601") -> Palette:
    """The bins as a palette in the space "ab": the colours are :func:`ab_bins`, their frequencies the pictures'.

    Args:
        batches: called once; gives the uint8 training pictures, on any device, in any batching.
        grey: the grey formula of the look-up table.

    Raises:
        ArgumentError: no pictures.
        UnknownNameError: an unknown `grey`.
    """
    return count_palette(ab_bins().clone(), "ab", batches, grey)
