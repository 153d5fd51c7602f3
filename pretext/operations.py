"""Of which operations do published decoders consist? Each is one entry of a decoder's list, and knows how to become layers."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..runtime.errors import ArgumentError

OUT = None  # in place of a multiple of the width: the channels of the prediction


@dataclass
class Site:
    """Where a decoder has come to while its layers are made.

    Attributes:
        channels, reduction: of the map so far: its channels, and the picture's side over its side.
        levels: the encoder's `feature_info`.
        in_chans: channels of the network's input; None if a decoder must not look at it.
        out_chans, predict_at: channels and reduction of the prediction.
        width: channels that an operation names are multiples of it.
        image_size: side of the pictures.
        fusion_features: length of a vector from outside, 0 for none.
        skips: how many levels above the deepest a hypercolumn sees; None for all.
    """

    channels: int
    reduction: int
    levels: list[dict[str, Any]]
    in_chans: int | None
    out_chans: int
    predict_at: int
    width: int
    image_size: int
    fusion_features: int
    skips: int | None = None

    def step(self, times: int | float | None) -> tuple[int, int]:
        """Input and output channels of a layer; the latter are the map's from here on."""
        before = self.channels
        self.channels = self.out_chans if times is None else max(1, round(times * self.width))
        return before, self.channels


class Scene(NamedTuple):
    """What there is to look at while a decoder runs: the encoder's maps, its input, and perhaps a vector from outside."""

    maps: list[Tensor]
    inputs: Tensor
    vector: Tensor | None


class SceneLayer(nn.Module):
    """A layer that looks at more than the map so far; it is called as layer(x, scene).

    Attributes:
        fixed_size: side of the only pictures that it takes, which are square then; None for any.
    """

    fixed_size: int | None = None


@runtime_checkable
class Operation(Protocol):
    """An entry of a decoder's list."""

    def layers(self, site: Site) -> list[nn.Module]:
        """The layers, in order; the site is moved behind them."""
        ...


def _side(pixels: int, reduction: int) -> int:
    return -(-pixels // reduction)


def fit(x: Float[Tensor, "b c _ _"], inputs: Float[Tensor, "b _ h w"], reduction: int) -> Float[Tensor, "b c h2 w2"]:
    """A map (b, c, h', w') with sides ⌈h / reduction⌉ and ⌈w / reduction⌉ of the input's h and w.

    What enlarging by two gave too much of an odd side is cut off. An encoder that rounds odd sides down gives too little: then
    pixels are repeated.
    """
    height, width = (_side(side, reduction) for side in inputs.shape[-2:])
    x = x[..., :height, :width]
    return x if x.shape[-2:] == (height, width) else F.interpolate(x, size=(height, width), mode="nearest")


def join_channels(x: Float[Tensor, "b c h w"], other: Float[Tensor, "b c2 h w"]) -> Float[Tensor, "b c3 h w"]:
    """Two maps as one with the channels of both, in the first one's precision: the network's input stays float32 under autocast,
    and would make all of the map so.

    Maps in channels_last are joined along their last axis in memory, where torch joins runs of channels and not single numbers.
    """
    other = other.to(x.dtype)
    if x.is_contiguous(memory_format=torch.channels_last):
        return torch.cat([x.permute(0, 2, 3, 1), other.permute(0, 2, 3, 1)], dim=3).permute(0, 3, 1, 2)
    return torch.cat([x, other], dim=1)


class _Fit(SceneLayer):
    def __init__(self, reduction: int):
        super().__init__()
        self.reduction = reduction

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        return fit(x, scene.inputs, self.reduction)


@dataclass(frozen=True)
class Conv:
    """A convolution with bias; zero padding keeps the size."""

    times: int | float | None
    kernel: int = 3

    def layers(self, site: Site) -> list[nn.Module]:
        return [nn.Conv2d(*site.step(self.times), self.kernel, padding=self.kernel // 2)]


@dataclass(frozen=True)
class Transposed:
    """A transposed convolution with bias; stride 2 doubles the size (torch's output_padding=1), stride 1 keeps it."""

    times: int | float | None
    kernel: int = 3
    stride: int = 2

    def layers(self, site: Site) -> list[nn.Module]:
        conv = nn.ConvTranspose2d(
            *site.step(self.times), self.kernel, self.stride, self.kernel // 2, output_padding=self.stride - 1
        )
        site.reduction //= self.stride
        return [conv, _Fit(site.reduction)] if self.stride > 1 else [conv]


@dataclass(frozen=True)
class Up:
    """Nearest upsampling by two; its backward pass has a deterministic kernel on CUDA, that of bilinear upsampling has none."""

    def layers(self, site: Site) -> list[nn.Module]:
        site.reduction //= 2
        return [nn.Upsample(scale_factor=2, mode="nearest"), _Fit(site.reduction)]


@dataclass(frozen=True)
class Norm:
    """Batch normalisation."""

    def layers(self, site: Site) -> list[nn.Module]:
        return [nn.BatchNorm2d(site.channels)]


@dataclass(frozen=True)
class Act:
    """ReLU."""

    def layers(self, site: Site) -> list[nn.Module]:
        return [nn.ReLU(inplace=True)]


class _Join(SceneLayer):
    def __init__(self, level: int | None, reduction: int):
        super().__init__()
        self.level, self.reduction = level, reduction

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        other = scene.inputs if self.level is None else fit(scene.maps[self.level], scene.inputs, self.reduction)
        return join_channels(x, other)


@dataclass(frozen=True)
class Join:
    """Concatenation with a level of the encoder, or with the network's input (None), which must have the map's size."""

    level: int | None = None

    def layers(self, site: Site) -> list[nn.Module]:
        if self.level is not None:
            site.channels += site.levels[self.level]["num_chs"]
        else:
            assert site.in_chans is not None
            site.channels += site.in_chans
        return [_Join(self.level, site.reduction)]


class Fusion(SceneLayer):
    """Map (b, c, h, w) and vector (b, features) -> (b, out, h, w); without features the vector is the map's own average."""

    def __init__(self, in_chans: int, features: int, out_chans: int):
        super().__init__()
        self.features = features
        self.conv = nn.Conv2d(in_chans + (features or in_chans), out_chans, 1)

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        vector = scene.vector if self.features else x.mean((2, 3))
        if vector is None or vector.shape[1:] != (self.features or x.shape[1],):
            got = "none" if vector is None else f"{tuple(vector.shape)}"
            raise ArgumentError(f"vector: this decoder fuses one of shape (b, {self.features}), got {got}; give that.")
        tiled = vector[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        return self.conv(torch.cat([x, tiled.to(x.dtype)], dim=1))


@dataclass(frozen=True)
class Fuse:
    """A vector tiled over the map, concatenated, and mixed by a 1 × 1 convolution (Baldassarre et al. 2017, section 2.2).

    The vector comes from outside, such as a classifier's output, if the decoder was made with `fusion_features`; else it is the
    map's own global average, which knows of no labels.
    """

    times: int | float | None

    def layers(self, site: Site) -> list[nn.Module]:
        before, out = site.step(self.times)
        return [Fusion(before, site.fusion_features, out)]


class _Dense(SceneLayer):
    """Map (b, c, h, w) of pictures of one size -> a map of the same shape, by way of a vector."""

    def __init__(self, shape: tuple[int, int, int], hidden: int, dropout: float, image_size: int):
        super().__init__()
        self.fixed_size = image_size
        flat = math.prod(shape)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, flat), nn.ReLU(inplace=True), nn.Unflatten(1, shape),
        )  # fmt: skip

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        height, width = scene.inputs.shape[-2:]
        if (height, width) != (self.fixed_size, self.fixed_size):
            raise ArgumentError(
                f"image_size: this decoder's dense layers fit pictures of {self.fixed_size} × {self.fixed_size} pixels, not "
                f"{height} × {width}; make it with their size."
            )
        return self.layers(x)


@dataclass(frozen=True)
class Dense:
    """Flattened, a dense bottleneck with ReLU, dropout, a dense layer back to the map's shape, ReLU."""

    times: int | float
    dropout: float

    def layers(self, site: Site) -> list[nn.Module]:
        side = _side(site.image_size, site.reduction)
        hidden = max(1, round(self.times * site.width))
        return [_Dense((site.channels, side, side), hidden, self.dropout, site.image_size)]


class _Columns(SceneLayer):
    """A 1 × 1 convolution, without bias, of all levels or of the deepest, each resized to the prediction and all concatenated:
    (b, out, h', w').

    It is computed as a sum over the levels, each at its own size: a 1 × 1 convolution does not care whether pixels are repeated
    (or averaged) before or after it, and the concatenation, which would be the largest tensor of all, is never made.
    """

    def __init__(self, levels: list[dict[str, Any]], skips: int | None, predict_at: int, out_chans: int):
        super().__init__()
        levels = levels if skips is None else levels[-1 - skips :]
        self.reductions, self.predict_at = [level["reduction"] for level in levels], predict_at
        # one weight a level: slices of a joint one would not lie as the convolution wants them, and take several times as long
        self.convs = nn.ModuleList(nn.Conv2d(level["num_chs"], out_chans, 1, bias=False) for level in levels)

    def forward(self, x: Tensor, scene: Scene) -> Tensor:
        parts = []
        for level, conv, reduction in zip(scene.maps[-len(self.convs) :], self.convs, self.reductions, strict=True):
            part = conv(level)
            if reduction > self.predict_at:
                part = F.interpolate(part, scale_factor=reduction / self.predict_at, mode="nearest")
            elif reduction < self.predict_at:
                part = F.avg_pool2d(part, self.predict_at // reduction, ceil_mode=True, count_include_pad=False)
            parts.append(fit(part, scene.inputs, self.predict_at))
        return functools.reduce(torch.add, parts)


@dataclass(frozen=True)
class Columns:
    """Every pixel's descriptor is all levels above it, or the deepest of them (a hypercolumn), mixed by a 1 × 1 convolution;
    its bias is left to the normalisation behind it."""

    times: int | float | None

    def layers(self, site: Site) -> list[nn.Module]:
        _, out = site.step(self.times)
        site.reduction = site.predict_at
        return [_Columns(site.levels, site.skips, site.predict_at, out)]
