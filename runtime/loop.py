"""How is a model trained? One loop for pretraining and fine-tuning: plain, resumable at any step, without waiting for the device.

The loop knows nothing of tasks or encoders. It is given batches, a function from a batch to a :class:`Loss`, and a function that
validates; it owns the optimiser's steps, the schedule, gradient accumulation and clipping, the finite check, checkpoints and
early stopping.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from .checkpoints import Checkpoints
from .device import Compute
from .errors import NotFiniteError
from .processes import barrier, copy_buffers, is_main, largest, rank, share_gradients, sum_over_processes, world_size
from .randomness import step_seed
from .runlog import RunLog

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
    """A batch as far as the loop looks into it."""

    rgb: Tensor


@runtime_checkable
class EpochBatches(Protocol[BatchT_co]):
    """Batches whose order is a function of the epoch, so that a run can go on from any step."""

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[BatchT_co]: ...


@dataclass(frozen=True)
class LoopSettings:
    """How long and how carefully to train.

    Attributes:
        epochs: passes over the training images.
        warmup_epochs: epochs over which the learning rate rises linearly.
        schedule: then it falls along a cosine to zero, or stays constant.
        accumulate: batches whose gradients are added up before one optimiser step.
        clip: largest gradient norm, or None for no clipping.
        patience: stop after that many epochs without a better validation loss, or None to train all epochs.
        seed: the run's seed.
    """

    epochs: int
    warmup_epochs: float = 0.5
    accumulate: int = 1
    clip: float | None = 1.0
    patience: int | None = None
    seed: int = 0
    schedule: str = "cosine"


@dataclass
class LoopState:
    """Where a run is; saved with every checkpoint."""

    step: int = 0
    best: float = math.inf
    best_epoch: int = 0
    finished: bool = False
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and did so at a step's end, after saving; `signal_number` says by which signal."""

    def __init__(self, signal_number: int):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class _StopRequests:
    """Turns SIGINT and SIGTERM into a flag that the loop reads at the end of a step."""

    def __enter__(self) -> _StopRequests:
        self.received: int | None = None
        self._previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: whoever owns it handles signals
                break
        return self

    def _note(self, number: int, _frame: object) -> None:
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


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
    ):
        self.network = model if network is None else network
        self.model, self.optimizer, self.batches, self.loss_of = model, optimizer, batches, loss_of
        self.validate, self.compute, self.settings, self.checkpoints = validate, compute, settings, checkpoints
        self.state = LoopState()
        self.steps_per_epoch = optimizer_steps(len(batches), settings.accumulate)
        self.total_steps = settings.epochs * self.steps_per_epoch
        self._warmup = round(settings.warmup_epochs * self.steps_per_epoch)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        # numerator and denominator of this epoch's training loss, and the last gradient norm: on the device, read rarely
        self._sums = torch.zeros(2, dtype=torch.float64 if compute.device.type != "mps" else torch.float32)
        self._sums = self._sums.to(compute.device)
        self._norm = torch.zeros((), device=compute.device)

    def resume(self) -> int:
        """Loads the last checkpoint; returns the number of complete epochs.

        Raises:
            RunFolderError: there is none, or it does not fit the model.
        """
        if self.checkpoints is None:
            raise ValueError("resume needs checkpoints")
        self.state = LoopState(**self.checkpoints.load_last(self.model, self.optimizer))
        # they were added up over the processes, of which there may be another number now
        self._sums.copy_(torch.tensor(self.state.sums, dtype=self._sums.dtype) * is_main())
        return self.state.step // self.steps_per_epoch

    def run(self, log: RunLog, on_epoch: Callable[[int], None] | None = None) -> LoopState:
        """Trains to the end, or until early stopping.

        Args:
            log: where progress goes.
            on_epoch: called after each epoch with its number (from 1), the model in evaluation mode.

        Raises:
            NotFiniteError: a loss or gradient is NaN or infinite; nothing of it reaches a checkpoint.
            Interrupted: SIGINT or SIGTERM came; the state was saved first.
        """
        self.log, self.on_epoch = log, on_epoch
        with _StopRequests() as self._stop:
            while self.state.step < self.total_steps and not self.state.finished:
                epoch, offset = divmod(self.state.step, self.steps_per_epoch)
                images, seconds = self._train_epoch(epoch, offset)
                self._end_epoch(epoch + 1, images, seconds)
                if stop := self._agreed_stop():
                    self._leave(stop)
        return self.state

    def _agreed_stop(self) -> int:
        """The signal that any of the processes has received, so that all stop at the same step; 0 for none."""
        return largest(self._stop.received or 0)

    def _train_epoch(self, epoch: int, offset: int) -> tuple[int, float]:
        """Trains to the end of an epoch, from a step in it; returns images seen and seconds."""
        self.model.train()
        start = polled = time.perf_counter()
        images, batches = 0, self.batches.epoch(epoch, offset * self.settings.accumulate)
        for group in _grouped(batches, self.settings.accumulate):
            # each process has masks of its own, since its pictures are others
            torch.manual_seed(step_seed(self.settings.seed, self.state.step * world_size() + rank()))
            self._set_learning_rates()
            images += self._step(group)
            self.state.step += 1
            now = time.perf_counter()
            if now - polled > _POLL_SECONDS:
                polled = now
                self._show(
                    images / (now - start),
                    (now - start) / max(1, self.state.step - epoch * self.steps_per_epoch - offset),
                )
            # at an epoch's last step the epoch is ended first, so that its validation is not lost
            stop = self._agreed_stop()
            if stop and self.state.step % self.steps_per_epoch:
                self._check_finite()
                self._save()
                self._leave(stop)
        self._check_finite()
        return images, time.perf_counter() - start

    def _step(self, group: list[BatchT]) -> int:
        """One optimiser step over the batches of one accumulation; returns the number of images."""
        self.optimizer.zero_grad(set_to_none=True)
        first, total = None, None
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
            self._sums += torch.stack([loss.numerator.detach(), loss.denominator.detach()]).to(self._sums.dtype)
        if len(group) > 1 and first is not None and total is not None:
            for parameter in self._parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(first.clamp_min(_LEAST) / total.clamp_min(_LEAST))
        self._norm = nn.utils.clip_grad_norm_(self._parameters, self.settings.clip or math.inf)
        self.optimizer.step()
        return sum(batch.rgb.shape[0] for batch in group)

    def _set_learning_rates(self) -> None:
        factor = cosine_factor(self.state.step, self.total_steps, self._warmup)
        if self.settings.schedule == "constant" and self.state.step >= self._warmup:
            factor = 1.0
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def _show(self, images_per_second: float, seconds_per_step: float) -> None:
        self._check_finite()
        numerator, denominator = self._sums.tolist()
        left = (self.total_steps - self.state.step) * seconds_per_step
        self.log.step(self.state.step, numerator / max(denominator, 1e-12), images_per_second, left)

    def _check_finite(self) -> None:
        """The one place that waits for the device: polled twice a second and at the end of an epoch."""
        if not bool(torch.isfinite(self._norm) & torch.isfinite(self._sums).all()):
            raise NotFiniteError(
                f"The loss or a gradient is not finite near step {self.state.step}; lower --learning-rate, "
                "use --precision fp32, or look at the images."
            )

    def _end_epoch(self, epoch: int, images: int, seconds: float) -> None:
        numerator, denominator = sum_over_processes(self._sums).tolist()
        self._sums.zero_()
        self.model.eval()
        copy_buffers(self.model)  # one model is judged and saved, whichever process asks
        measured = self.validate()
        row = {"epoch": epoch, "train_loss": numerator / max(denominator, 1e-12), **measured}
        row |= {
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "images_per_second": images * world_size() / seconds,
            "seconds": seconds,
        }
        validation_loss = measured["validation_loss"] if measured else numerator / max(denominator, 1e-12)
        if not math.isfinite(validation_loss):
            raise NotFiniteError(f"The validation loss of epoch {epoch} is {validation_loss}; lower --learning-rate.")
        improved = validation_loss < self.state.best or not measured
        if improved:
            self.state.best, self.state.best_epoch = validation_loss, epoch
        patience = self.settings.patience
        self.state.finished = patience is not None and epoch - self.state.best_epoch >= patience
        self.log.epoch(row)
        self._save(best=improved)
        if self.on_epoch is not None:
            self.on_epoch(epoch)
        if self.state.finished:
            self.log.say(f"Stopped after epoch {epoch}: no better validation loss for {patience} epochs.")

    def _save(self, best: bool = False) -> None:
        if self.checkpoints is not None:
            self.state.sums = sum_over_processes(self._sums).tolist()
            self.checkpoints.save(self.model, self.optimizer, asdict(self.state), best=best)
            barrier()  # nobody reads, or ends the others by ending, before it is written

    def _leave(self, number: int) -> None:
        if self.checkpoints is not None:
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
