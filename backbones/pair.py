"""How do two encoders, one of luma and one of chroma, behave as a single one? Side by side, channels of each level joined.

The way split-brain autoencoders (Zhang et al. 2017) and contrastive multiview coding (Tian et al. 2020) are used after training.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..runtime.errors import ArgumentError
from .contract import PyramidEncoder


class PairStage(nn.Module):
    """Two stages on their own channels: (n, a + b, h, w) -> (n, a' + b', h', w'); the first takes the first `split` channels."""

    def __init__(self, luma: nn.Module, chroma: nn.Module, split: int):
        super().__init__()
        self.luma, self.chroma, self.split = luma, chroma, split

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.luma(x[:, : self.split]), self.chroma(x[:, self.split :])], dim=1)


class PairEncoder(PyramidEncoder):
    """A luma and a chroma encoder as one: image (n, 1 + 2, h, w); each level holds luma's channels, then chroma's.

    The halves' weights are kept as they are; they are copied.

    Args:
        luma: an encoder of stages with one input channel.
        chroma: one with as many levels at the same reductions, and two input channels.
        num_classes, global_pool, drop_rate: as in :class:`PyramidEncoder`.

    Raises:
        ArgumentError: the halves do not fit each other.
    """

    def __init__(
        self,
        luma: PyramidEncoder,
        chroma: PyramidEncoder,
        num_classes: int = 0,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ):
        if not (isinstance(luma, PyramidEncoder) and isinstance(chroma, PyramidEncoder)):
            raise ArgumentError("pair: only encoders of this library can be paired, such as pretint_unet.")
        halves = (luma, chroma)
        levels = [half.feature_info for half in halves]
        reductions = [[level["reduction"] for level in half] for half in levels]
        if reductions[0] != reductions[1] or (luma.in_chans, chroma.in_chans) != (1, 2):
            raise ArgumentError(
                "pair: the halves must have 1 and 2 input channels and levels at the same reductions; make both of the same "
                "sizes."
            )
        channels = [[level["num_chs"] for level in half] for half in levels]
        splits = [1, *channels[0][:-1]]
        stages = [
            PairStage(copy.deepcopy(a), copy.deepcopy(b), split)
            for a, b, split in zip(luma.stages, chroma.stages, splits, strict=True)
        ]
        joined = [a + b for a, b in zip(*channels, strict=True)]
        super().__init__(stages, joined, reductions[0], num_classes, 3, global_pool, drop_rate, initialise=False)
        self.luma_channels = channels[0]

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Regular expressions that sort parameters by depth, for layer-wise learning rates; one group a stage."""
        return {"stem": r"^stages\.0\.", "blocks": r"^stages\.(\d+)"}
