"""A plain convolutional encoder: strided convolutions instead of pooling, a chain without branches."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from .contract import PyramidEncoder, conv_norm_act, stage_channels


class CNNStage(nn.Module):
    """Convolutions, the first with stride 2 (not in the first stage): (n, in, h, w) -> (n, out, ⌈h/2⌉, ⌈w/2⌉)."""

    def __init__(self, in_chans: int, out_chans: int, stride: int, convs: int):
        super().__init__()
        first = conv_norm_act(in_chans, out_chans, stride)
        self.convs = nn.Sequential(first, *(conv_norm_act(out_chans, out_chans) for _ in range(convs - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class CNNEncoder(PyramidEncoder):
    """A plain chain of strided convolutions ("all convolutional", Springenberg et al. 2015) with batch normalisation.

    The first stage is a single convolution at full resolution, where each one costs most.

    Args:
        width: channels of the first stage; they double from stage to stage up to eight times the width.
        depth: number of stages, at reductions 1, 2, 4, …
        convs: convolutions in each stage after the first.
        num_classes, in_chans, global_pool, drop_rate: as in :class:`PyramidEncoder`.
    """

    def __init__(
        self,
        width: int = 32,
        depth: int = 5,
        convs: int = 2,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ):
        channels = stage_channels(width, depth)
        stages = [CNNStage(in_chans, channels[0], stride=1, convs=1)]
        stages += [CNNStage(i, o, stride=2, convs=convs) for i, o in pairwise(channels)]
        super().__init__(stages, channels, [2**i for i in range(depth)], num_classes, in_chans, global_pool, drop_rate)
