"""A run in minutes: as many epochs as fit, and otherwise the run that those epochs make."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pretint.data import Batch, Batches, make_toy
from pretint.recipes import pretrain
from pretint.recipes.budget import epochs_within, seconds_per_step
from pretint.recipes.opening import read_settings
from pretint.runtime.device import Compute
from pretint.runtime.errors import ArgumentError
from pretint.runtime.loop import Loss
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.tensors import read_tensors

from .conftest import small_config


class Clock:
    """Stands in for the time module: each step takes as long as it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def ten_steps_of_two_seconds(
    clock: Clock,
) -> tuple[nn.Module, torch.optim.Optimizer, Batches, Callable[[Batch], Loss], Compute]:
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.BatchNorm2d(1))

    def loss_of(batch: Batch) -> Loss:
        clock.now += 2.0
        return Loss.mean_of(model(batch.rgb.float()).square())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return (
        model,
        optimizer,
        Batches(make_toy("train", n=80), 8, seed=0),
        loss_of,
        Compute(torch.device("cpu"), bf16=False),
    )


@pytest.mark.parametrize(("most", "steps"), [(1.0, 4), (11.0, 6), (1e9, 10)])
def test_a_steps_duration_is_measured_for_as_long_as_wanted_but_no_longer_than_an_epoch(monkeypatch, most, steps):
    clock = Clock()
    monkeypatch.setattr("pretint.recipes.budget.time", clock)
    assert seconds_per_step(*ten_steps_of_two_seconds(clock), most) == 2.0
    assert clock.now == 2.0 * steps


@pytest.mark.parametrize(("minutes", "epochs"), [(1.0, 3), (0.99, 2), (10.0, 30), (0.01, 1), (1000.0, 1000)])
def test_epochs_are_the_time_over_the_steps_duration(monkeypatch, minutes, epochs):
    clock = Clock()
    monkeypatch.setattr("pretint.recipes.budget.time", clock)
    model, *others = ten_steps_of_two_seconds(clock)  # an epoch: 20 seconds
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert epochs_within(minutes, model, *others) == epochs
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_run_in_minutes_is_the_run_of_as_many_epochs_and_goes_on_with_them(
    small_data: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setattr("pretint.recipes.pretraining.epochs_within", lambda *_: 2)
    config = small_config(small_data, tmp_path / "minutes", epochs=14, minutes=1.0)
    pretrain(config)
    assert "2 epochs fit into 1 minutes; these count, not --epochs 14" in capsys.readouterr().err
    folder = RunFolder.open(config.folder)
    saved = read_settings(folder)
    assert (saved.epochs, saved.minutes) == (2, 1.0)
    command = shlex.split(folder.config["command"])
    assert "--epochs" not in command
    assert command[command.index("--minutes") + 1] == "1.0"
    monkeypatch.setattr("pretint.recipes.pretraining.epochs_within", lambda *_: 5)
    pretrain(replace(config, resume=True))
    assert len(folder.read_metrics()) == 2
    pretrain(replace(config, out=tmp_path / "epochs", epochs=2, minutes=None))
    runs = [read_tensors(tmp_path / name / "encoder" / "model.safetensors") for name in ("minutes", "epochs")]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_no_time_is_refused(small_data: Path, tmp_path: Path):
    with pytest.raises(ArgumentError, match="--minutes"):
        small_config(small_data, tmp_path / "run", minutes=0.0)
