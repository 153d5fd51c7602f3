"""Several tasks at once, added by weight: what do palette and contrast teach together?"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data import Batch
from ..runtime.errors import ArgumentError
from ..runtime.loop import Loss
from ..runtime.processes import sum_over_processes, world_size
from .contract import PaintingTask, Task, colour_prediction, colourizes, network_input
from .heads import Half, HalfHead, Heads
from .model import HeadSettings, make_head

_ALONE = ("rotation", "superres", "random")


def check_combination(names: Sequence[str], pairs: Collection[str], palettes: Collection[str]) -> None:
    """Raises ArgumentError unless tasks of these names go together.

    Args:
        names: of the tasks.
        pairs: those of them that want one encoder for luma and one for chroma.
        palettes: those of them that are made with a palette.
    """
    if len(set(names)) < len(names):
        raise ArgumentError(f"--task: {'+'.join(names)} names a task twice; combine different ones.")
    alone = sorted(set(names) & set(_ALONE))
    if len(names) > 1 and alone:
        raise ArgumentError(f"--task: {alone[0]} needs the pictures for itself; use it alone.")
    if len(pairs) > 1:
        raise ArgumentError(
            f"--task: {' and '.join(pairs)} each make both encoders' input in their own way, and a run has one; take one of them."
        )
    if len(palettes) > 1:
        raise ArgumentError(
            f"--task: {' and '.join(palettes)} each need a palette of their own, and a run has one; take one of them."
        )


def check_weights(names: Sequence[str], weights: Sequence[float] | None) -> tuple[float, ...]:
    """The weights of the losses of tasks of these names; all alike where none are given.

    Raises:
        ArgumentError: they are not one a task, each a finite number above 0, or there is one task only.
    """
    if not weights:
        return (1.0,) * len(names)
    if len(names) == 1:
        raise ArgumentError("--task-weights: there is one task only; leave them out.")
    if len(weights) != len(names) or not all(0 < weight < math.inf for weight in weights):
        raise ArgumentError(f"--task-weights: {tuple(weights)} must be {len(names)} numbers above 0, one a task.")
    return tuple(weights)


class CombinedTask:
    """A weighted sum of tasks on one encoder.

    With a task of two encoders among them, grey tasks work on the luma half. The first task that gives colours to grey pictures is
    the one that paints; where none does, the first that paints anything.

    Args:
        tasks: made for the same grey, those of pairs and those of grey input.
        weights: of their losses, above 0.

    Raises:
        ArgumentError: tasks that do not go together, or weights that do not fit.
    """

    def __init__(self, tasks: Sequence[Task], weights: Sequence[float] | None = None):
        names = [task.name for task in tasks]
        self.name = "+".join(names)
        pairs = [task for task in tasks if getattr(task, "pair", False)]
        check_combination(names, [t.name for t in pairs], [t.name for t in tasks if t.palette is not None])
        self.tasks, self.weights = tuple(tasks), check_weights(names, weights)
        self.pair = bool(pairs)
        self.views = max(task.views for task in tasks)
        lead = pairs[0] if pairs else tasks[0]
        self.in_chans, self.grey = lead.in_chans, lead.grey
        self.sees = getattr(lead, "sees", None)
        self._lead = self.tasks.index(lead)
        painting = [(i, task) for i, task in enumerate(tasks) if isinstance(task, PaintingTask)]
        painting.sort(key=lambda one: not colourizes(one[1]))  # stable: else in the order of the names
        self._painting, shown = painting[0] if painting else (self._lead, lead)
        self.palette, self.predict_at, self.out_chans = shown.palette, shown.predict_at, shown.out_chans
        if isinstance(shown, PaintingTask):
            self.paint, self.colourizes = shown.paint, colourizes(shown)

    def make_head(self, encoder: nn.Module, settings: HeadSettings) -> nn.Module:
        heads = []
        for task in self.tasks:
            if self.pair and not getattr(task, "pair", False):
                half = Half(encoder, "luma")
                heads.append(HalfHead(half, make_head(task, half, settings)))
            else:
                heads.append(make_head(task, encoder, settings))
        return Heads(*heads)

    def inputs(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """The network's input alone."""
        return network_input(self.tasks[self._lead], rgb)

    def split(self, batch: Batch) -> tuple[Tensor, tuple[Any, ...]]:
        parts = [task.split(batch) for task in self.tasks]
        return parts[self._lead][0], tuple(targets for _, targets in parts)

    def loss(self, predictions: tuple[Any, ...], targets: tuple[Any, ...]) -> Loss:
        """Σ wᵢ·numeratorᵢ / denominatorᵢ, as a mean over the batch's pictures; of several processes each gives its part of it."""
        losses = [task.loss(p, t) for task, p, t in zip(self.tasks, predictions, targets, strict=True)]
        counts = [sum_over_processes(one.denominator.detach()) for one in losses]
        total = sum(
            w * one.numerator / count.clamp_min(1) for w, one, count in zip(self.weights, losses, counts, strict=True)
        )
        assert isinstance(total, Tensor)
        return Loss(total, total.new_full((), 1 / world_size()))

    def colour_prediction(self, predictions: tuple[Any, ...]) -> Any:
        """The part of a prediction that paints."""
        return colour_prediction(self.tasks[self._painting], predictions[self._painting])
