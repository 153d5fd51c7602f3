"""The step loop: schedule, accumulation, clipping, early stopping; exact resume and the finite check have files of their own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from pretint.runtime.errors import RunFolderError
from pretint.runtime.loop import Training, cosine_factor

from .conftest import RowBatches, make_training, run, weights


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
