"""Which axes suit a linear probe? Features of layers side by side, standardised and decorrelated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from ..runtime.errors import ArgumentError, NotFiniteError
from .features import MOST_NUMBERS, is_finite

_CHUNK = 4096  # rows of statistics at a time


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
        for chunk in zip(*(part.split(_CHUNK) for part in parts), strict=True):
            x = torch.cat(chunk, 1)
            x = (x - mean.to(x)) / peak.to(x)  # (b, d)
            products += (x.T @ x).cpu().double()
        deviation = (products.diagonal() / n).sqrt()
        # Channels that vary by less than float32's rounding are dead: they carry noise, and dividing would blow it up.
        scale = torch.where(deviation > 1e-6, 1 / deviation, 0.0)
        variances, rotation = torch.linalg.eigh(products / n * scale * scale[:, None])
        return cls(mean.float(), (rotation * (scale / peak)[:, None]).float(), variances.clamp_min(0).float())

    def project(self, parts: tuple[Tensor, ...], device: torch.device) -> Float32[Tensor, "n d"]:
        """Features along the axes, computed in chunks, on `device`."""
        mean, rotation = self.mean.to(device), self.rotation.to(device)
        z = torch.empty(len(parts[0]), rotation.shape[1], device=device)
        for i, chunk in enumerate(zip(*(part.split(_CHUNK) for part in parts), strict=True)):
            x = torch.cat(chunk, 1).to(device) - mean
            torch.mm(x, rotation, out=z[i * _CHUNK : i * _CHUNK + len(x)])
        return z


Layers = dict[str, tuple[Tensor, ...]]


def paired_layers(train: Tensor | Mapping[str, Tensor], test: Tensor | Mapping[str, Tensor]) -> tuple[Layers, Layers]:
    """Layer name -> float32 column blocks of two splits; "all" lists the blocks of every layer instead of copying them, and
    "all/2x2" those of every layer whose name ends in /2x2.

    A bare tensor is the one layer "features". Raises ArgumentError when a layer is no float (n, d) with n, d > 0 or the
    splits differ in layers or widths, NotFiniteError when a layer holds NaN or infinity.
    """
    both: list[Layers] = []
    for name, given in (("train_features", train), ("test_features", test)):
        features = dict(given) if isinstance(given, Mapping) else {"features": given}
        if not features or any(layer.partition("/")[0] == "all" for layer in features):
            raise ArgumentError(f"{name}: got layers {list(features)}; give one or more, none of them called 'all'.")
        for layer, x in features.items():
            if x.ndim != 2 or not x.is_floating_point() or not x.numel():
                raise ArgumentError(
                    f"{name}: layer {layer!r} is {x.dtype} {tuple(x.shape)}; use floats (images, width)."
                )
            features[layer] = x.detach().float()
            if not is_finite(features[layer]):
                raise NotFiniteError(f"{name}: layer {layer!r} holds NaN or infinity; check the encoder that made it.")
        layers: Layers = {layer: (x,) for layer, x in features.items()}
        both.append(layers | _joined(features))
    widths, test_widths = ({layer: sum(x.shape[1] for x in parts) for layer, parts in side.items()} for side in both)
    if widths != test_widths:
        raise ArgumentError(f"test_features: layers and widths {test_widths} differ from those of training, {widths}.")
    return both[0], both[1]


def _joined(features: Mapping[str, Tensor]) -> Layers:
    """For each pooling of two layers or more, the blocks of its layers together; grids only up to `MOST_NUMBERS` in all, since the
    work grows with the cube of the width."""
    poolings: dict[str, list[Tensor]] = {}
    for layer, x in features.items():
        _, slash, pooling = layer.partition("/")
        poolings.setdefault(f"all{slash}{pooling}", []).append(x)
    return {
        name: tuple(blocks)
        for name, blocks in poolings.items()
        if len(blocks) > 1 and (name == "all" or sum(x.shape[1] for x in blocks) <= MOST_NUMBERS)
    }
