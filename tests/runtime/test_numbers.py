"""Numbers that are not finite are found before the optimiser's step, and what is not made leaves no trace."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.errors import NotFiniteError
from pretint.runtime.loop import Loss, Training
from pretint.runtime.numbers import MOST_IN_A_ROW, NumberGuard, StepNumbers
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.runlog import RunLog
from pretint.runtime.stopping import Interrupted
from pretint.runtime.tensors import optimizer_tensors

from .conftest import make_training, run, stop_after


def spoil(training: Training, steps: set[int], how: str = "loss") -> Training:
    """Steps (from 0) whose loss is NaN, or whose loss is finite and its gradient is not."""
    training.model.append(nn.BatchNorm1d(1))
    training.optimizer.add_param_group({"params": list(training.model[-1].parameters()), "lr": 0.05})
    training._peaks.append(0.05)
    restores = training.settings.on_nonfinite == "skip"
    training._guard = NumberGuard(training.model, training.optimizer, restores=restores, deferred=False)
    loss_of = training.loss_of

    def spoilt(batch: Any) -> Loss:
        if training.state.step not in steps:
            return loss_of(batch)
        if how == "loss":
            batch.rgb = batch.rgb * math.nan
            return loss_of(batch)
        loss = loss_of(batch)
        # the root of zero: its value is 0, its slope infinite
        return Loss(loss.numerator + (0 * training.model[0].weight).square().sum().sqrt(), loss.denominator)

    training.loss_of = spoilt
    return training


def state_of(training: Training) -> dict[str, Tensor]:
    tensors = {**training.model.state_dict(), **optimizer_tensors(training.optimizer)}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_nan_in_a_loss_or_gradient_stops_before_the_optimiser_step_and_reaches_no_checkpoint(tmp_path: Path, how: str):
    """The weights are those of the step before; the log has step, epoch, values and the images; the checkpoints are finite."""
    folder = RunFolder.create(tmp_path / "run", {"settings": {}})
    training = spoil(make_training(folder.checkpoints, epochs=3, save_every=2), {9}, how)
    before: dict[str, Tensor] = {}
    step = training._step

    def remember(group: list[Any]) -> None:
        before.update({name: p.detach().clone() for name, p in training.model.named_parameters()})
        step(group)

    training._step = remember
    training.image_numbers = lambda ids: ids + 1000
    with (
        RunLog(folder, "test", 0, quiet=True) as log,
        pytest.raises(NotFiniteError, match=r"step 10 \(epoch 2\).*skip"),
    ):
        training.run(log)
    assert all(torch.equal(before[name], p) for name, p in training.model.named_parameters())
    (record,) = json.loads(folder.nonfinite.read_text())["steps"]
    expected = next(training.batches.epoch(1, 3)).ids + 1000
    assert (record["step"], record["epoch"], record["images"]) == (10, 2, expected.tolist())
    assert record["gradient_norm"] in ("nan", "inf")
    assert (record["loss"] == "nan") == (how == "loss")
    assert Checkpoints(folder.checkpoints).steps == [6, 8]
    resumed = spoil(make_training(folder.checkpoints, epochs=3), set())
    resumed.resume()
    assert all(tensor.isfinite().all() for tensor in state_of(resumed).values())


def test_steps_that_are_not_finite_are_skipped_and_counted_and_leave_no_trace_in_weights_statistics_or_loss():
    """The same as if these steps had not been asked for: known by leaving them out by hand."""
    training, rows = spoil(make_training(epochs=2, on_nonfinite="skip"), {2, 3, 7}), []
    run(training, rows)
    assert (training.state.skipped, training.state.skipped_in_a_row) == (3, 0)
    assert [row["skipped_steps"] for row in rows] == [2, 3]
    assert all(math.isfinite(row["train_loss"]) for row in rows)
    by_hand = spoil(make_training(epochs=2), set())
    step = by_hand._step
    by_hand._step = lambda group: None if by_hand.state.step in (2, 3, 7) else step(group)
    by_hand_rows: list[dict[str, Any]] = []
    run(by_hand, by_hand_rows)
    assert same(state_of(training), state_of(by_hand))
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in by_hand_rows]


def test_ten_skipped_steps_in_a_row_stop_the_run_and_nine_do_not():
    nine = spoil(make_training(epochs=5, on_nonfinite="skip"), set(range(3, 12)) | set(range(13, 22)))
    run(nine)
    assert nine.state.skipped == 2 * (MOST_IN_A_ROW - 1)
    with pytest.raises(NotFiniteError, match=r"step 13 .*and so were the 9 before it"):
        run(spoil(make_training(epochs=5, on_nonfinite="skip"), set(range(3, 20))))


@pytest.mark.parametrize("stop_at", [3, 4, 5, 6])
def test_a_resumed_run_that_skipped_steps_equals_one_in_one_go_to_the_bit(tmp_path: Path, stop_at: int):
    bad, settings = {2, 3, 4, 8}, {"epochs": 2, "on_nonfinite": "skip"}
    whole, rows = spoil(make_training(**settings), bad), []
    run(whole, rows)
    stopped, parts = stop_after(spoil(make_training(tmp_path, **settings), bad), stop_at), []
    with pytest.raises(Interrupted):
        run(stopped)
    assert stopped.state.skipped_in_a_row == {3: 1, 4: 2, 5: 3, 6: 0}[stop_at]
    resumed = spoil(make_training(tmp_path, **settings), bad)
    resumed.resume()
    run(resumed, parts)
    assert same(state_of(resumed), state_of(whole))
    assert parts == rows
    assert (resumed.state.skipped, resumed.state.best) == (whole.state.skipped, whole.state.best)


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, fused=True),
}


@pytest.mark.parametrize("bad", [{0}, {0, 1}, {2}, {1, 3}])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_findings_that_are_read_later_change_nothing_about_the_steps(name: str, bad: set[int]):
    """What runs on CUDA, where nothing waits for the device: the optimiser's own kernel leaves a step out."""

    def trained(deferred: bool) -> tuple[dict[str, Tensor], list[tuple[int, bool]]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
        optimizer = OPTIMIZERS[name](list(model.parameters()))
        guard = NumberGuard(model, optimizer, restores=True, deferred=deferred)
        for step in range(5):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            guard.remember()
            loss = model(x * math.inf if step in bad else x).square().sum()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            sums = torch.stack([loss.detach(), torch.tensor(8.0)])
            numbers = StepNumbers(step, 1, torch.arange(8), sums, norm)
            guard.step(numbers, torch.isfinite(norm) & torch.isfinite(sums).all())
        tensors = {**model.state_dict(), **optimizer_tensors(optimizer)}
        return tensors, [(numbers.step, made) for numbers, made in guard.read()]

    (later, findings), (at_once, known) = trained(True), trained(False)
    assert findings == known == [(step, step not in bad) for step in range(5)]
    moved = {k: v for k, v in later.items() if k in at_once}
    assert same(moved, at_once)
    assert all((later[k] == 0).all() for k in later.keys() - at_once.keys())


def test_a_validation_loss_that_is_not_finite_stops_the_run_before_its_epoch_is_saved(tmp_path: Path):
    training = make_training(tmp_path, epochs=3)
    losses = iter([1.0, math.nan])
    training.validate = lambda: {"validation_loss": next(losses)}
    with pytest.raises(NotFiniteError, match="validation loss of epoch 2 is nan"):
        run(training)
    assert Checkpoints(tmp_path).steps == [6]


def test_weights_that_a_finite_gradient_made_infinite_are_not_saved(tmp_path: Path):
    training = make_training(tmp_path, epochs=2, save_every=1)
    training._peaks = [1e39 for _ in training._peaks]  # one step of this size leaves float32
    with pytest.raises(NotFiniteError, match="not finite"):
        run(training)
    assert Checkpoints(tmp_path).steps == []
