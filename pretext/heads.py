"""What else than a decoder can sit on feature maps? Classifiers, projections, and heads that see one half of a pair."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..backbones import PairEncoder
from ..runtime.errors import ArgumentError


class PooledHead(nn.Module):
    """A linear classifier on the deepest map's global average: maps -> (b, classes)."""

    def __init__(self, encoder: nn.Module, classes: int):
        super().__init__()
        self.linear = nn.Linear(deepest_channels(encoder), classes)

    def forward(self, maps: list[Tensor], inputs: Tensor) -> Float[Tensor, "b c"]:
        return self.linear(maps[-1].float().mean((2, 3)).to(maps[-1].dtype))


class ProjectionHead(nn.Module):
    """A hidden layer and a unit vector for contrast (Chen et al. 2020, "SimCLR", section 4.2): maps -> (b, dim)."""

    def __init__(self, encoder: nn.Module, dim: int = 128):
        super().__init__()
        width = deepest_channels(encoder)
        self.layers = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Linear(width, dim)
        )

    def forward(self, maps: list[Tensor], inputs: Tensor) -> Float[Tensor, "b d"]:
        return F.normalize(self.layers(maps[-1].mean((2, 3))).float(), dim=1)


class Half(nn.Module):
    """Stands for one half of a pair: `feature_info` is the half's, and :meth:`of` takes the half's channels out of joined maps.

    Args:
        pair: the encoder.
        part: "luma" or "chroma".
    """

    def __init__(self, pair: nn.Module, part: str):
        super().__init__()
        if not isinstance(pair, PairEncoder):
            raise ArgumentError("backbone: this task needs one encoder for luma and one for chroma; use pair/NAME.")
        self.slices = []
        self.feature_info = []
        for level, luma in zip(pair.feature_info, pair.luma_channels, strict=True):
            channels = slice(0, luma) if part == "luma" else slice(luma, level["num_chs"])
            self.slices.append(channels)
            self.feature_info.append(level | {"num_chs": channels.stop - channels.start})

    def of(self, maps: list[Tensor]) -> list[Tensor]:
        return [m[:, channels] for m, channels in zip(maps, self.slices, strict=True)]


class HalfHead(nn.Module):
    """A head on one half of a pair.

    Args:
        half: which.
        head: made for that half.
    """

    part: Half

    def __init__(self, half: Half, head: nn.Module):
        super().__init__()
        self.part, self.head = half, head

    def forward(self, maps: list[Tensor], inputs: Tensor) -> Any:
        return self.head(self.part.of(maps), inputs)


class Heads(nn.Module):
    """Several heads on the same maps: maps -> a tuple of their predictions."""

    def __init__(self, *heads: nn.Module):
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, maps: list[Tensor], inputs: Tensor) -> tuple[Any, ...]:
        return tuple(head(maps, inputs) for head in self.heads)


def deepest_channels(encoder: nn.Module) -> int:
    """Channels of the deepest feature map."""
    return int(encoder.feature_info[-1]["num_chs"])  # type: ignore[index,union-attr]
