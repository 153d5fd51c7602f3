"""A plain convolutional encoder: strided convolutions instead of pooling, a chain without branches."""

from __future__ import annotations

from torch import Tensor, nn

from .contract import PyramidEncoder, conv_norm_act, stage_channels, strides_and_dilations


class CNNStage(nn.Module):
    """Convolutions, the first with the stage's stride: (n, in, h, w) -> (n, out, ⌈h/stride⌉, ⌈w/stride⌉).

    The first still lies on the grid of the stage before, so it has that stage's dilation.
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int, dilation: int, first_dilation: int, convs: int):
        super().__init__()
        first = conv_norm_act(in_chans, out_chans, stride, first_dilation)
        rest = (conv_norm_act(out_chans, out_chans, 1, dilation) for _ in range(convs - 1))
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class CNNEncoder(PyramidEncoder):
    """A plain chain of strided convolutions ("all convolutional", Springenberg et al. 2015) with batch normalisation.

    The first stage is a single convolution at full resolution, where each one costs most.

    Args:
        width: channels of the first stage; they double from stage to stage up to eight times the width.
        depth: number of stages, at reductions 1, 2, 4, …
        convs: convolutions in each stage after the first.
        num_classes, in_chans, global_pool, drop_rate, output_stride: as in :class:`PyramidEncoder`.
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
        output_stride: int | None = None,
    ):
        channels = stage_channels(width, depth)
        inputs = [in_chans, *channels[:-1]]
        strides, dilations, reductions = strides_and_dilations(depth, output_stride)
        sizes = zip(inputs, channels, strides, dilations, [1, *dilations[:-1]], strict=True)
        stages = [CNNStage(*stage, convs if i else 1) for i, stage in enumerate(sizes)]
        super().__init__(stages, channels, reductions, num_classes, in_chans, global_pool, drop_rate)
