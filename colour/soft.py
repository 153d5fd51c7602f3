"""Which palette colours does a pixel lie among, and how much is it of each? One look-up a pixel."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float32, Float64, Int16, Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError
from .palette import Palette
from .tables import to_palette_space

# What the colours of sRGB span in each palette space, a little widened: (lowest, highest) of every coordinate.
_LIGHTNESS, _A, _B = (0.0, 100.1), (-86.3, 98.3), (-108.0, 94.6)
_SPANS = {
    "rgb": ((0.0, 1.001),) * 3,
    "lab": (_LIGHTNESS, _A, _B),
    "ab": (_A, _B),
    "cbcr": ((-0.501, 0.501),) * 2,
}
# A table's cell is a sixteenth of σ, or as small as this many cells allow (about 16 MB of table for 5 colours).
_CELLS_A_SIGMA, _MOST_CELLS = 16, 1 << 19
_DISTANCES_AT_ONCE = 1 << 21
# A table stores indices as int16.
_MOST_COLOURS = 32_768


class SoftLabels:
    """The k nearest colours of a palette for every pixel, weighted by exp(-d² / 2σ²) and normalised to a sum of 1.

    Nothing is searched while training: the space is cut into cells, and a table holds the answer for the centre of each,
    made on the first call (a second for 313 colours, a quarter of a minute for 4096) and copied once to each device that
    asks. A pixel gets its cell's answer, so the error is that of moving it by at most half a cell's diagonal; a grey one
    lies in the centre of its cell in "ab" and "cbcr". Of a pixel's shares, in sum 1, this much goes to another colour
    than it should: for the ab bins, k = 5 and σ = 5 (cells of 0.31 units), 0.01 on average and 0.07 at worst, which is
    where the fifth and the sixth nearest are as near as each other; for 24 colours in "rgb" and "lab" (σ / 6 and σ / 4)
    0.02 on average and 0.25 at worst.

    Args:
        palette: the colours.
        k: how many nearest colours share a pixel: 5 in the paper, 10 in the layer released with it.
        sigma: σ in the units of the palette's space; by default half the mean distance between a colour and its nearest
            other one, which for a grid of step 10 is the paper's 5.

    Raises:
        ArgumentError: `k` is below 1 or above the number of colours, or `sigma` is not above 0 or is finer than the
            table's cells can be.

    Source: Zhang, Isola & Efros 2016, "Colorful image colorization", section 2.1, equation 2 ("soft encoding").
    """

    def __init__(self, palette: Palette, k: int, sigma: float | None = None):
        if not 1 <= k <= min(palette.size, _MOST_COLOURS):
            raise ArgumentError(f"soft: {k} nearest colours of {palette.size} can't share a pixel; choose fewer, or 0.")
        smallest = _smallest_edge(palette.space)
        if sigma is None:
            sigma = max(_half_spacing(palette.centres.double()), smallest)
        if not smallest <= sigma < math.inf:
            raise ArgumentError(
                f"soft_sigma: {sigma} must be a number of at least {smallest:.2g} in the space {palette.space!r}; "
                "finer ones are not resolved, leave it out for a value that suits the palette."
            )
        self.palette, self.k, self.sigma = palette, k, sigma
        self._edge = max(sigma / _CELLS_A_SIGMA, smallest)
        self._lowest, self._cells = _cells(palette.space, self._edge)
        # One table per device, made when it is first needed.
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, rgb: UInt8[Tensor, "b 3 h w"]) -> tuple[Int64[Tensor, "b k h w"], Float32[Tensor, "b k h w"]]:
        """The nearest colours of every pixel, nearest first, and the share of each.

        Both are laid out with the k of a pixel side by side in memory, as predictions in `channels_last` are.

        Raises:
            ArgumentError: not (b, 3, h, w).
        """
        indices, shares = self._table(rgb.device)
        b, _, h, w = rgb.shape
        cell = self._cell(rgb).flatten()
        return (
            indices.index_select(0, cell).view(b, h, w, self.k).permute(0, 3, 1, 2).to(torch.int64),
            shares.index_select(0, cell).view(b, h, w, self.k).permute(0, 3, 1, 2),
        )

    def _cell(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Tensor:
        """The number of every pixel's cell (b, h, w), int32."""
        number: Tensor | None = None
        coordinates = to_palette_space(rgb, self.palette.space).unbind(1)
        for coordinate, low, count in zip(coordinates, self._lowest, self._cells, strict=True):
            # Truncation is floor here: nothing lies below `low`, but for rounding, which the clamp takes care of.
            along = ((coordinate - low) * (1 / self._edge)).to(torch.int32).clamp_(0, count - 1)
            number = along if number is None else number.mul_(count).add_(along)
        assert number is not None
        return number

    def _table(self, device: torch.device) -> tuple[Int16[Tensor, "n k"], Float32[Tensor, "n k"]]:
        """Indices and shares for every cell, on a device."""
        if device not in self._tables:
            cpu = torch.device("cpu")
            if cpu not in self._tables:
                self._tables[cpu] = self._make_table()
            indices, shares = self._tables[cpu]
            self._tables[device] = indices.to(device), shares.to(device)
        return self._tables[device]

    def _make_table(self) -> tuple[Int16[Tensor, "n k"], Float32[Tensor, "n k"]]:
        """Made on the CPU in double precision, so that every device has the same to the bit."""
        centres = self.palette.centres.detach().to("cpu", torch.float64)
        middles = [
            low + self._edge * (torch.arange(count, dtype=torch.float64) + 0.5)
            for low, count in zip(self._lowest, self._cells, strict=True)
        ]
        points = torch.stack(torch.meshgrid(*middles, indexing="ij"), dim=-1).flatten(0, -2)  # (n, c)
        indices, shares = [], []
        for part in points.split(max(1, _DISTANCES_AT_ONCE // self.palette.size)):
            near, index = squared_distances(part, centres).topk(self.k, dim=1, largest=False)  # (m, k)
            indices.append(index.to(torch.int16))
            shares.append((near / (-2 * self.sigma**2)).softmax(1).to(torch.float32))
        return torch.cat(indices), torch.cat(shares)


def squared_distances(points: Float64[Tensor, "n c"], others: Float64[Tensor, "k c"]) -> Float64[Tensor, "n k"]:
    """Squared Euclidean distances, summed by coordinate: no difference of large squares, so equal points have exactly 0."""
    total = (points[:, :1] - others[:, 0]).square_()
    for axis in range(1, points.shape[1]):
        total.add_((points[:, axis, None] - others[:, axis]).square_())
    return total


def _half_spacing(centres: Float64[Tensor, "k c"]) -> float:
    """Half the mean distance between a centre and its nearest other one."""
    return float(squared_distances(centres, centres).fill_diagonal_(math.inf).amin(1).sqrt().mean()) / 2


def _smallest_edge(space: str) -> float:
    """The edge of a cell with which a space is cut into as many as there may be."""
    volume = math.prod(high - low for low, high in _SPANS[space])
    return (volume / _MOST_CELLS) ** (1 / len(_SPANS[space]))


def _cells(space: str, edge: float) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Where the cells of each coordinate begin, and how many there are; the origin is the centre of one."""
    before = [math.ceil(-low / edge - 0.5) for low, _ in _SPANS[space]]
    after = [math.ceil(high / edge - 0.5) for _, high in _SPANS[space]]
    return tuple(-edge * (n + 0.5) for n in before), tuple(n + 1 + m for n, m in zip(before, after, strict=True))
