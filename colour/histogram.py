"""Which k colours stand best for a set of pictures? An exact histogram in one pass, then weighted k-means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError
from .tables import check_space, to_palette_space

# Two chromas closer than this are one: a grey pixel's a* and b* are zero only up to rounding.
_SAME_COLOUR = {"rgb": 1e-6, "lab": 1e-3, "ab": 1e-3, "cbcr": 1e-6}
_PIXELS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often each small cube of RGB colours occurs, and the exact sum of the colours in it.

    Attributes:
        bins: (n,) number of the cube, ascending; n is the number of non-empty cubes.
        counts: (n,) pixels in it.
        sums: (n, 3) sums of their R, G and B (0…255 each).
        bits: bits a channel; a cube's edge is 2^(8 - bits) levels.

    Everything is an integer, so `+` over parts gives to the bit what one pass over the whole gives.
    """

    bins: Int64[Tensor, " n"]
    counts: Int64[Tensor, " n"]
    sums: Int64[Tensor, "n 3"]
    bits: int = 6

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of both sets of pictures together.

        Raises:
            ArgumentError: the two have different `bits`.
        """
        if self.bits != other.bits:
            raise ArgumentError(f"bits: histograms of {self.bits} and {other.bits} bits a channel cannot be added.")
        bins, where = torch.cat((self.bins, other.bins)).unique(return_inverse=True)
        counts = torch.zeros(len(bins), dtype=torch.int64)
        sums = torch.zeros(len(bins), 3, dtype=torch.int64)
        counts.index_add_(0, where, torch.cat((self.counts, other.counts)))
        sums.index_add_(0, where, torch.cat((self.sums, other.sums)))
        return Histogram(bins, counts, sums, self.bits)

    def colours(self) -> Float32[Tensor, "n 3"]:
        """The mean colour of every cube, RGB in 0…1; exact up to float32's rounding."""
        return (self.sums.to(torch.float64) / self.counts[:, None] / 255).to(torch.float32)


def rgb_histogram(batches: Iterable[UInt8[Tensor, "_ 3 _ _"]], bits: int = 6) -> Histogram:
    """Count the colours of all pictures in one pass and constant memory (8 MB at 6 bits), on the batches' own device.

    Args:
        batches: uint8 pictures; how they are split into batches makes no difference, not even in the last bit.
        bits: bits a channel, 1…8 (8 distinguishes every colour and takes 0.5 GB).

    Returns:
        The non-empty bins, on the CPU.

    Raises:
        ArgumentError: `bits` is out of range, a batch is not uint8 (b, 3, h, w), or there is no pixel at all.

    >>> red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    >>> histogram = rgb_histogram([red, red])
    >>> histogram.counts.tolist(), histogram.sums.tolist()
    ([32], [[6400, 0, 0]])
    """
    if not 1 <= bits <= 8:
        raise ArgumentError(f"bits: a histogram has 1 to 8 bits a channel, got {bits}.")
    totals: Tensor | None = None
    for rgb in batches:
        if rgb.dtype != torch.uint8 or rgb.ndim != 4 or rgb.shape[1] != 3:
            raise ArgumentError(
                f"batches: a histogram needs uint8 pictures (batch, 3, height, width), "
                f"got {rgb.dtype} {tuple(rgb.shape)}."
            )
        if totals is None:
            totals = torch.zeros(4, 1 << 3 * bits, dtype=torch.int64, device=rgb.device)
        for part in in_parts(rgb):
            _count(part, bits, totals)
    if totals is None or not totals[0].any():
        raise ArgumentError("batches: there is no picture to count colours in; at least one is needed.")
    totals = totals.cpu()
    bins = totals[0].nonzero().squeeze(1)
    return Histogram(bins, totals[0, bins], totals[1:, bins].t().contiguous(), bits)


def in_parts(rgb: UInt8[Tensor, "_ 3 _ _"]) -> Iterator[UInt8[Tensor, "_ 3 _ _"]]:
    """A batch in parts of about a million pixels, so that even a whole data set as one batch takes little memory."""
    yield from rgb.split(max(1, _PIXELS_AT_ONCE // max(1, rgb.shape[2] * rgb.shape[3])))


def _count(rgb: UInt8[Tensor, "b 3 h w"], bits: int, totals: Int64[Tensor, "4 n"]) -> None:
    """Add a batch to the totals: pixels, then sums of R, G and B, per bin."""
    red, green, blue = ((channel >> (8 - bits)).to(torch.int64) for channel in rgb.unbind(1))
    bins = ((red << bits | green) << bits | blue).flatten()
    totals[0].scatter_add_(0, bins, torch.ones_like(bins))
    for total, channel in zip(totals[1:], rgb.unbind(1), strict=True):
        total.scatter_add_(0, bins, channel.flatten().to(torch.int64))


def fit_palette(histogram: Histogram, k: int = 24, space: str = "rgb", seed: int = 0) -> Float32[Tensor, "k c"]:
    """The k colours that stand best for a histogram's pixels: k-means on the bins' mean colours, weighted by counts.

    Runs on one thread, so that neither the number of threads nor of processes changes the result.

    Args:
        histogram: from :func:`rgb_histogram`.
        k: how many colours.
        space: where distances are taken, one of `PALETTE_SPACES`; in "ab" and "cbcr" by chroma alone.
        seed: of scikit-learn's k-means++ start.

    Returns:
        Centres (k, c) in the units of the space, on the CPU; from dark to light in "rgb" (by rec601 luma) and "lab" (by
        L*), by hue angle in "ab" and "cbcr"; equal ones by their coordinates.

    Raises:
        ArgumentError: `k` is below 2 or above the number of distinct colours (for chroma spaces: of distinct chromas,
            of which grey pictures have one).
        UnknownNameError: an unknown `space`.

    >>> pixels = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250]], dtype=torch.uint8)
    >>> (fit_palette(rgb_histogram([pixels.t().reshape(1, 3, 1, 3)]), k=3) * 255).round().tolist()
    [[0.0, 0.0, 250.0], [250.0, 0.0, 0.0], [0.0, 250.0, 0.0]]
    """
    check_space(space)
    if k < 2:
        raise ArgumentError(f"colours: a palette needs at least 2 colours, got {k}.")
    colours = histogram.colours()
    coordinates = to_palette_space(colours.t()[None, :, :, None], space)[0, :, :, 0].t().to(torch.float64).numpy()
    points, weights = _merge_equal(coordinates, histogram.counts.numpy(), _SAME_COLOUR[space])
    if len(points) < k:
        raise ArgumentError(_too_few_colours(histogram, k, len(points), space))
    centres = points if len(points) == k else _weighted_k_means(points, weights, k, seed)
    return torch.from_numpy(_sorted(centres, space).astype(np.float32))


def _merge_equal(coordinates: np.ndarray, weights: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, c) that are equal up to `tolerance` as one point each, with the sum of their weights."""
    _, first, where = np.unique(np.round(coordinates / tolerance), axis=0, return_index=True, return_inverse=True)
    return coordinates[first], np.bincount(where.reshape(-1), weights=weights)


def _too_few_colours(histogram: Histogram, k: int, distinct: int, space: str) -> str:
    """Why k colours cannot be found, in one sentence."""
    if space in ("ab", "cbcr") and distinct == 1:
        grey = bool((histogram.sums == histogram.sums[:, :1]).all())
        what = "the pictures are all grey" if grey else "the pictures have one chroma only"
        return f"colours: {k} were asked for in the space {space!r}, but {what}; give colour pictures."
    kind = "chromas" if space in ("ab", "cbcr") else "colours"
    mend = f"choose from 2 to {distinct}" if distinct >= 2 else "give pictures of more colours"
    return (
        f"colours: {k} were asked for, but the pictures hold only {distinct} distinct {kind} "
        f"at {histogram.bits} bits a channel; {mend}."
    )


def _weighted_k_means(points: np.ndarray, weights: np.ndarray, k: int, seed: int) -> np.ndarray:
    """scikit-learn's k-means on one thread: sums in a fixed order give the same bits for any number of threads."""
    # Imported here: it takes a second, and most who import this package never fit a palette.
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # Four starts: on CIFAR-10 the best of four is within 1 % of the best of eight, and the fit takes a second.
    k_means = KMeans(k, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]  (the stub knows "auto" only)
    with threadpool_limits(limits=1):
        return k_means.fit(points, sample_weight=weights).cluster_centers_


def _sorted(centres: np.ndarray, space: str) -> np.ndarray:
    """From dark to light, or by hue angle; equal ones by their coordinates, the first one first."""
    if space == "rgb":
        key = centres @ np.array([0.299, 0.587, 0.114])
    elif space == "lab":
        key = centres[:, 0]
    else:
        key = np.arctan2(centres[:, 1], centres[:, 0]) % (2 * np.pi)
    return centres[np.lexsort((*centres.T[::-1], key))]
