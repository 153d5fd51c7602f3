"""What do the loop and the verbs know of a task?"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..colour import Palette
from ..data import Batch
from ..runtime.loop import Loss


@runtime_checkable
class Task(Protocol):
    """A pretext.

    A task may have more than this: `paint` (see :class:`PaintingTask`); `inputs` (see :class:`InputTask`), so that painting need
    not make targets; `sees = "grey"` or `"RGB"`, if it makes sense with that input alone; `pair = True`, if it wants one encoder
    for luma and one for chroma; `make_head(encoder, settings)`, if its head is not a decoder of `out_chans` channels;
    `colourizes = False`, if what it paints are not colours for grey pictures; `trains = False`, if there is nothing to train.

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

    def split(self, batch: Batch) -> tuple[Tensor, Any]:
        """Pictures -> (inputs (b, in_chans, h, w), targets)."""
        ...

    def loss(self, predictions: Any, targets: Any) -> Loss:
        """Predictions (b, out_chans, h', w') and targets -> numerator and denominator."""
        ...


@runtime_checkable
class PaintingTask(Task, Protocol):
    """A task whose predictions can be painted."""

    def paint(self, predictions: Tensor, rgb: Tensor) -> Tensor:
        """Predictions, and the pictures they were made for -> float RGB (b, 3, h, w) in 0…1.

        Of the pictures no more is used than the network was shown: of grey tasks their grey, of others nothing but their size.
        """
        ...


@runtime_checkable
class SelectingTask(Task, Protocol):
    """A task whose head gives several predictions, of which one is painted."""

    def colour_prediction(self, predictions: Any) -> Tensor:
        """The part of the predictions that `paint` takes."""
        ...


@runtime_checkable
class InputTask(Task, Protocol):
    """A task that can make the network's input without the targets."""

    def inputs(self, rgb: Tensor) -> Tensor:
        """Pictures -> what the network is given, as `split` gives it first."""
        ...


def network_input(task: Task, rgb: Tensor) -> Tensor:
    """What the network is given for pictures; targets are made only by a task that has no `inputs` of its own."""
    if isinstance(task, InputTask):
        return task.inputs(rgb)
    return task.split(Batch(rgb, torch.arange(len(rgb), device=rgb.device)))[0]


def colourizes(task: Task) -> bool:
    """Whether what a task paints are colours for grey pictures."""
    return isinstance(task, PaintingTask) and getattr(task, "colourizes", True)


def colour_prediction(task: Task, predictions: Any) -> Any:
    """The part of a task's predictions that is painted: all of them, unless the task selects."""
    return task.colour_prediction(predictions) if isinstance(task, SelectingTask) else predictions
