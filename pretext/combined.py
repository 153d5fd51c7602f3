"""Several tasks at once, added by weight: what do palette and contrast teach together?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..data import Batch
from ..runtime.errors import ArgumentError
from ..runtime.loop import Loss
from .contract import PaintingTask, Task, colour_prediction, network_input
from .heads import Half, HalfHead, Heads
from .model import HeadSettings, make_head

_ALONE = ("rotation", "superres", "random")


def check_combination(names: Sequence[str]) -> None:
    """Raises ArgumentError unless tasks of these names go together."""
    if len(names) > 1 and len(set(names)) < len(names):
        raise ArgumentError(f"--task: {'+'.join(names)} names a task twice; combine different ones.")
    if {"bins", "palette"} <= set(names):
        raise ArgumentError(
            "--task: bins and palette each need a palette of their own, and a run has one; take one of them."
        )
    alone = sorted(set(names) & set(_ALONE))
    if len(names) > 1 and alone:
        raise ArgumentError(f"--task: {alone[0]} needs the pictures for itself; use it alone.")


class CombinedTask:
    """A weighted sum of tasks on one encoder.

    With a task of two encoders among them, grey tasks work on the luma half. The first task that paints is the one that paints.

    Args:
        tasks: made for the same grey, those of pairs and those of grey input.
        weights: of their losses, above 0.

    Raises:
        ArgumentError: tasks that do not go together, or weights that do not fit.
    """

    def __init__(self, tasks: Sequence[Task], weights: Sequence[float] | None = None):
        names = [task.name for task in tasks]
        self.name = "+".join(names)
        weights = tuple(weights) if weights else (1.0,) * len(tasks)
        check_combination(names)
        if len(weights) != len(tasks) or not all(0 < w < float("inf") for w in weights):
            raise ArgumentError(f"--task-weights: {weights} must be {len(tasks)} numbers above 0, one a task.")
        self.tasks, self.weights = tuple(tasks), weights
        self.pair = any(getattr(task, "pair", False) for task in tasks)
        self.views = max(task.views for task in tasks)
        lead = next((t for t in tasks if getattr(t, "pair", False)), tasks[0])
        self.in_chans, self.grey = lead.in_chans, lead.grey
        self._lead = self.tasks.index(lead)
        painting = [(i, task) for i, task in enumerate(tasks) if isinstance(task, PaintingTask)]
        self._painting, shown = painting[0] if painting else (self._lead, lead)
        self.palette, self.predict_at, self.out_chans = shown.palette, shown.predict_at, shown.out_chans
        if isinstance(shown, PaintingTask):
            self.paint = shown.paint

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
        """Σ wᵢ·numeratorᵢ / denominatorᵢ, as a mean over the batch's pictures."""
        losses = [task.loss(p, t) for task, p, t in zip(self.tasks, predictions, targets, strict=True)]
        total = sum(
            w * one.numerator / one.denominator.clamp_min(1) for w, one in zip(self.weights, losses, strict=True)
        )
        assert isinstance(total, Tensor)
        return Loss(total, total.new_ones(()))

    def colour_prediction(self, predictions: tuple[Any, ...]) -> Any:
        """The part of a prediction that paints."""
        return colour_prediction(self.tasks[self._painting], predictions[self._painting])
