"""How much should a pixel of each colour count, when most pixels of most pictures are nearly grey?"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError
from .palette import Palette
from .soft import squared_distances
from .spaces import rgb_to_lab


def smoothed_prior(palette: Palette, sigma: float) -> Float64[Tensor, " k"]:
    """A palette's prior, each colour's share spread over its neighbourhood by a Gaussian kernel.

    Every share is spread whole (a colour at the edge spreads over fewer others, and none is lost), so the sum stays 1.

    Args:
        palette: its `prior` is smoothed.
        sigma: of the kernel, in the units of the palette's space; 5 in the paper, for the ab bins.

    Raises:
        ArgumentError: `sigma` is not above 0.

    Source: Zhang, Isola & Efros 2016, "Colorful image colorization", section 2.2.
    """
    if not sigma > 0:
        raise ArgumentError(f"sigma: {sigma} must be above 0; 5 is the paper's for bins of 10.")
    centres = palette.centres.to("cpu", torch.float64)
    kernel = (squared_distances(centres, centres) / (-2 * sigma**2)).softmax(1)  # (from, to), rows sum to 1
    return palette.prior.to("cpu", torch.float64) @ kernel


def class_weights(prior: Float64[Tensor, " k"], rebalance: float) -> Float64[Tensor, " k"]:
    """The weight of each colour, w ∝ ((1 - λ) p + λ / k)⁻¹, scaled so that Σ p w = 1: rare colours count more.

    Args:
        prior: p, sums to 1.
        rebalance: λ: 1 weighs all colours alike, 0 by the inverse of p; the paper's is ½. At 0 a colour that never
            occurred, whose weight would be infinite, gets the weight of the rarest one that did.

    Raises:
        ArgumentError: `rebalance` is not in 0…1.

    Source: Zhang, Isola & Efros 2016, "Colorful image colorization", equation 4.

    >>> class_weights(torch.tensor([0.75, 0.25], dtype=torch.float64), 0.0).tolist()
    [0.6666666666666666, 2.0]
    """
    if not 0 <= rebalance <= 1:
        raise ArgumentError(f"rebalance: {rebalance} must be from 0 to 1; 0.5 is the paper's.")
    mixed = (1 - rebalance) * prior + rebalance / len(prior)
    weights = 1 / mixed.clamp_min(float(mixed[mixed > 0].amin()))
    return weights / (prior @ weights)


class PixelWeights:
    """The weight of a pixel by its label, from :func:`class_weights`; the mean over the training pixels is about 1.

    Args:
        palette: its prior says how frequent each colour is.
        rebalance: λ.
        sigma: smooth the prior first (:func:`smoothed_prior`); None leaves it as it is, and the mean over the training
            pixels is then 1 exactly.

    Raises:
        ArgumentError: as in the two functions.
    """

    def __init__(self, palette: Palette, rebalance: float, sigma: float | None = None):
        prior = palette.prior.to("cpu", torch.float64) if sigma is None else smoothed_prior(palette, sigma)
        self.weights = class_weights(prior, rebalance).to(torch.float32)
        self._copies: dict[torch.device, Tensor] = {}

    def __call__(self, labels: Int64[Tensor, "b h w"]) -> Float32[Tensor, "b h w"]:
        if labels.device not in self._copies:
            self._copies[labels.device] = self.weights.to(labels.device)
        return self._copies[labels.device][labels]


def has_colour(rgb: UInt8[Tensor, "b 3 h w"], threshold: float = 5.0) -> Bool[Tensor, " b"]:
    """Whether a picture has any colour: a pixel whose a* or b* is farther from 0 than `threshold`.

    >>> grey_and_red = torch.tensor([[90, 90, 90], [200, 20, 20]], dtype=torch.uint8).view(2, 3, 1, 1)
    >>> has_colour(grey_and_red).tolist()
    [False, True]
    """
    return (rgb_to_lab(rgb)[:, 1:].abs() > threshold).flatten(1).any(1)
