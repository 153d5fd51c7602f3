"""The encoder of a U-Net (Ronneberger et al. 2015, figure 1): two convolutions a stage, max-pooling between stages."""

from __future__ import annotations

from torch import Tensor, nn

from .contract import PyramidEncoder, conv_norm_act, stage_channels, strides_and_dilations


class UNetStage(nn.Module):
    """Max-pooling by the stride, then two convolutions: (n, in, h, w) -> (n, out, ⌈h/stride⌉, ⌈w/stride⌉)."""

    def __init__(self, in_chans: int, out_chans: int, stride: int, dilation: int):
        super().__init__()
        # ceil_mode keeps a row of an odd side, and a 1 × 1 map alive
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.convs = nn.Sequential(
            conv_norm_act(in_chans, out_chans, 1, dilation), conv_norm_act(out_chans, out_chans, 1, dilation)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(self.pool(x))


class UNetEncoder(PyramidEncoder):
    """A U-Net's contracting path with batch normalisation and padded convolutions.

    Args:
        width: channels of the first stage; they double from stage to stage up to eight times the width.
        depth: number of stages, at reductions 1, 2, 4, …
        num_classes, in_chans, global_pool, drop_rate, output_stride: as in :class:`PyramidEncoder`.
    """

    def __init__(
        self,
        width: int = 32,
        depth: int = 5,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        output_stride: int | None = None,
    ):
        channels = stage_channels(width, depth)
        inputs = [in_chans, *channels[:-1]]
        strides, dilations, reductions = strides_and_dilations(depth, output_stride)
        stages = [UNetStage(*sizes) for sizes in zip(inputs, channels, strides, dilations, strict=True)]
        super().__init__(stages, channels, reductions, num_classes, in_chans, global_pool, drop_rate)
