"""What is trained? An encoder and a decoder together; afterwards only the encoder is kept."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from .decoder import PyramidDecoder


class PretextModel(nn.Module):
    """Encoder and U-Net decoder: input (b, in_chans, h, w) -> prediction (b, out_chans, h', w').

    Args:
        encoder: any module with `feature_info` and `forward_intermediates`, as :func:`pretint.backbones.create_backbone` makes.
        out_chans: channels of the prediction.
        predict_at: input side over prediction side.
        skips: how many encoder levels above the deepest the decoder sees; None for all.
    """

    def __init__(self, encoder: nn.Module, out_chans: int, predict_at: int = 1, skips: int | None = None):
        super().__init__()
        self.encoder = encoder
        levels: list[dict[str, int]] = encoder.feature_info  # type: ignore[assignment]
        channels, reductions = [lv["num_chs"] for lv in levels], [lv["reduction"] for lv in levels]
        self.decoder = PyramidDecoder(channels, reductions, out_chans, predict_at, skips)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h2 w2"]:
        maps = self.encoder.forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]
        return self.decoder(maps, (x.shape[-2], x.shape[-1]))
