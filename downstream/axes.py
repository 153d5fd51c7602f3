"""Which axes suit a probe? Features of layers side by side, standardised and decorrelated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

_CHUNK = 4096  # rows at a time
# A channel whose deviation is no more than this share of its largest magnitude is dead: float32 rounds by as much, so what it
# carries is noise, and dividing by the deviation would blow it up.
ROUNDING = 1e-6


@dataclass(frozen=True)
class PrincipalAxes:
    """A layer's features, standardised and rotated so that its columns are uncorrelated.

    Attributes:
        mean: (d,) of the raw features.
        rotation: (d, d), from centred raw features to the axes; a constant channel's row is zero.
        variances: (d,) of the standardised features along the axes; their mean is 1 when no channel is constant.
    """

    mean: Float32[Tensor, " d"]
    rotation: Float32[Tensor, "d d"]
    variances: Float32[Tensor, " d"]

    @classmethod
    def fit(cls, parts: tuple[Float32[Tensor, "n _"], ...]) -> PrincipalAxes:
        """The axes of a layer given as column blocks, which are never joined as a whole; finite values are assumed.

        Products are float32 over centred columns scaled to at most 1, so that no scale overflows; sums are float64.
        """
        n, mean = len(parts[0]), torch.cat([part.mean(0).cpu() for part in parts])
        lowest, highest = (torch.cat(ends).cpu() for ends in zip(*(part.aminmax(dim=0) for part in parts), strict=True))
        peak = torch.maximum(highest, -lowest).clamp_min(1e-30)  # (d,) largest magnitude
        products = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for chunk in joined_rows(parts):
            x = (chunk - mean.to(chunk)) / peak.to(chunk)  # (b, d)
            products += (x.T @ x).cpu().double()
        deviation = (products.diagonal() / n).sqrt()
        scale = torch.where(deviation > ROUNDING, 1 / deviation, 0.0)
        variances, rotation = torch.linalg.eigh(products / n * scale * scale[:, None])
        return cls(mean.float(), (rotation * (scale / peak)[:, None]).float(), variances.clamp_min(0).float())

    def project(self, parts: tuple[Tensor, ...], device: torch.device) -> Float32[Tensor, "n d"]:
        """Features along the axes, computed in chunks, on `device`."""
        mean, rotation = self.mean.to(device), self.rotation.to(device)
        z = torch.empty(len(parts[0]), rotation.shape[1], device=device)
        for i, chunk in enumerate(joined_rows(parts)):
            torch.mm(chunk.to(device) - mean, rotation, out=z[i * _CHUNK : i * _CHUNK + len(chunk)])
        return z


def joined_rows(parts: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """A layer given as column blocks, some thousand rows (b, d) at a time."""
    for chunk in zip(*(part.split(_CHUNK) for part in parts), strict=True):
        yield torch.cat(chunk, 1)


def channel_moments(
    parts: tuple[Tensor, ...], device: torch.device
) -> tuple[Float64[Tensor, " d"], Float64[Tensor, " d"], Float64[Tensor, " d"]]:
    """Mean, standard deviation and largest magnitude of each channel of a layer given as column blocks, on `device`."""
    n, width = len(parts[0]), sum(part.shape[1] for part in parts)
    mean, variance, peak = torch.zeros(3, width, dtype=torch.float64, device=device)
    for chunk in joined_rows(parts):
        mean += chunk.to(mean).sum(0) / n
    for chunk in joined_rows(parts):
        x = chunk.to(mean)
        peak = torch.maximum(peak, x.abs().amax(0))
        variance += (x - mean).square_().sum(0) / n
    return mean, variance.sqrt(), peak
