"""The step loop: schedule, accumulation, resume, early stopping, finite check."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.device import Compute
from pretint.runtime.errors import NotFiniteError, RunFolderError
from pretint.runtime.loop import LoopSettings, Loss, Training, cosine_factor
from pretint.runtime.randomness import hash_permutation
from pretint.runtime.runlog import RunLog
from pretint.runtime.stopping import Interrupted

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
    folder: Path | None = None, batches: RowBatches | None = None, **settings
):
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

    checkpoints = None if folder is None else Checkpoints(folder)
    return Training(model, optimizer, batches, loss_of, validate, CPU, LoopSettings(**settings), checkpoints)


def run(training: Training, **options):
    with RunLog(None, "test", training.total_steps, quiet=True) as log:
        return training.run(log, **options)


def weights(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.model.parameters()])


def test_training_lowers_the_loss():
    training = make_training(epochs=30)
    before = training.validate()["validation_loss"]
    state = run(training)
    assert state.best < 0.2 * before
    assert state.step == 30 * 6


def test_resume_without_a_checkpoint_is_an_error(tmp_path: Path):
    with pytest.raises(RunFolderError, match="no checkpoint"):
        make_training(tmp_path, epochs=1).resume()


def test_accumulated_batches_make_the_same_step_as_one_large_batch():
    def no_dropout(training: Training) -> Training:
        training.model[1].p = 0.0
        return training

    small = no_dropout(make_training(batches=RowBatches(batch_size=4), accumulate=3, epochs=2))
    large = no_dropout(make_training(batches=RowBatches(batch_size=12), epochs=2))
    assert small.steps_per_epoch == large.steps_per_epoch == 2
    run(small)
    run(large)
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-5, atol=1e-6)


def test_patience_stops_when_the_validation_loss_no_longer_falls():
    training = make_training(epochs=50, patience=2)
    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    training.validate = lambda: {"validation_loss": next(losses)}
    state = run(training)
    assert (state.best, state.best_epoch, state.finished) == (2.0, 2, True)
    assert state.step == 4 * 6


def test_gradients_are_clipped_to_the_largest_norm():
    training = make_training(epochs=1, clip=1e-3)
    norms = []
    step = training.optimizer.step
    training.optimizer.step = lambda: (
        norms.append(torch.cat([p.grad.flatten() for p in training.model.parameters()]).norm()),
        step(),
    )
    run(training)
    assert all(float(norm) == pytest.approx(1e-3, rel=1e-3) for norm in norms)


def test_cosine_factor_rises_linearly_and_ends_near_zero():
    factors = [cosine_factor(step, total=100, warmup=10) for step in range(100)]
    assert factors[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5, abs=1e-9)
    assert factors[99] < 1e-3
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
