"""What is an encoder asked to paint? Each task splits a picture into input and target, scores a prediction, and paints from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..backbones import Preprocess
from ..colour import Palette, lab_to_rgb, luma, rgb_to_lab, to_float, to_uint8, with_luma
from ..data import Batch
from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.loop import Loss

DECODES = ("mode", "mean", "annealed")
PREDICT_AT = (1, 2, 4)
_LAB_SCALE = 128.0


@runtime_checkable
class Task(Protocol):
    """What the loop and the verbs know of a task.

    Attributes:
        name: as on the command line.
        views: augmented views of each image that it wants.
        in_chans, out_chans: channels of the network's input and output.
        predict_at: input side over prediction side: 1, 2 or 4.
        grey: the grey formula of its input.
        palette: the palette whose classes it predicts, or None.
    """

    name: str
    views: int
    in_chans: int
    out_chans: int
    predict_at: int
    grey: str
    palette: Palette | None

    def split(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pictures -> (inputs (b, in_chans, h, w), targets)."""
        ...

    def loss(self, predictions: Tensor, targets: Tensor) -> Loss:
        """Predictions (b, out_chans, h', w') and targets -> numerator and denominator."""
        ...

    def paint(self, predictions: Tensor, rgb: Tensor) -> Tensor:
        """Predictions, and the pictures they were made for (only their grey is used) -> float RGB (b, 3, h, w) in 0…1."""
        ...


def shrink(rgb: UInt8[Tensor, "b 3 h w"], factor: int) -> UInt8[Tensor, "b 3 h2 w2"]:
    """Average-pools pictures by `factor`, rounded back to uint8; a side that does not divide is rounded up, its border averaged."""
    return (
        rgb if factor == 1 else to_uint8(F.avg_pool2d(to_float(rgb), factor, ceil_mode=True, count_include_pad=False))
    )


def enlarge(painted: Float[Tensor, "b 3 h2 w2"], rgb: Tensor, grey: str) -> Float[Tensor, "b 3 h w"]:
    """A small painting joined with the full-size luma of `rgb`: its chroma is upsampled bilinearly."""
    large = F.interpolate(painted, size=rgb.shape[-2:], mode="bilinear", align_corners=False)
    return with_luma(large, luma(rgb, grey), grey)


def _check_predict_at(predict_at: int) -> None:
    if predict_at not in PREDICT_AT:
        raise ArgumentError(f"predict_at: {predict_at} must be 1 (full resolution), 2 (half) or 4 (a quarter).")


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
    out_chans: ClassVar[int] = 3
    views: ClassVar[int] = 1
    palette: ClassVar[None] = None

    def __init__(self, preprocess: Preprocess, loss: str = "mse", keep_luma: bool = False, predict_at: int = 1):
        if loss not in LOSSES:
            raise UnknownNameError("loss", loss, LOSSES)
        _check_predict_at(predict_at)
        self.preprocess, self.kind, self.keep_luma, self.predict_at = preprocess, loss, keep_luma, predict_at
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 3 h2 w2"]]:
        return self.preprocess(batch.rgb), to_float(shrink(batch.rgb, self.predict_at))

    def loss(self, predictions: Float[Tensor, "b 3 h w"], targets: Float[Tensor, "b 3 h w"]) -> Loss:
        return _regression_loss(self.kind, predictions, targets)

    def paint(self, predictions: Float[Tensor, "b 3 h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        painted = predictions.float().clamp(0, 1)
        if self.keep_luma or self.predict_at > 1:
            return enlarge(painted, rgb, self.grey)
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
    out_chans: ClassVar[int] = 2
    views: ClassVar[int] = 1
    palette: ClassVar[None] = None

    def __init__(self, preprocess: Preprocess, loss: str = "mse", bounded: bool = True, predict_at: int = 1):
        if loss not in LOSSES:
            raise UnknownNameError("loss", loss, LOSSES)
        _check_predict_at(predict_at)
        self.preprocess, self.kind, self.bounded, self.predict_at = preprocess, loss, bounded, predict_at
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 2 h2 w2"]]:
        return self.preprocess(batch.rgb), rgb_to_lab(shrink(batch.rgb, self.predict_at))[:, 1:] / _LAB_SCALE

    def _bound(self, predictions: Tensor) -> Tensor:
        return predictions.float().tanh() if self.bounded else predictions.float()

    def loss(self, predictions: Float[Tensor, "b 2 h w"], targets: Float[Tensor, "b 2 h w"]) -> Loss:
        return _regression_loss(self.kind, self._bound(predictions), targets)

    def paint(self, predictions: Float[Tensor, "b 2 h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        grey = luma(shrink(rgb, self.predict_at), self.grey)
        lightness = grey * 100 if self.grey == "lstar" else rgb_to_lab(grey.expand(-1, 3, -1, -1))[:, :1]
        painted = lab_to_rgb(torch.cat([lightness, self._bound(predictions) * _LAB_SCALE], dim=1))
        return enlarge(painted, rgb, self.grey)


class PaletteTask:
    """Predict which palette colour each pixel has: a classification with mean cross-entropy over pixels.

    Args:
        preprocess: how pictures become input.
        palette: the colours.
        decode: how a distribution is painted: `mode` (most probable colour), `mean` (expectation), or `annealed` (expectation
            under softmax(logits / temperature); Zhang et al. 2016, eq. 5).
        temperature: of `annealed`, in (0, 1]; towards 0 it is the mode, 1 is the mean.
        predict_at: 1, 2 or 4: full, half or quarter resolution.
    """

    name: ClassVar[str] = "palette"
    views: ClassVar[int] = 1

    def __init__(
        self,
        preprocess: Preprocess,
        palette: Palette,
        decode: str = "annealed",
        temperature: float = 0.38,
        predict_at: int = 1,
    ):
        if decode not in DECODES:
            raise UnknownNameError("decode", decode, DECODES)
        if not 0 < temperature <= 1:
            raise ArgumentError(f"temperature: {temperature} must be above 0 and at most 1; 0.38 is a good start.")
        _check_predict_at(predict_at)
        self.preprocess, self.palette, self.decode, self.temperature = preprocess, palette, decode, temperature
        self.predict_at, self.out_chans = predict_at, palette.size
        self.in_chans, self.grey = preprocess.in_chans, preprocess.grey

    def split(self, batch: Batch) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b h2 w2"]]:
        return self.preprocess(batch.rgb), self.palette.labels(shrink(batch.rgb, self.predict_at))

    def loss(self, predictions: Float[Tensor, "b k h w"], targets: Int64[Tensor, "b h w"]) -> Loss:
        # reduction="none" and our own sum: the fused mean over pixels has no deterministic kernel on CUDA
        each = F.cross_entropy(predictions.float(), targets, reduction="none")
        return Loss.mean_of(each)

    def expected_colour(self, logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
        """The decoded colour in the palette's own space."""
        centres = self.palette.centres.to(logits.device)
        if self.decode == "mode":
            return centres[logits.argmax(1)].permute(0, 3, 1, 2)
        temperature = self.temperature if self.decode == "annealed" else 1.0
        weights = (logits.float() / temperature).softmax(1)
        return einsum(weights, centres, "b k h w, k c -> b c h w")

    def paint(self, predictions: Float[Tensor, "b k h2 w2"], rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        grey = luma(shrink(rgb, self.predict_at), self.grey)
        painted = self.palette.decode(self.expected_colour(predictions), grey)
        # colours of an rgb or lab palette bring their own lightness; chroma palettes take the picture's
        if self.predict_at == 1 and self.palette.space in ("rgb", "lab"):
            return painted
        return enlarge(painted, rgb, self.grey)


TASKS: dict[str, type] = {"rgb-regression": RGBRegression, "lab-regression": LabRegression, "palette": PaletteTask}
_DESCRIPTIONS = {
    "rgb-regression": "predict red, green and blue by regression (mse, l1, huber)",
    "lab-regression": "predict the chroma a*, b* by regression, tanh-bounded or free",
    "palette": "classify each pixel into K palette colours (rgb, lab, ab or cbcr)",
}


def register_task(name: str, factory: type | Callable[..., Task], description: str = "") -> None:
    """Makes a task of one's own known by name.

    Args:
        name: as on the command line.
        factory: called as `factory(preprocess, **options)`; what it returns follows :class:`Task`. If it takes an argument named
            `palette`, one is fitted to the training images first.
        description: one line for `pretint tasks`.

    Raises:
        ArgumentError: the name is taken.
    """
    if name in TASKS:
        raise ArgumentError(f"task: the name {name!r} is taken; choose another.")
    TASKS[name] = factory  # type: ignore[assignment]
    _DESCRIPTIONS[name] = description


def list_tasks() -> dict[str, str]:
    """Task names and what each asks of an encoder."""
    return dict(_DESCRIPTIONS)


def check_task_name(name: str) -> None:
    """Raises UnknownNameError unless a task of that name is known."""
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)


def create_task(name: str, preprocess: Preprocess, **options: Any) -> Task:
    """A task by name.

    Raises:
        UnknownNameError: no such task.
        ArgumentError: an option does not fit the task.
    """
    check_task_name(name)
    try:
        return TASKS[name](preprocess, **options)
    except TypeError as error:
        raise ArgumentError(f"task: {name} does not take these options ({error}).") from error
