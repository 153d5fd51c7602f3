"""Regression tasks: predict the colours themselves; the squared error makes the prediction their conditional mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ..backbones import Preprocess
from ..colour import lab_to_rgb, luma, rgb_to_lab, shrink, to_float
from ..data import Batch
from ..runtime.errors import UnknownNameError
from ..runtime.loop import Loss
from .resolution import check_predict_at, enlarge_chroma

_LAB_SCALE = 128.0

_REGRESSIONS: dict[str, Callable[..., Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.smooth_l1_loss,
}


LOSSES = tuple(_REGRESSIONS)


def _regression_loss(kind: str, predictions: Tensor, targets: Tensor) -> Loss:
    """Mean over all numbers; summed by ourselves, since the fused mean has no deterministic kernel everywhere."""
    each = _REGRESSIONS[kind](predictions.float(), targets, reduction="none")
    return Loss.mean_of(each)


class RGBRegression:
    """Predict all three channels; the squared error makes the prediction the conditional mean.

    Args:
        preprocess: how pictures become input.
        loss: `mse`, `l1` or `huber`, averaged over 3·h·w numbers in 0…1.
        keep_luma: when painting, the input's luma replaces the predicted one.
        predict_at: 1, 2 or 4: full, half or quarter resolution.
    """

    name: ClassVar[str] = "rgb-regression"
    sees: ClassVar[str] = "grey"
    out_chans: ClassVar[int] = 3
    views: ClassVar[int] = 1
    palette: ClassVar[None] = None

    def __init__(self, preprocess: Preprocess, loss: str = "mse", keep_luma: bool = False, predict_at: int = 1):
        if loss not in LOSSES:
            raise UnknownNameError("loss", loss, LOSSES)
        check_predict_at(predict_at)
        self.preprocess, self.kind, self.keep_luma, self.predict_at = preprocess, loss, keep_luma, predict_at
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.preprocess(rgb)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 3 h2 w2"]]:
        return self.inputs(batch.rgb), to_float(shrink(batch.rgb, self.predict_at))

    def loss(self, predictions: Float[Tensor, "b 3 h w"], targets: Float[Tensor, "b 3 h w"]) -> Loss:
        return _regression_loss(self.kind, predictions, targets)

    def paint(self, predictions: Float[Tensor, "b 3 h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        painted = predictions.float().clamp(0, 1)
        if self.keep_luma or self.predict_at > 1:
            return enlarge_chroma(painted, rgb, self.grey)
        return painted


class LabRegression:
    """Predict a* and b* from grey (Zhang et al. 2016, eq. 1, on ab / 128), optionally bounded by tanh.

    Args:
        preprocess: how pictures become input; with `grey="lstar"` the input is L*.
        loss: `mse`, `l1` or `huber`.
        bounded: tanh on the output, so that |ab| stays below 128.
        predict_at: 1, 2 or 4: full, half or quarter resolution.
    """

    name: ClassVar[str] = "lab-regression"
    sees: ClassVar[str] = "grey"
    out_chans: ClassVar[int] = 2
    views: ClassVar[int] = 1
    palette: ClassVar[None] = None

    def __init__(self, preprocess: Preprocess, loss: str = "mse", bounded: bool = True, predict_at: int = 1):
        if loss not in LOSSES:
            raise UnknownNameError("loss", loss, LOSSES)
        check_predict_at(predict_at)
        self.preprocess, self.kind, self.bounded, self.predict_at = preprocess, loss, bounded, predict_at
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.preprocess(rgb)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 2 h2 w2"]]:
        return self.inputs(batch.rgb), rgb_to_lab(shrink(batch.rgb, self.predict_at))[:, 1:] / _LAB_SCALE

    def _bound(self, predictions: Tensor) -> Tensor:
        return predictions.float().tanh() if self.bounded else predictions.float()

    def loss(self, predictions: Float[Tensor, "b 2 h w"], targets: Float[Tensor, "b 2 h w"]) -> Loss:
        return _regression_loss(self.kind, self._bound(predictions), targets)

    def paint(self, predictions: Float[Tensor, "b 2 h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        grey = luma(shrink(rgb, self.predict_at), self.grey)
        lightness = grey * 100 if self.grey == "lstar" else rgb_to_lab(grey.expand(-1, 3, -1, -1))[:, :1]
        painted = lab_to_rgb(torch.cat([lightness, self._bound(predictions) * _LAB_SCALE], dim=1))
        return enlarge_chroma(painted, rgb, self.grey)
