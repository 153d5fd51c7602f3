"""The encoder of a residual U-Net (Zhang et al. 2018, "Road extraction by deep residual U-Net"), of residual blocks."""

from __future__ import annotations

from torch import Tensor, nn

from .contract import PyramidEncoder, conv_norm_act, stage_channels, strides_and_dilations


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, figure 5 left): (n, in, h, w) -> (n, out, ⌈h/stride⌉, ⌈w/stride⌉).

    A shortcut that changes the shape averages before its 1 × 1 convolution (He et al. 2019, "bag of tricks", ResNet-D), so that no
    pixel is skipped. The block starts as its shortcut: the last normalisation's scale is zero.

    Args:
        in_chans, out_chans: of the block.
        stride, first_dilation: of the first convolution.
        dilation: of the second.
        project: a shortcut with a convolution; needed where the shape changes.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        stride: int = 1,
        dilation: int = 1,
        first_dilation: int = 1,
        project: bool = False,
    ):
        super().__init__()
        self.conv1 = conv_norm_act(in_chans, out_chans, stride, first_dilation)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(out_chans)
        nn.init.zeros_(self.norm2.weight)
        # ceil_mode keeps a row of an odd side; what lies outside is not averaged in
        pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        projection = nn.Sequential(pool, nn.Conv2d(in_chans, out_chans, 1, bias=False), nn.BatchNorm2d(out_chans))
        self.shortcut = projection if project else nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm2(self.conv2(self.conv1(x))) + self.shortcut(x))


class ResUNetStage(nn.Module):
    """Residual blocks, the first with the stage's stride: (n, in, h, w) -> (n, out, ⌈h/stride⌉, ⌈w/stride⌉)."""

    def __init__(self, in_chans: int, out_chans: int, stride: int, dilation: int, first_dilation: int, blocks: int):
        super().__init__()
        # dilated instead of strided, it keeps its projection, and so its weights
        first = ResidualBlock(in_chans, out_chans, stride, dilation, first_dilation, project=True)
        rest = (ResidualBlock(out_chans, out_chans, 1, dilation, dilation) for _ in range(blocks - 1))
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ResUNetStem(nn.Module):
    """A convolution: (n, in, h, w) -> (n, out, h, w)."""

    def __init__(self, in_chans: int, out_chans: int):
        super().__init__()
        self.convs = nn.Sequential(conv_norm_act(in_chans, out_chans))

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class ResUNetEncoder(PyramidEncoder):
    """A U-Net's contracting path of residual blocks, with batch normalisation.

    The first stage, at full resolution, is one convolution: with blocks there, half of a step's time would be spent on the level
    that transfers least.

    Args:
        width: channels of the first stage; they double from stage to stage up to eight times the width.
        depth: number of stages, at reductions 1, 2, 4, …
        blocks: residual blocks in each stage behind the first.
        num_classes, in_chans, global_pool, drop_rate, output_stride: as in :class:`PyramidEncoder`.
    """

    def __init__(
        self,
        width: int = 32,
        depth: int = 5,
        blocks: int = 1,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        output_stride: int | None = None,
    ):
        channels = stage_channels(width, depth)
        inputs = [in_chans, *channels[:-1]]
        strides, dilations, reductions = strides_and_dilations(depth, output_stride)
        sizes = zip(inputs, channels, strides, dilations, [1, *dilations[:-1]], strict=True)
        first, *deeper = sizes
        stages = [ResUNetStem(*first[:2]), *(ResUNetStage(*stage, blocks=blocks) for stage in deeper)]
        super().__init__(stages, channels, reductions, num_classes, in_chans, global_pool, drop_rate)
