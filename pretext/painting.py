"""How does a trained model paint: batches of small pictures, or one picture of any size?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..backbones import SMALLEST_SIZE
from ..colour import luma, to_float, to_uint8, with_luma
from ..data import Batch, ImageSource
from ..runtime.device import Compute
from .model import PretextModel
from .tasks import Task

_LONGEST_SIDES = 16


class Painter:
    """A trained model with its task; paints in evaluation mode, and looks at nothing of a picture but its grey.

    Args:
        model: the trained network.
        task: what it was trained for.
        compute: device and precision.
    """

    def __init__(self, model: PretextModel, task: Task, compute: Compute):
        self.model, self.task, self.compute = compute.place(model), task, compute

    @torch.inference_mode()
    def predict(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h2 w2"]:
        """Raw predictions for pictures on the model's device, float32."""
        self.model.eval()
        ids = torch.arange(len(rgb), device=rgb.device)
        inputs, _ = self.task.split(Batch(rgb, ids, None))
        with self.compute.autocast():
            return self.model(self.compute.layout(inputs)).float()

    @torch.inference_mode()
    def paint(self, rgb: UInt8[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
        """The pictures painted anew from their grey."""
        return to_uint8(self.task.paint(self.predict(rgb), rgb))

    def predictions(
        self, source: ImageSource, ids: Int64[Tensor, " n"], batch_size: int = 256
    ) -> Iterator[tuple[UInt8[Tensor, "b 3 h w"], UInt8[Tensor, "b 3 h w"], Float[Tensor, "b k h2 w2"]]]:
        """For the images `ids`, batch by batch: (true pictures, painted pictures, raw predictions)."""
        for chunk in ids.split(batch_size):
            rgb = source.gather(chunk, self.compute.device)
            predictions = self.predict(rgb)
            yield rgb, to_uint8(self.task.paint(predictions, rgb)), predictions

    @torch.inference_mode()
    def colourize(self, picture: UInt8[Tensor, "3 h w"], size: int) -> UInt8[Tensor, "3 h w"]:
        """Paints a picture of any size: the network sees it with its shorter side at `size` pixels; the chroma it paints is
        upsampled and joined with the picture's own luma.

        Args:
            picture: RGB or grey-as-RGB, any size.
            size: shorter side of what the network sees, at least 8; the size it was trained on is the best start.
        """
        rgb = picture[None].to(self.compute.device)
        height, width = rgb.shape[-2:]
        scale = max(size, SMALLEST_SIZE) / min(height, width)
        longest = _LONGEST_SIDES * max(size, SMALLEST_SIZE)  # a picture of one row must not become a band without end
        small_size = [min(max(SMALLEST_SIZE, round(side * scale)), longest) for side in (height, width)]
        small = to_uint8(F.interpolate(to_float(rgb), size=small_size, mode="bilinear", antialias=True).clamp(0, 1))
        painted = self.task.paint(self.predict(small), small)
        large = F.interpolate(painted, size=(height, width), mode="bicubic", align_corners=False).clamp(0, 1)
        return to_uint8(with_luma(large, luma(rgb, self.task.grey), self.task.grey))[0].cpu()
