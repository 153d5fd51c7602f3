"""What is a training loop told, and what must it know to go on where it was?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .errors import RunFolderError


@dataclass(frozen=True)
class LoopSettings:
    """How long and how carefully to train.

    Attributes:
        epochs: passes over the training images.
        warmup_epochs: epochs over which the learning rate rises linearly.
        accumulate: batches whose gradients are added up before one optimiser step.
        clip: largest gradient norm, or None for no clipping.
        patience: stop after that many epochs without a better validation loss, or None to train all epochs.
        seed: the run's seed.
        schedule: after the warm-up the learning rate falls along a cosine to zero, or stays constant.
        save_every: optimiser steps between two checkpoints, besides those at the end of each epoch; None for no such number.
        save_minutes: minutes between two checkpoints; None for no such time.
        on_nonfinite: what to do when a loss or a gradient is NaN or infinite: "stop", or "skip" that step, but not more than ten in
            a row.
    """

    epochs: int
    warmup_epochs: float = 0.5
    accumulate: int = 1
    clip: float | None = 1.0
    patience: int | None = None
    seed: int = 0
    schedule: str = "cosine"
    save_every: int | None = None
    save_minutes: float | None = None
    on_nonfinite: str = "stop"


@dataclass
class LoopState:
    """Where a run is; saved with every checkpoint.

    Attributes:
        step: optimiser steps, those that were skipped too.
        epochs_ended: epochs that were validated and recorded; one less than `step` says if the run was stopped in between.
        best, best_epoch, best_step: the lowest validation loss, and when it was reached.
        finished: no epoch is to follow, however many are left.
        sums: numerator and denominator of the training loss of the epoch that has begun.
        images, seconds: seen and spent in that epoch.
        skipped, skipped_in_a_row: steps that were not finite and not made.
    """

    step: int = 0
    epochs_ended: int = 0
    best: float = math.inf
    best_epoch: int = 0
    best_step: int | None = None
    finished: bool = False
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    images: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0

    @classmethod
    def from_dict(cls, saved: dict[str, Any], steps_per_epoch: int) -> LoopState:
        """The state in a checkpoint; those of format 1 do not say how many epochs have ended.

        Raises:
            RunFolderError: it is none.
        """
        try:
            state = cls(**{"epochs_ended": int(saved["step"]) // steps_per_epoch, **saved})
            counts = (
                state.step,
                state.epochs_ended,
                state.best_epoch,
                state.images,
                state.skipped,
                state.skipped_in_a_row,
            )
            numbers = (*counts, state.best, state.seconds, *state.sums)
            if not all(isinstance(n, int) and n >= 0 for n in counts) or len(state.sums) != 2:
                raise TypeError("counts are not whole numbers")
            if not all(isinstance(n, (int, float)) and n == n for n in numbers):
                raise TypeError("numbers are no numbers")
            if not 0 <= state.step - state.epochs_ended * steps_per_epoch <= steps_per_epoch:
                raise ValueError(f"step {state.step} is not in epoch {state.epochs_ended + 1}")
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(f"The checkpoint's state can't be used ({error}); restore it or run again.") from None
        return state
