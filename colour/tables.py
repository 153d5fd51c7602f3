"""Which palette colour is nearest to each of the 256³ RGB colours? One exact table answers for every pixel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float32, Float64, Int, Shaped, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError, UnknownNameError
from .spaces import Picture, rgb_to_lab, rgb_to_ycbcr, to_float32

PALETTE_SPACES = ("rgb", "lab", "ab", "cbcr")

# Edge of the small cubes of RGB colours that share one list of candidates, and how many of them are done at once. With
# (8³, 21) a working tensor stays in the cache, and below the size at which torch splits an operation among threads: that
# gains nothing on so little, and on a busy machine the waiting of the threads for one another costs ten times the work.
_CUBE, _CUBES_AT_ONCE = 8, 21
_MOST_CENTRES = 32_768


def check_space(space: str) -> None:
    """UnknownNameError unless `space` is one of :data:`PALETTE_SPACES`."""
    if space not in PALETTE_SPACES:
        raise UnknownNameError("palette space", space, PALETTE_SPACES)


def to_palette_space(rgb: Picture, space: str) -> Float32[Tensor, "b c h w"]:
    """A picture's coordinates in a palette space.

    Args:
        rgb: uint8 in 0…255 or floating in 0…1.
        space: "rgb" (0…1), "lab" (L*, a*, b*), "ab" (a*, b* alone) or "cbcr" (-0.5…0.5).

    Raises:
        UnknownNameError: an unknown `space`.
        ArgumentError: not (b, 3, h, w), or neither uint8 nor floating.

    >>> to_palette_space(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "cbcr").shape
    torch.Size([2, 2, 8, 8])
    """
    check_space(space)
    if space == "rgb":
        return to_float32(rgb)
    if space == "cbcr":
        return rgb_to_ycbcr(rgb)[:, 1:]
    lab = rgb_to_lab(rgb)
    return lab if space == "lab" else lab[:, 1:]


def colour_index(rgb: UInt8[Tensor, "b 3 h w"]) -> Int[Tensor, "b h w"]:
    """The 24-bit number R·65536 + G·256 + B of every pixel, int32: half the memory traffic of int64."""
    red, green, blue = rgb.unbind(1)
    return red.to(torch.int32).mul_(256).add_(green).mul_(256).add_(blue)


def label_table(centres: Float32[Tensor, "k c"], space: str) -> Shaped[Tensor, " 16777216"]:
    """The label of every RGB colour, at :func:`colour_index`: the index of its nearest centre in `space`.

    Exact: the colours' float32 coordinates (:func:`to_palette_space`) are compared with the float32 centres by squared
    Euclidean distance in float64, and the lowest index wins a tie. Made on the CPU, so that every device has the same
    to the bit (and some know no float64); takes about a second, and little memory beside the table's own.

    Args:
        centres: (k, c) in the units of the space.
        space: one of :data:`PALETTE_SPACES`.

    Returns:
        uint8 for up to 256 centres (16.8 MB), int16 beyond.

    Raises:
        ArgumentError: more than 32768 centres.
        UnknownNameError: an unknown `space`.
    """
    check_space(space)
    if len(centres) > _MOST_CENTRES:
        raise ArgumentError(f"k: a label table holds at most {_MOST_CENTRES} colours, got {len(centres)}.")
    centres64 = centres.detach().to("cpu", torch.float64)
    dtype = torch.uint8 if len(centres) <= 256 else torch.int16
    cubes = 256 // _CUBE
    # Axes: which cube along R, G and B, then where inside it along R, G and B; the last line puts them in colour order.
    table = torch.empty(cubes**3, _CUBE**3, dtype=dtype)
    for start, colours in _cubes_of_colours():
        coordinates = to_palette_space(colours, space).to(torch.float64).permute(1, 2, 3, 0)[..., 0]
        table[start : start + _CUBES_AT_ONCE] = _nearest_in_cubes(coordinates, centres64).to(dtype)
    blocks = table.view(cubes, cubes, cubes, _CUBE, _CUBE, _CUBE)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(-1)


def _cubes_of_colours() -> Iterator[tuple[int, UInt8[Tensor, "1 3 n m"]]]:
    """All RGB colours as pictures of n cubes × m colours each, with the number of the first cube."""
    cubes = 256 // _CUBE
    inside = torch.arange(_CUBE**3)
    for start in range(0, cubes**3, _CUBES_AT_ONCE):
        cube = torch.arange(start, min(start + _CUBES_AT_ONCE, cubes**3))[:, None]
        channels = [
            (cube // cubes**power % cubes) * _CUBE + inside // _CUBE**power % _CUBE  # (n, m)
            for power in (2, 1, 0)
        ]
        yield start, torch.stack(channels).to(torch.uint8)[None]


def _nearest_in_cubes(coordinates: Float64[Tensor, "c n m"], centres: Float64[Tensor, "k c"]) -> Int[Tensor, "n m"]:
    """The nearest centre of the m points of each of n cubes.

    Comparing every point with every centre would be k distances a point. But a centre can only be nearest to a point of
    a cube if its smallest distance to the cube's bounding box is no more than every centre's largest. Few are so near;
    the others are left out, cube by cube, before any point is looked at, and all of them would have lost strictly.
    """
    low, high = coordinates.amin(2)[:, :, None], coordinates.amax(2)[:, :, None]  # (c, n, 1)
    position = centres.t()[:, None, :]  # (c, 1, k)
    nearest = (low - position).clamp_(min=0).maximum(position - high).square_().sum(0)  # (n, k)
    farthest = (high - position).abs_().maximum((position - low).abs_()).square_().sum(0)  # (n, k)
    # The slack is for rounding: a candidate too many costs time, one too few would be an error.
    possible = nearest <= farthest.amin(1, keepdim=True) * (1 + 1e-9) + 1e-12  # (n, k)
    # Candidates first, each group in the order of the indices, so that a strict comparison keeps the lowest index.
    candidates = possible.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    most = int(possible.sum(1).amax())

    best = torch.full(coordinates.shape[1:], torch.inf, dtype=torch.float64)
    labels = torch.zeros(coordinates.shape[1:], dtype=torch.int32)
    for candidate in candidates[:, :most].unbind(1):  # (n,)
        distance = _squared_distance(coordinates, centres[candidate])
        closer = distance < best
        best = torch.where(closer, distance, best)
        labels = torch.where(closer, candidate[:, None].to(torch.int32), labels)
    return labels


def _squared_distance(coordinates: Float64[Tensor, "c n m"], centre: Float64[Tensor, "n c"]) -> Float[Tensor, "n m"]:
    """Squared distances between the points of each cube and that cube's centre."""
    total = (coordinates[0] - centre[:, :1]).square_()
    for axis in range(1, len(coordinates)):
        total.add_((coordinates[axis] - centre[:, axis : axis + 1]).square_())
    return total
