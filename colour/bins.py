"""Which chromas can a display show at all? A regular grid of ab bins that holds them, the same for every data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError
from ..runtime.processes import broadcast_from_main, is_main
from .histogram import in_parts
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


def nearest_bin(ab: Float[Tensor, "b 2 h w"]) -> Int64[Tensor, "b h w"]:
    """The number of the bin that is nearest to every pixel's chroma: the labels of :func:`bin_palette`.

    No table of all colours is needed, since the bins are a grid: a chroma of sRGB lies among four of them, so the
    nearest bin is the nearest point of the grid. Any other chroma gets the bin that is nearest to its grid point.

    Args:
        ab: a* and b* in Lab's units.

    >>> ab_bins()[nearest_bin(torch.tensor([4.0, -17.0]).view(1, 2, 1, 1))].flatten().tolist()
    [0.0, -20.0]
    """
    steps = (ab / BIN_STEP).round().clamp(-_GRID_STEPS, _GRID_STEPS).to(torch.int64) + _GRID_STEPS
    return _bins_of_grid(ab.device)[steps[:, 0], steps[:, 1]]


@cache
def _bins_of_grid(device: torch.device) -> Int64[Tensor, "n n"]:
    """The nearest bin of every point of the whole grid, by its steps along a* and b*."""
    steps = torch.arange(-_GRID_STEPS, _GRID_STEPS + 1, dtype=torch.float32) * BIN_STEP
    nearest = torch.cdist(torch.cartesian_prod(steps, steps), ab_bins()).argmin(1)
    return nearest.view(len(steps), len(steps)).to(device)


def bin_prior(batches: Callable[[], Iterable[UInt8[Tensor, "_ 3 _ _"]]]) -> Float64[Tensor, " q"]:
    """The share of the pixels that are nearest to each of the bins, on the CPU; sums to 1.

    With several processes the main one counts and sends the result to the others; all of them must call this.

    Args:
        batches: called once; gives uint8 pictures, on any device, in any batching.

    Raises:
        ArgumentError: no pictures.
    """
    counts = torch.zeros(len(ab_bins()), dtype=torch.float64)
    if is_main():
        counts = _count_bins(batches())
    counts = broadcast_from_main(counts)
    return counts / counts.sum()


def _count_bins(batches: Iterable[UInt8[Tensor, "_ 3 _ _"]]) -> Float64[Tensor, " q"]:
    """How many pixels have each bin; whole numbers, exact up to 2^53."""
    totals: Tensor | None = None
    for batch in batches:
        if totals is None:
            totals = torch.zeros(len(ab_bins()), dtype=torch.int64, device=batch.device)
        for rgb in in_parts(batch):
            bins = nearest_bin(rgb_to_lab(rgb)[:, 1:]).flatten()
            totals.scatter_add_(0, bins, torch.ones_like(bins))
    if totals is None:
        raise ArgumentError("batches: there is no picture to count colours in; at least one is needed.")
    return totals.cpu().to(torch.float64)


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
