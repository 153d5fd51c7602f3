"""Controls that every honest transfer table needs: what do grey reconstruction, rotation and labels teach the same encoder?"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from ..backbones import Preprocess
from ..colour import luma, shrink
from ..data import Batch
from ..runtime.errors import ArgumentError, DataError
from ..runtime.loop import Loss
from .heads import PooledHead
from .model import HeadSettings
from .resolution import check_predict_at, enlarge


class Autoencoder:
    """Predict the grey picture that was put in, by mean squared error: what colour is worth shows against it.

    Args:
        preprocess: how pictures become input.
        predict_at: 1, 2 or 4: full, half or quarter resolution.
    """

    name: ClassVar[str] = "autoencoder"
    sees: ClassVar[str] = "grey"
    colourizes: ClassVar[bool] = False
    out_chans: ClassVar[int] = 1
    views: ClassVar[int] = 1
    palette: ClassVar[None] = None

    def __init__(self, preprocess: Preprocess, predict_at: int = 1):
        check_predict_at(predict_at)
        self.preprocess, self.predict_at = preprocess, predict_at
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.preprocess(rgb)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 1 h2 w2"]]:
        return self.inputs(batch.rgb), luma(shrink(batch.rgb, self.predict_at), self.grey)

    def loss(self, predictions: Float[Tensor, "b 1 h w"], targets: Float[Tensor, "b 1 h w"]) -> Loss:
        return Loss.mean_of(F.mse_loss(predictions.float(), targets, reduction="none"))

    def paint(self, predictions: Float[Tensor, "b 1 h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        painted = predictions.float().clamp(0, 1).expand(-1, 3, -1, -1)
        return painted if self.predict_at == 1 else enlarge(painted, rgb)


class _Classification:
    """A task whose answer is one class for each picture; it paints nothing."""

    views: ClassVar[int] = 1
    predict_at: ClassVar[int] = 1
    palette: ClassVar[None] = None

    def __init__(self, preprocess: Preprocess, out_chans: int):
        self.preprocess, self.out_chans = preprocess, out_chans
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey

    def make_head(self, encoder: nn.Module, settings: HeadSettings) -> nn.Module:
        return PooledHead(encoder, self.out_chans)

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.preprocess(rgb)

    def loss(self, predictions: Float[Tensor, "b c"], targets: Int64[Tensor, " b"]) -> Loss:
        return Loss.mean_of(F.cross_entropy(predictions.float(), targets, reduction="none"))


class Rotation(_Classification):
    """Predict by which multiple of 90° the grey picture was turned (Gidaris et al. 2018).

    Each picture is turned once, not four times as in the paper, so that a step costs what other tasks' steps cost; a quarter of
    the batch gets each turn, which picture is which changes with the order from epoch to epoch.
    """

    name: ClassVar[str] = "rotation"
    sees: ClassVar[str] = "grey"

    def __init__(self, preprocess: Preprocess):
        super().__init__(preprocess, 4)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]:
        if batch.rgb.shape[-1] != batch.rgb.shape[-2]:
            raise ArgumentError("task: rotation needs square pictures; give --image-size.")
        x = self.inputs(batch.rgb)
        turned = [x[turn::4].rot90(turn, (2, 3)) for turn in range(4)]
        targets = [torch.full((len(part),), turn, device=x.device) for turn, part in enumerate(turned)]
        return torch.cat(turned), torch.cat(targets)


class Supervised(_Classification):
    """Predict the class from the grey picture: the ceiling for an encoder of this input, and no pretext at all.

    Args:
        preprocess: how pictures become input.
        classes: how many there are.
    """

    name: ClassVar[str] = "supervised"

    def __init__(self, preprocess: Preprocess, classes: int):
        if classes < 2:
            raise DataError(
                "task: supervised needs images with at least two classes; give a data set with class folders."
            )
        super().__init__(preprocess, classes)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]:
        assert batch.labels is not None
        return self.inputs(batch.rgb), batch.labels


class Untrained(_Classification):
    """No pretext: the encoder keeps its random weights, and is judged like any other."""

    name: ClassVar[str] = "random"
    trains: ClassVar[bool] = False

    def __init__(self, preprocess: Preprocess):
        super().__init__(preprocess, 1)

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]:
        return self.inputs(batch.rgb), torch.zeros_like(batch.ids)
