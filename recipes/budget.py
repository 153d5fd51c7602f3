"""How long does a training step take, and how many epochs fit into so many minutes? Measured before the run begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean

import torch
from torch import nn

from ..data import Batch, Batches
from ..runtime.device import Compute
from ..runtime.loop import Loss
from ..runtime.processes import any_process, broadcast_from_main

_WARM_UP, _SECONDS = 3, 10.0
# With so few images that more would fit, an epoch's validation and checkpoint take longer than its steps, which alone are timed.
MOST_EPOCHS = 1000


def epochs_within(
    minutes: float,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    loss_of: Callable[[Batch], Loss],
    compute: Compute,
) -> int:
    """Whole epochs that training is going to do in that time, from 1 to :data:`MOST_EPOCHS`; validation and painting come on top.

    Model and optimiser as of :func:`seconds_per_step`.
    """
    each = seconds_per_step(model, optimizer, batches, loss_of, compute)
    return min(max(1, int(60 * minutes / (each * len(batches)))), MOST_EPOCHS)


def seconds_per_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    loss_of: Callable[[Batch], Loss],
    compute: Compute,
    most: float = _SECONDS,
) -> float:
    """How long a step takes, in the mean over as many as there are in an epoch or in `most` seconds; a few go before.

    The model comes back with the weights and running statistics that it came with; the optimiser is used up. Several processes
    take as many steps each, and go by the main one's clock.
    """
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    seconds: list[float] = []
    started = last = time.perf_counter()
    for step, batch in enumerate(batches.epoch(0)):
        numerator, denominator = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        (numerator / denominator.clamp_min(1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
        if any_process(now - started > most and step >= _WARM_UP):
            break
    model.load_state_dict(kept)
    model.zero_grad(set_to_none=True)
    return float(broadcast_from_main(torch.tensor(fmean(seconds[_WARM_UP:] or seconds), dtype=torch.float64)))
