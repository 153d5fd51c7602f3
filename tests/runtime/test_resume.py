"""A run that was stopped and goes on is, to the bit, the run that was not."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from pretint.runtime import loop as module
from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.files import is_temporary
from pretint.runtime.loop import Training
from pretint.runtime.stopping import Interrupted
from pretint.runtime.tensors import optimizer_tensors

from .conftest import RowBatches, make_training, run, stop_after

Stopped = dict[str, Any]
EPOCH = 6  # steps of RowBatches


class Killed(BaseException):
    """The process ends where this is raised."""


def outcome(training: Training, rows: list[dict[str, Any]]) -> Stopped:
    """All that must not depend on whether a run was stopped."""
    tensors = {**training.model.state_dict(), **optimizer_tensors(training.optimizer)}
    return {
        "tensors": {name: tensor.clone() for name, tensor in tensors.items()},
        "rates": [group["lr"] for group in training.optimizer.param_groups],
        "rows": rows,
        "state": {k: v for k, v in vars(training.state).items() if k not in ("seconds", "images")},
    }


def assert_equal(a: Stopped, b: Stopped) -> None:
    assert a["tensors"].keys() == b["tensors"].keys()
    assert all(torch.equal(a["tensors"][name], b["tensors"][name]) for name in a["tensors"])
    assert {k: v for k, v in a.items() if k != "tensors"} == {k: v for k, v in b.items() if k != "tensors"}


def whole_run(**settings: Any) -> Stopped:
    training, rows = make_training(**settings), []
    run(training, rows)
    return outcome(training, rows)


@pytest.mark.parametrize(
    "stop_at", [1, 4, EPOCH - 1, EPOCH, EPOCH + 1, 2 * EPOCH - 1, 2 * EPOCH, 3 * EPOCH], ids="step {}".format
)
def test_training_stopped_at_a_step_and_resumed_equals_training_in_one_go_to_the_bit(tmp_path: Path, stop_at: int):
    """First, middle and last step of an epoch, and its boundary; with shuffling and dropout."""
    stopped, rows = stop_after(make_training(tmp_path, epochs=3), stop_at), []
    with pytest.raises(Interrupted) as stop:
        run(stopped, rows)
    assert stop.value.signal_number == signal.SIGTERM
    assert stopped.state.step == stop_at
    resumed = make_training(tmp_path, epochs=3)
    ended = resumed.resume()
    assert ended == (stop_at - 1) // EPOCH
    rows = rows[:ended]
    run(resumed, rows)
    assert_equal(outcome(resumed, rows), whole_run(epochs=3))


def test_a_run_stopped_at_every_step_and_resumed_each_time_equals_training_in_one_go_to_the_bit(tmp_path: Path):
    training, rows = make_training(tmp_path, epochs=2, accumulate=2), []
    for step in range(1, 2 * EPOCH // 2 + 1):
        stop_after(training, step)
        with pytest.raises(Interrupted):
            run(training, rows)
        training = make_training(tmp_path, epochs=2, accumulate=2)
        training.resume()
    run(training, rows)
    assert_equal(outcome(training, rows), whole_run(epochs=2, accumulate=2))


@pytest.mark.parametrize("where", ["validation", "painting"])
def test_a_run_stopped_while_an_epoch_is_validated_or_painted_does_that_again_when_it_goes_on(
    tmp_path: Path, where: str
):
    training, rows, painted = make_training(tmp_path, epochs=2), [], []
    validate = training.validate

    def interrupted(*_: object) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("validation and painting may take long and are left at once")

    options: dict[str, Any] = {"on_epoch": interrupted} if where == "painting" else {}
    training.validate = interrupted if where == "validation" else validate
    with pytest.raises(Interrupted):
        run(training, rows, **options)
    assert rows == []
    assert training.state.step == EPOCH
    resumed = make_training(tmp_path, epochs=2)
    assert resumed.resume() == 0
    run(resumed, rows, on_epoch=painted.append)
    assert painted == [1, 2]
    assert_equal(outcome(resumed, rows), whole_run(epochs=2))


def test_stopping_at_every_epoch_boundary_gives_three_different_orders_each_with_every_image_once(tmp_path: Path):
    orders: list[list[int]] = []
    for epoch in (1, 2, 3):
        training, seen = make_training(tmp_path, epochs=3), []
        if epoch > 1:
            assert training.resume() == epoch - 1
        loss_of = training.loss_of
        training.loss_of = lambda batch, seen=seen, loss_of=loss_of: (seen.extend(batch.ids.tolist()), loss_of(batch))[
            1
        ]
        # stopped when the epoch is over and saved: the signal comes while the row is written
        training._record = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):
            run(training)
        orders.append(seen)
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders == [[i for batch in RowBatches().epoch(epoch) for i in batch.ids.tolist()] for epoch in range(3)]


def test_sigterm_finishes_the_step_and_a_second_one_during_the_save_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    training = stop_after(make_training(tmp_path, epochs=2), 3)
    write, saves = Checkpoints._write, []

    def slow(self: Checkpoints, *arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        saves.append(arguments[0])
        write(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "_write", slow)
    with pytest.raises(Interrupted) as stop:
        run(training)
    assert (stop.value.signal_number, saves) == (signal.SIGTERM, [3])
    assert make_training(tmp_path, epochs=2).resume() == 0
    assert not [name for name in os.listdir(tmp_path) if is_temporary(name)]


def test_checkpoints_are_saved_every_so_many_steps_or_minutes_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    saved: list[int] = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, m, o, state, best, **how: (saved.append(state["step"]), save(self, m, o, state, best, **how)),
    )
    whole = whole_run(epochs=2)
    training, rows = make_training(tmp_path, epochs=2, save_every=4), []
    run(training, rows)
    assert saved == [4, 6, 8, 12, 12]  # what is due with an epoch's last step does not wait for its validation
    assert_equal(outcome(training, rows), whole)
    clock = iter(range(0, 10**6, 25))  # seconds from one look to the next
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    saved.clear()
    run(make_training(tmp_path / "b", epochs=1, save_minutes=1.0))
    assert saved == [3, 6, 6]


def test_a_run_killed_between_two_checkpoints_goes_on_from_the_last_one_to_the_same_bits(tmp_path: Path):
    training = make_training(tmp_path, epochs=2, save_every=4)
    loss_of = training.loss_of

    def dies(batch: Any):
        if training.state.step == 9:
            raise Killed
        return loss_of(batch)

    training.loss_of, rows = dies, []
    with pytest.raises(Killed):
        run(training, rows)
    resumed = make_training(tmp_path, epochs=2)
    assert resumed.resume() == 1
    assert resumed.state.step == 8
    run(resumed, rows)
    assert_equal(outcome(resumed, rows), whole_run(epochs=2))


def test_what_is_due_with_an_epochs_last_step_is_saved_before_it_is_validated(tmp_path: Path):
    """A run that is killed while it validates has lost no step, and the epoch is recorded when it goes on."""
    training, rows = make_training(tmp_path, epochs=2, save_every=EPOCH), []

    def dies() -> dict[str, float]:
        raise Killed

    training.validate = dies
    with pytest.raises(Killed):
        run(training, rows)
    resumed = make_training(tmp_path, epochs=2)
    assert resumed.resume() == 0
    assert resumed.state.step == EPOCH
    run(resumed, rows)
    assert_equal(outcome(resumed, rows), whole_run(epochs=2))


def test_a_signal_that_comes_while_the_last_checkpoint_is_written_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is left to train then, but whoever called may have much to do that is not to begin."""
    training, rows = make_training(tmp_path, epochs=1), []
    write, wait, waited_for = Checkpoints._write, Checkpoints.wait, threading.Event()

    def noticed(self: Checkpoints) -> None:
        if self.is_writing:
            waited_for.set()
        wait(self)

    def slow(self: Checkpoints, *arguments: Any) -> None:
        assert waited_for.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "wait", noticed)
        patch.setattr(Checkpoints, "_write", slow)
        with pytest.raises(Interrupted):
            run(training, rows)
    resumed = make_training(tmp_path, epochs=1)
    assert resumed.resume() == 1
    run(resumed, rows)
    assert_equal(outcome(resumed, rows), whole_run(epochs=1))
