"""How does a trained model paint: batches of small pictures, or one picture of any size?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..backbones import SMALLEST_SIZE
from ..colour import luma, to_float, to_uint8, with_luma
from ..data import ImageSource
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError
from .contract import PaintingTask, Task, colour_prediction, colourizes, network_input
from .decoding import Decoding, confidence, saturated
from .model import PretextModel

_LONGEST_SIDES = 16


class Painter:
    """A trained model with its task; paints in evaluation mode, and looks at nothing of a picture but what the task shows the
    network: its grey, or for superres its coarse colours.

    Args:
        model: the trained network.
        task: what it was trained for.
        compute: device and precision.
        decoding: how predictions are painted; None for the way that the task was made with. Can be set anew at any time. For a
            task that predicts colours, and not a distribution over them, it is the saturation that counts.
    """

    def __init__(self, model: PretextModel, task: Task, compute: Compute, decoding: Decoding | None = None):
        self.model, self.task, self.compute, self.decoding = compute.place(model), task, compute, decoding

    @property
    def painting_task(self) -> PaintingTask:
        """The task, which must paint.

        Raises:
            ArgumentError: it paints nothing.
        """
        if not isinstance(self.task, PaintingTask):
            raise ArgumentError(f"task: {self.task.name} paints nothing; probe its encoder instead.")
        return self.task

    @torch.inference_mode()
    def predict(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h2 w2"]:
        """What the task paints from, for pictures on the model's device, float32."""
        self.model.eval()
        inputs = network_input(self.painting_task, rgb)
        with self.compute.autocast():
            predictions = self.model(self.compute.layout(inputs))
        return colour_prediction(self.task, predictions).float()

    @torch.inference_mode()
    def paint(self, rgb: UInt8[Tensor, "b 3 h w"]) -> UInt8[Tensor, "b 3 h w"]:
        """The pictures painted anew from what the network is shown of them."""
        return to_uint8(_painted(self.painting_task, self.predict(rgb), rgb, self.decoding))

    @torch.inference_mode()
    def confidence(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """How sure the network is of each pixel's colour: 1 - entropy / ln K, in 0…1, enlarged bilinearly to the pictures' size.

        Raises:
            ArgumentError: the task predicts no distribution over colours.
        """
        self.check_distribution()
        return _confidence(self.predict(rgb), rgb)

    def check_distribution(self) -> None:
        """Raises ArgumentError unless the task predicts a distribution over colours."""
        if self.painting_task.palette is None:
            raise ArgumentError(
                f"task: {self.task.name} predicts no distribution over colours; take a run of palette or bins."
            )

    def check_told(self) -> None:
        """Raises ArgumentError unless the task paints in the way it is told, so that decode and temperature change anything."""
        if not self.is_told:
            raise ArgumentError(
                f"decode, temperature: {self.task.name} paints in its own way alone; leave them out, or take a run of "
                "palette or bins."
            )

    def check_colourizes(self, size: int) -> None:
        """Raises ArgumentError unless the task gives colours to grey pictures, and the network can be shown them at that size."""
        if not colourizes(self.painting_task):
            raise ArgumentError(
                f"task: {self.task.name} gives no colours to grey pictures; take a run of palette, bins or a regression (what this "
                "one paints is in its figures)."
            )
        fixed = self.model.fixed_size
        if fixed is not None and size != fixed:
            raise ArgumentError(
                f"--size: this network sees pictures of {fixed} × {fixed} pixels alone, not of {size}; leave it out."
            )

    @property
    def is_told(self) -> bool:
        """Whether the task paints in the way it is told, `paint(predictions, rgb, decoding)`; others take the saturation alone."""
        return _takes_decoding(self.painting_task)

    def predictions(
        self, source: ImageSource, ids: Int64[Tensor, " n"], batch_size: int = 256
    ) -> Iterator[tuple[UInt8[Tensor, "b 3 h w"], UInt8[Tensor, "b 3 h w"], Float[Tensor, "b k h2 w2"]]]:
        """For the images `ids`, batch by batch: (true pictures, painted pictures, raw predictions)."""
        for chunk in ids.split(batch_size):
            rgb = source.gather(chunk, self.compute.device)
            predictions = self.predict(rgb)
            yield rgb, to_uint8(_painted(self.painting_task, predictions, rgb, self.decoding)), predictions

    def colourize(self, picture: UInt8[Tensor, "3 h w"], size: int) -> UInt8[Tensor, "3 h w"]:
        """Paints a picture of any size, in the way that is set; arguments as of :meth:`look_at`."""
        return self.look_at(picture, size).painted(self.decoding)

    @torch.inference_mode()
    def look_at(self, picture: UInt8[Tensor, "3 h w"], size: int) -> Photograph:
        """Predicts the colours of a picture of any size, which the network sees with its shorter side at `size` pixels.

        A network that takes pictures of one size alone, such as cs520 with its dense layers, sees the whole picture squeezed into
        that square.

        Args:
            picture: RGB or grey-as-RGB, any size.
            size: shorter side of what the network sees, at least 8; the size it was trained on is the best start.

        Raises:
            ArgumentError: the task gives no colours to grey pictures, or the network takes no pictures of that size.
        """
        self.check_colourizes(size)
        rgb = picture[None].to(self.compute.device)
        height, width = rgb.shape[-2:]
        scale = max(size, SMALLEST_SIZE) / min(height, width)
        longest = _LONGEST_SIDES * max(size, SMALLEST_SIZE)  # a picture of one row must not become a band without end
        small_size = [min(max(SMALLEST_SIZE, round(side * scale)), longest) for side in (height, width)]
        if self.model.fixed_size is not None:
            small_size = [size, size]
        small = to_uint8(F.interpolate(to_float(rgb), size=small_size, mode="bilinear", antialias=True).clamp(0, 1))
        return Photograph(self.painting_task, rgb, small, self.predict(small))


@dataclass(frozen=True)
class Photograph:
    """A picture of any size with what the network predicts for it: predicted once, painted as often as wanted.

    Attributes:
        task: what the network was trained for.
        rgb: the picture, on the network's device.
        seen: what the network saw of it.
        predictions: raw, for `seen`.
    """

    task: PaintingTask
    rgb: UInt8[Tensor, "1 3 h w"]
    seen: UInt8[Tensor, "1 3 h2 w2"]
    predictions: Float[Tensor, "1 k h3 w3"]

    @torch.inference_mode()
    def painted(self, decoding: Decoding | None = None) -> UInt8[Tensor, "3 h w"]:
        """The picture, its own luma joined with the painted chroma, upsampled.

        Args:
            decoding: the way of painting; None for the way that the task was made with.
        """
        small = _painted(self.task, self.predictions, self.seen, decoding)
        large = F.interpolate(small, size=self.rgb.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)
        return to_uint8(with_luma(large, luma(self.rgb, self.task.grey), self.task.grey))[0].cpu()

    @torch.inference_mode()
    def confidence(self) -> Float[Tensor, "h w"]:
        """How sure the network is of each pixel, as :meth:`Painter.confidence`; for tasks with a distribution over colours."""
        return _confidence(self.predictions, self.rgb)[0, 0].cpu()


def _takes_decoding(task: PaintingTask) -> bool:
    return "decoding" in inspect.signature(task.paint).parameters


def _confidence(predictions: Float[Tensor, "b k h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    return F.interpolate(confidence(predictions), size=rgb.shape[-2:], mode="bilinear", align_corners=False)


def _painted(
    task: PaintingTask,
    predictions: Float[Tensor, "b k h2 w2"],
    rgb: UInt8[Tensor, "b 3 h w"],
    decoding: Decoding | None,
) -> Float[Tensor, "b 3 h w"]:
    """A task's painting (0…1), in the way wanted."""
    if decoding is None:
        return task.paint(predictions, rgb)
    if _takes_decoding(task):
        return task.paint(predictions, rgb, decoding)  # type: ignore[call-arg]
    return saturated(task.paint(predictions, rgb), decoding.saturation, task.grey)
