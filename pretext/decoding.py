"""How does a distribution over colours become one colour a pixel?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from ..colour import lab_to_rgb, luma, rgb_to_lab
from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.randomness import hash_uniform

DECODES = ("mode", "mean", "annealed", "sample")
# those that a temperature changes
ANNEALED = ("annealed", "sample")

# A use of randomness (stream number of runtime.randomness), away from those of the augmentations.
_STREAM_SAMPLE = 1_000


@dataclass(frozen=True)
class Decoding:
    """How predictions are painted; can be chosen anew after training.

    Attributes:
        mode: `mode` (the most probable colour), `mean` (the expectation), `annealed` (the expectation under softmax(logits
            / temperature); Zhang et al. 2016, equation 5) or `sample` (each pixel's colour is drawn from softmax(logits /
            temperature)).
        temperature: of `annealed` and `sample`, above 0 and at most 1; towards 0 both are the mode, at 1 `annealed` is the mean.
        saturation: what the chroma is multiplied with before it joins the luma: 0 paints grey, 1 changes nothing.
        seed: of `sample`. A pixel's draw is a function of the seed and of its place in the picture, the same on every device
            and for every picture, so that painting a picture alone or among others gives the same.

    Raises:
        UnknownNameError: `mode` is none of :data:`DECODES`.
        ArgumentError: a number is out of its range.
    """

    mode: str = "annealed"
    temperature: float = 0.38
    saturation: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in DECODES:
            raise UnknownNameError("decode", self.mode, DECODES)
        if not 0 < self.temperature <= 1:
            raise ArgumentError(f"temperature: {self.temperature} must be above 0 and at most 1; 0.38 is a good start.")
        if not 0 <= self.saturation < math.inf:
            raise ArgumentError(f"saturation: {self.saturation} must be 0 (grey) or more; 1 changes nothing.")


def decode(
    logits: Float[Tensor, "b k h w"], centres: Float[Tensor, "k c"], decoding: Decoding
) -> Float32[Tensor, "b c h w"]:
    """One colour a pixel, in the units of the centres; the saturation is left for :func:`saturated` and its like."""
    if decoding.mode == "mode":
        return centres[logits.argmax(1)].permute(0, 3, 1, 2)
    if decoding.mode == "sample":
        return centres[sample(logits, decoding.temperature, decoding.seed)].permute(0, 3, 1, 2)
    weights = _probabilities(logits, decoding.temperature if decoding.mode == "annealed" else 1.0)
    return einsum(weights, centres, "b k h w, k c -> b c h w")


def _probabilities(logits: Float[Tensor, "b k h w"], temperature: float) -> Float32[Tensor, "b k h w"]:
    """softmax(logits / temperature). The largest logit is taken off first: no temperature is too low then."""
    logits = logits.float()
    return ((logits - logits.amax(1, keepdim=True)) / temperature).softmax(1)


def sample(logits: Float[Tensor, "b k h w"], temperature: float, seed: int) -> Int64[Tensor, "b h w"]:
    """A label for each pixel, drawn from softmax(logits / temperature) by the inverse of its cumulative distribution."""
    height, width = logits.shape[-2:]
    places = torch.arange(height * width, device=logits.device)
    chance = hash_uniform(seed, 0, places, _STREAM_SAMPLE).view(1, 1, height, width)
    cumulative = _probabilities(logits, temperature)
    # Summed up in a fixed order, the same on every device; torch's cumsum has no deterministic kernel on CUDA.
    for label in range(1, cumulative.shape[1]):
        cumulative[:, label] += cumulative[:, label - 1]
    # A share below 1 of the last sum, which rounding leaves beside 1: never reached beyond the last possible label.
    return (cumulative <= chance * cumulative[:, -1:]).sum(1)


def confidence(logits: Float[Tensor, "b k h w"]) -> Float32[Tensor, "b 1 h w"]:
    """How sure a prediction is of each pixel: 1 - entropy / ln k, so 0 for all colours alike and 1 for one alone."""
    log = logits.float().log_softmax(1)
    entropy = -(log.exp() * log).sum(1, keepdim=True)
    return (1 - entropy / math.log(logits.shape[1])).clamp(0, 1)


def saturated(rgb: Float[Tensor, "b 3 h w"], gain: float, grey: str) -> Float32[Tensor, "b 3 h w"]:
    """A picture (0…1) with its chroma multiplied and its luma kept, clipped to 0…1; a gain of 1 gives it back as it is.

    >>> saturated(torch.tensor([0.6, 0.5, 0.4]).view(1, 3, 1, 1), 2.0, "mean").flatten().tolist()
    [0.7000000476837158, 0.5, 0.30000001192092896]
    """
    if gain == 1:
        return rgb
    if grey == "lstar":
        return lab_to_rgb(_scaled_after_first(rgb_to_lab(rgb), gain))
    level = luma(rgb, grey)
    return (level + (rgb - level) * gain).clamp(0, 1)


def with_more_chroma(
    values: Float[Tensor, "b c h w"], space: str, gain: float, grey: str
) -> Float32[Tensor, "b c h w"]:
    """Colours of a palette space with their chroma multiplied; the luma by the formula `grey` stays where there is any."""
    if gain == 1:
        return values
    if space == "rgb":
        return saturated(values, gain, grey)
    return _scaled_after_first(values, gain) if space == "lab" else values * gain


def _scaled_after_first(lab: Float[Tensor, "b 3 h w"], gain: float) -> Float32[Tensor, "b 3 h w"]:
    return torch.cat((lab[:, :1], lab[:, 1:] * gain), dim=1)
