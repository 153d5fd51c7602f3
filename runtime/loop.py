"""How is a model trained? One loop for pretraining and fine-tuning: plain, resumable at any step, without waiting for the device.

The loop knows nothing of tasks or encoders. It is given batches, a function from a batch to a :class:`Loss`, and a function that
validates; it owns the optimiser's steps, the schedule, gradient accumulation and clipping, the finite check, checkpoints and
early stopping.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Generic, NamedTuple, NoReturn, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from .checkpoints import Checkpoints
from .device import Compute
from .errors import NotFiniteError
from .loopstate import LoopSettings, LoopState
from .numbers import MOST_IN_A_ROW, NumberGuard, StepNumbers
from .processes import (
    all_over_processes,
    barrier,
    copy_buffers,
    from_main,
    gather_numbers,
    is_main,
    largest,
    rank,
    share_gradients,
    sum_over_processes,
    world_size,
)
from .randomness import step_seed
from .runlog import RunLog
from .stopping import Interrupted, StopRequests

BatchT = TypeVar("BatchT", bound="PictureBatch")
BatchT_co = TypeVar("BatchT_co", covariant=True)

_POLL_SECONDS = 0.5
_LEAST = 1e-6
SCHEDULES = ("cosine", "constant")


class Loss(NamedTuple):
    """A loss as two scalars, so that a mean over unequal batches or processes is right: the loss is their quotient."""

    numerator: Tensor
    denominator: Tensor

    @classmethod
    def mean_of(cls, each: Tensor) -> Loss:
        """The mean of all numbers in a tensor.

        Summed here and not by a fused mean, which for pixels has no deterministic kernel on CUDA; the count is made on the device,
        so that nothing waits for it.

        >>> Loss.mean_of(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
        Loss(numerator=tensor(12.), denominator=tensor(4.))
        """
        return cls(each.sum(), each.new_full((), each.numel()))


@runtime_checkable
class PictureBatch(Protocol):
    """A batch as far as the loop looks into it: its pictures, and their numbers in the data."""

    rgb: Tensor
    ids: Tensor


@runtime_checkable
class EpochBatches(Protocol[BatchT_co]):
    """Batches whose order is a function of the epoch, so that a run can go on from any step."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[BatchT_co]: ...


def cosine_factor(step: int, total: int, warmup: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, eq. 5)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class Training(Generic[BatchT]):
    """One training run.

    Args:
        model: all parameters that are trained, already placed on the device.
        optimizer: over the model's parameters; each group's `lr` is its peak.
        batches: the training batches.
        loss_of: a batch to its :class:`Loss`; puts the network's forward pass, and only that, under autocast.
        validate: to a dict with `validation_loss`, called after each epoch with the model in evaluation mode; with an empty one,
            where no images are held out, the last epoch counts as the best.
        compute: device and precision.
        settings: how long and how carefully.
        checkpoints: where state goes, or None to keep none.
        network: the model as `loss_of` calls it, of :func:`.processes.parallel`; the model itself where that is left out.
        image_numbers: from a batch's ids to what the images are called in the record of steps that were not finite; the ids
            themselves by default.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: EpochBatches[BatchT],
        loss_of: Callable[[BatchT], Loss],
        validate: Callable[[], dict[str, float]],
        compute: Compute,
        settings: LoopSettings,
        checkpoints: Checkpoints | None = None,
        network: nn.Module | None = None,
        image_numbers: Callable[[Tensor], Tensor] | None = None,
    ):
        self.network = model if network is None else network
        self.model, self.optimizer, self.batches, self.loss_of = model, optimizer, batches, loss_of
        self.validate, self.compute, self.settings, self.checkpoints = validate, compute, settings, checkpoints
        self.image_numbers = image_numbers or (lambda ids: ids)
        self.state = LoopState()
        self.steps_per_epoch = optimizer_steps(len(batches), settings.accumulate)
        self.total_steps = settings.epochs * self.steps_per_epoch
        self._warmup = round(settings.warmup_epochs * self.steps_per_epoch)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        # numerator and denominator of this epoch's training loss: on the device, read rarely
        self._sums = torch.zeros(2, dtype=torch.float64 if compute.device.type != "mps" else torch.float32)
        self._sums = self._sums.to(compute.device)
        deferred = compute.device.type == "cuda" and bool(optimizer.defaults.get("fused"))
        self._guard = NumberGuard(model, optimizer, restores=settings.on_nonfinite == "skip", deferred=deferred)
        self._saved = time.monotonic()
        if checkpoints is not None:  # a checkpoint of another schedule would go on, but to another end
            names = ("epochs", "warmup_epochs", "schedule", "accumulate", "clip", "patience", "seed")
            schedule = {name: getattr(settings, name) for name in names}
            checkpoints.run["schedule"] = {**schedule, "steps_per_epoch": self.steps_per_epoch}

    def resume(self) -> int:
        """Loads the newest checkpoint that is whole; returns the number of epochs that have ended.

        Raises:
            RunFolderError: there is none, or it does not fit the model.
        """
        if self.checkpoints is None:
            raise ValueError("resume needs checkpoints")
        saved = self.checkpoints.load_last(self.model, self.optimizer)
        self.state = LoopState.from_dict(saved, self.steps_per_epoch)
        # they were added up over the processes, of which there may be another number now
        self._sums.copy_(torch.tensor(self.state.sums, dtype=self._sums.dtype) * is_main())
        if self.state.step:  # an epoch that is still to be recorded says which rate its last step had
            self._set_learning_rates(self.state.step - 1)
        return self.state.epochs_ended

    def run(self, log: RunLog, on_epoch: Callable[[int], None] | None = None) -> LoopState:
        """Trains to the end, or until early stopping.

        Args:
            log: where progress goes.
            on_epoch: called after each epoch with its number (from 1), the model in evaluation mode; an epoch that is stopped in
                it is validated again by the run that goes on.

        Raises:
            NotFiniteError: a loss or gradient is NaN or infinite; nothing of it reaches a checkpoint.
            Interrupted: SIGINT or SIGTERM came; the state was saved first.
        """
        self.log, self.on_epoch = log, on_epoch
        self._saved = time.monotonic()
        with StopRequests() as self._stop:
            try:
                while self.state.epochs_ended < self.settings.epochs and not self.state.finished:
                    if self.state.step < (self.state.epochs_ended + 1) * self.steps_per_epoch:
                        self._train_epoch(self.state.epochs_ended)
                    self._end_epoch(self.state.epochs_ended + 1)
            finally:
                if self.checkpoints is not None:
                    self.checkpoints.wait()
            (stop,) = largest(self._stop.received or 0)  # nobody goes on to read what is not written yet
            if stop:
                self._leave(stop)
        return self.state

    def _train_epoch(self, epoch: int) -> None:
        """Trains to the end of an epoch, from the step in it where the run is."""
        self.model.train()
        offset = self.state.step - epoch * self.steps_per_epoch
        start = polled = time.perf_counter()
        before, spent = self.state.images, self.state.seconds
        for group in _grouped(self.batches.epoch(epoch, offset * self.settings.accumulate), self.settings.accumulate):
            # each process has masks of its own, since its pictures are others
            torch.manual_seed(step_seed(self.settings.seed, self.state.step * world_size() + rank()))
            self._set_learning_rates(self.state.step)
            self._guard.remember()
            self._step(group)
            self.state.step += 1
            self.state.images += world_size() * sum(batch.rgb.shape[0] for batch in group)
            if not self._guard.deferred:
                self._look_at_numbers()
            now = time.perf_counter()
            self.state.seconds = spent + now - start
            if now - polled > _POLL_SECONDS:
                polled = now
                done = self.state.step - epoch * self.steps_per_epoch - offset
                self._show((self.state.images - before) / (now - start), (now - start) / done)
            if self.state.step % self.steps_per_epoch:  # what is due with an epoch's last step is saved at its end
                self._save_or_leave()
        self._look_at_numbers()
        self.state.seconds = spent + time.perf_counter() - start

    def _save_or_leave(self) -> None:
        """Behind a step: saves if it is time to, or if the run is to stop, which it then does."""
        # what any of the processes has noticed, so that all of them do the same
        stop, due = largest(self._stop.received or 0, int(self._is_time_to_save()))
        if stop or due:
            self._look_at_numbers()
            self._save()
        if stop:
            self._leave(stop)

    def _is_time_to_save(self) -> bool:
        every, minutes = self.settings.save_every, self.settings.save_minutes
        by_steps = every is not None and self.state.step % every == 0
        return by_steps or (minutes is not None and time.monotonic() - self._saved >= 60 * minutes)

    def _step(self, group: list[BatchT]) -> None:
        """One optimiser step over the batches of one accumulation, unless a loss or a gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        first, total, sums = None, None, torch.zeros_like(self._sums)
        for number, batch in enumerate(group, 1):
            with share_gradients(self.network, now=number == len(group)):
                loss = self.loss_of(batch)
                denominator = sum_over_processes(loss.denominator.detach())
                # gradients are scaled by the first batch's denominator and put right below, when the sum of all is known
                first = denominator if first is None else first
                total = denominator if total is None else total + denominator
                # a batch may count nothing (all masked): its numerator is zero then, and nothing must be divided by zero;
                # the gradient is a mean over the processes, of which each has only its part of the numerator
                (loss.numerator * (world_size() / first.clamp_min(_LEAST))).backward()
            sums += torch.stack([loss.numerator.detach(), loss.denominator.detach()]).to(sums.dtype)
        if len(group) > 1 and first is not None and total is not None:
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(first.clamp_min(_LEAST) / total.clamp_min(_LEAST))
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        if self.settings.clip is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.settings.clip, norm)
        finite = all_over_processes(torch.isfinite(sums.sum() + norm))  # one number that is not finite spoils their sum
        ids = torch.cat([batch.ids for batch in group])
        self._guard.step(StepNumbers(self.state.step, self.state.epochs_ended + 1, ids, sums, norm), finite)
        self._sums += torch.where(finite, sums, 0.0)

    def _set_learning_rates(self, step: int) -> None:
        factor = cosine_factor(step, self.total_steps, self._warmup)
        if self.settings.schedule == "constant" and step >= self._warmup:
            factor = 1.0
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def _show(self, images_per_second: float, seconds_per_step: float) -> None:
        if world_size() == 1:  # several look at the same step, or one would leave the others alone
            self._look_at_numbers()
        numerator, denominator = self._sums.tolist()
        left = (self.total_steps - self.state.step) * seconds_per_step
        self.log.step(self.state.step, numerator / max(denominator, 1e-12), images_per_second, left)

    def _look_at_numbers(self) -> None:
        """Counts the steps that were not made because they were not finite, and stops if there is one too many.

        On CUDA it waits for the device, so it is done twice a second, before a save, and at the end of an epoch.
        """
        for numbers, finite in self._guard.read():
            if finite:
                self.state.skipped_in_a_row = 0
                continue
            stops = self.settings.on_nonfinite == "stop"
            record = {**numbers.to_dict(), "policy": self.settings.on_nonfinite}
            record["images"] = gather_numbers(self.image_numbers(numbers.ids).tolist())
            listed = from_main(lambda record=record: self.log.not_finite(record))
            where = f"step {numbers.step + 1} (epoch {numbers.epoch})"
            if not stops:
                self.state.skipped += 1
                self.state.skipped_in_a_row += 1
                self.log.say(f"Skipped {where}: its loss or gradient is not finite{listed}.")
            if stops or self.state.skipped_in_a_row >= MOST_IN_A_ROW:
                many = "" if stops else f", and so were the {MOST_IN_A_ROW - 1} before it"
                mend = ", or let such steps be left out by --on-nonfinite skip" if stops else ""
                raise NotFiniteError(
                    f"The loss or a gradient is not finite at {where}{many}{listed}; lower --learning-rate, use "
                    f"--precision fp32, or look at the images{mend}."
                )

    def _end_epoch(self, epoch: int) -> None:
        """Validates, records and saves; if the run is to stop before or in the middle of that, it does so when it goes on."""
        self.model.eval()
        copy_buffers(self.model)  # one model is judged and saved, whichever process asks
        self._save_or_leave()  # validation and painting may take long
        try:
            with self._stop.stopping_at_once(allowed=world_size() == 1):
                measured = self.validate()
                numerator, denominator = sum_over_processes(self._sums).tolist()
                training_loss = numerator / max(denominator, 1e-12)
                validation_loss = measured["validation_loss"] if measured else training_loss
                if not math.isfinite(validation_loss):
                    raise NotFiniteError(
                        f"The validation loss of epoch {epoch} is {validation_loss}; lower --learning-rate."
                    )
                if self.on_epoch is not None:
                    self.on_epoch(epoch)
        except Interrupted as stop:
            self._save()
            self._leave(stop.signal_number)
        self._record(epoch, training_loss, measured)
        improved = validation_loss < self.state.best or not measured
        if improved:
            self.state.best, self.state.best_epoch, self.state.best_step = validation_loss, epoch, self.state.step
        patience = self.settings.patience
        self.state.finished = patience is not None and epoch - self.state.best_epoch >= patience
        self.state.epochs_ended, self.state.images, self.state.seconds = epoch, 0, 0.0
        self._sums.zero_()
        self._save()
        if self.state.finished:
            self.log.say(f"Stopped after epoch {epoch}: no better validation loss for {patience} epochs.")
        (stop,) = largest(self._stop.received or 0)
        if stop:
            self._leave(stop)

    def _record(self, epoch: int, training_loss: float, measured: dict[str, float]) -> None:
        """An epoch's row in the log."""
        row = {"epoch": epoch, "train_loss": training_loss, **measured}
        row |= {
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "images_per_second": self.state.images / max(self.state.seconds, 1e-9),
            "seconds": self.state.seconds,
        }
        if self.settings.on_nonfinite == "skip":
            row["skipped_steps"] = self.state.skipped
        self.log.epoch(row)

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self.checkpoints is not None:
            self.state.sums = sum_over_processes(self._sums).tolist()
            state = asdict(self.state)
            self.checkpoints.save(self.model, self.optimizer, state, self.state.best_step, background=True)

    def _leave(self, number: int) -> NoReturn:
        if self.checkpoints is not None:
            self.checkpoints.wait()
            barrier()  # whoever ends first ends the others
            self.log.say(f"Stopped at step {self.state.step}; the state is saved, --resume goes on from here.")
        raise Interrupted(number)


def optimizer_steps(batches: int, accumulate: int) -> int:
    """Optimiser steps in an epoch: a last, smaller group of batches counts too."""
    return math.ceil(batches / accumulate)


def _grouped(batches: Iterator[BatchT], size: int) -> Iterator[list[BatchT]]:
    group: list[BatchT] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
