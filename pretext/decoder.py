"""How do feature maps become a picture again? A U-Net's expanding path, built from `feature_info` alone."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..runtime.errors import ArgumentError
from .operations import Fusion, Scene, join_channels


def check_skips(skips: int | None) -> None:
    """Raises ArgumentError for a negative number of skips."""
    if skips is not None and skips < 0:
        raise ArgumentError(f"skips: {skips} must be 0 or more; leave it out to join all levels.")


def _conv_norm_act(in_chans: int, out_chans: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_chans, out_chans, 3, padding=1, bias=False), nn.BatchNorm2d(out_chans), nn.ReLU(inplace=True)
    )


class UpBlock(nn.Module):
    """Deep map (b, in, h, w) to the size of a shallower one, joined with it if there is one, and convolved: (b, out, h', w').

    Channels are reduced by a 1 × 1 convolution before the upsampling, where a pixel costs a quarter. Upsampling is nearest, since
    the backward pass of bilinear upsampling has no deterministic kernel on CUDA.
    """

    def __init__(self, in_chans: int, skip_chans: int, out_chans: int):
        super().__init__()
        self.reduce = nn.Conv2d(in_chans, out_chans, 1)
        self.conv = _conv_norm_act(out_chans + skip_chans, out_chans)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        x = self.reduce(x)
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="nearest")
        return self.conv(x if skip is None else join_channels(x, skip))


class PyramidDecoder(nn.Module):
    """A U-Net decoder for any encoder with `feature_info`.

    Args:
        channels, reductions: of the encoder's levels, shallow to deep.
        out_chans: channels of the prediction.
        predict_at: input side over prediction side; levels finer than that are not used.
        skips: how many levels above the deepest are joined, deepest first; None for all.
        width: most channels at full resolution; twice as many at half, and so on.
        fusion_features: length of a vector from outside that is fused into the deepest map; 0: that map's own average; None:
            nothing is fused.

    Raises:
        ArgumentError: `skips` or `fusion_features` is negative.
    """

    def __init__(
        self,
        channels: list[int],
        reductions: list[int],
        out_chans: int,
        predict_at: int = 1,
        skips: int | None = None,
        width: int = 64,
        fusion_features: int | None = None,
    ):
        super().__init__()
        check_skips(skips)
        if fusion_features is not None and fusion_features < 0:
            raise ArgumentError(f"fusion_features: {fusion_features} must be 0 or more, the length of a vector.")
        self.predict_at = predict_at
        self.fusion = None if fusion_features is None else Fusion(channels[-1], fusion_features, channels[-1])
        if self.fusion is not None:
            # logits are larger than features: behind the mixing they are normalised like any other map
            self.behind_fusion = nn.Sequential(nn.BatchNorm2d(channels[-1]), nn.ReLU(inplace=True))
        levels = [i for i, r in enumerate(reductions) if r >= predict_at][:-1][::-1]
        self.levels = levels if skips is None else levels[:skips]
        self.blocks = nn.ModuleList()
        current, reduction = channels[-1], reductions[-1]
        for level in self.levels:
            out = min(channels[level], width * reductions[level])
            self.blocks.append(UpBlock(current, channels[level], out))
            current, reduction = out, reductions[level]
        # what is still coarser than the prediction is enlarged without a skip, by two at a time
        while reduction > predict_at:
            reduction = max(predict_at, reduction // 2)
            out = min(max(current // 2, 32), width * reduction)
            self.blocks.append(UpBlock(current, 0, out))
            current = out
        self.head = nn.Conv2d(current, out_chans, 1)

    def forward(
        self,
        maps: list[Float[Tensor, "b _ _ _"]],
        inputs: Float[Tensor, "b _ h w"],
        vector: Float[Tensor, "b f"] | None = None,
    ) -> Float[Tensor, "b c h2 w2"]:
        """The prediction.

        Args:
            maps: the encoder's feature maps, shallow to deep.
            inputs: the encoder's input; only its height and width matter.
            vector: what a decoder with `fusion_features` fuses.

        Returns:
            (b, out_chans, ⌈h / predict_at⌉, ⌈w / predict_at⌉).

        Raises:
            ArgumentError: the vector is missing, or of another length.
        """
        height, width = inputs.shape[-2:]
        wanted = (-(-height // self.predict_at), -(-width // self.predict_at))
        x = maps[-1]
        if self.fusion is not None:
            x = self.behind_fusion(self.fusion(x, Scene(maps, inputs, vector)))
        for level, block in zip(self.levels, self.blocks, strict=False):
            x = block(x, maps[level], tuple(maps[level].shape[-2:]))
        for block in self.blocks[len(self.levels) :]:
            height, width = x.shape[-2:]
            x = block(x, None, (min(2 * height, wanted[0]), min(2 * width, wanted[1])))
        if x.shape[-2:] != wanted:
            x = F.interpolate(x, size=wanted, mode="nearest")
        return self.head(x)
