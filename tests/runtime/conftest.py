"""A small regression problem that the tests of loop, checkpoints and stopping share."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.device import Compute
from pretint.runtime.loop import LoopSettings, Loss, Training
from pretint.runtime.randomness import hash_permutation
from pretint.runtime.runlog import RunLog

CPU = Compute(torch.device("cpu"), bf16=False, channels_last=False)


@dataclass
class Rows:
    rgb: torch.Tensor
    target: torch.Tensor
    ids: torch.Tensor


class RowBatches:
    """Rows of a fixed regression problem, shuffled by (seed, epoch)."""

    def __init__(self, n: int = 24, batch_size: int = 4):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(n, 5, generator=generator)
        self.y = self.x @ torch.arange(5.0)[:, None] + 1
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.x) // self.batch_size

    def epoch(self, epoch: int, start_step: int = 0):
        for ids in hash_permutation(0, epoch, len(self.x)).split(self.batch_size)[start_step:]:
            yield Rows(self.x[ids], self.y[ids], ids)


def make_training(
    folder: Path | None = None, batches: RowBatches | None = None, keep: int = 2, **settings: Any
) -> Training:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    batches = batches or RowBatches()

    def loss_of(batch: Rows) -> Loss:
        error = (model(batch.rgb) - batch.target).square()
        return Loss(error.sum(), torch.tensor(float(error.numel())))

    def validate() -> dict[str, float]:
        with torch.no_grad():
            return {"validation_loss": float((model(batches.x) - batches.y).square().mean())}

    checkpoints = None if folder is None else Checkpoints(folder, keep=keep)
    return Training(model, optimizer, batches, loss_of, validate, CPU, LoopSettings(**settings), checkpoints)


def run(training: Training, rows: list[dict[str, float | int]] | None = None, **options: Any):
    """Trains; `rows` gets what is logged of each epoch, but for times."""
    with RunLog(None, "test", training.total_steps, quiet=True) as log:
        try:
            return training.run(log, **options)
        finally:
            if rows is not None:
                kept = ("epoch", "train_loss", "validation_loss", "learning_rate", "skipped_steps")
                rows += [{name: row[name] for name in kept if name in row} for row in log._rows]


def stop_after(training: Training, step: int, number: int = signal.SIGTERM) -> Training:
    """The process gets a signal while the training's step of that number (from 1 in the whole run) is under way."""
    loss_of = training.loss_of

    def loss_or_signal(batch: Any) -> Loss:
        if training.state.step == step - 1:
            os.kill(os.getpid(), number)
        return loss_of(batch)

    training.loss_of = loss_or_signal
    return training


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.model.parameters()])
