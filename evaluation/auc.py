"""How many pixels have nearly the right chroma? The area under the curve of Zhang, Isola & Efros, from counts alone.

For t = 0, 1, …, 150 the share of the pixels whose chroma is at most t away from the true one (Euclidean, Lab units) makes
a curve; its area by the trapezoidal rule over that of the whole rectangle, in per cent, is the AuC. Rebalanced, a pixel counts by
the inverse of how frequent the chroma of its true colour is.

Source: Zhang, Isola & Efros 2016, "Colorful image colorization", section 3.1, which says "integrate the area under the
curve and normalize" and leaves the rule of integration open; weights as equation 4 with λ = 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ..colour import Palette, ab_bins, class_weights, smoothed_prior

LARGEST_THRESHOLD = 150
# The paper's smoothing of the prior (section 2.2), in Lab's units.
PRIOR_SIGMA = 5.0

# errors up to 0, up to 1, …, up to 150, and those beyond
_CELLS = LARGEST_THRESHOLD + 2


def error_cells(error: Float[Tensor, "b h w"], bins: Int64[Tensor, "b h w"]) -> Int64[Tensor, "b h w"]:
    """The cell, in a histogram of :func:`cell_count` cells, of each pixel by its true bin and its error.

    An error is in the cell of the smallest threshold that is not below it, so "at most t" is counted exactly. What
    is not a number counts as too large.
    """
    thresholds = torch.nan_to_num(error, nan=_CELLS - 1).ceil().clamp(0, _CELLS - 1)
    return bins * _CELLS + thresholds.to(torch.int64)


def cell_count() -> int:
    """How many cells a histogram of errors has: 152 a bin."""
    return len(ab_bins()) * _CELLS


def areas(counts: Int64[Tensor, " cells"], prior: Float64[Tensor, " q"] | None) -> tuple[float, float]:
    """(AuC, rebalanced AuC) in per cent, from a histogram of errors.

    Args:
        counts: pixels in each of the cells of :func:`error_cells`.
        prior: how frequent each ab bin is; None for how frequent it is among the counted pixels.
    """
    table = counts.view(-1, _CELLS).to(torch.float64)  # (q, cells)
    if prior is None:
        prior = table.sum(1) / table.sum()
    return _area(table.sum(0)), _area(bin_weights(prior) @ table)


def bin_weights(prior: Float64[Tensor, " q"]) -> Float64[Tensor, " q"]:
    """How much a pixel of each ab bin counts: the inverse of the prior, smoothed as in the paper.

    A bin that the prior does not know counts no more than the rarest that it does: a few pixels of a colour never met in training
    would be all that counts otherwise.
    """
    nothing = torch.zeros(256, len(prior), dtype=torch.float64)
    smooth = smoothed_prior(Palette("ab", ab_bins(), prior, nothing), PRIOR_SIGMA)
    return class_weights(smooth.clamp_min(float(smooth[prior > 0].amin())), 0.0)


def _area(weight: Float64[Tensor, " cells"]) -> float:
    shares = weight.cumsum(0)[:-1] / weight.sum()  # (151,): of the weight with an error of at most t
    return 100 * float(torch.trapezoid(shares)) / LARGEST_THRESHOLD
