"""What happens when a loss or a gradient is not finite? It is found before the optimiser's step, which is then not made.

On a processor the finding is read at once. On CUDA reading would make every step wait for the device; there the optimiser's fused
kernel is told by a tensor (`found_inf`, the way of torch's own gradient scaler) to leave everything as it is, and what was found is
read later, for many steps at once. Optimisers without such a kernel wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

POLICIES = ("stop", "skip")
MOST_IN_A_ROW = 10


@dataclass(frozen=True)
class StepNumbers:
    """What a step came to, before the optimiser.

    Attributes:
        step: its number in the run, from 0.
        epoch: from 1.
        ids: int64 (n,), the images that it saw; empty if the batches do not say.
        sums: (2,), numerator and denominator of its loss.
        norm: (), of the gradient.
    """

    step: int
    epoch: int
    ids: Tensor
    sums: Tensor
    norm: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no word for what is not finite: that becomes "nan", "inf" or "-inf".

        The step is counted from 1 there, as in all messages: step 10 is the one behind checkpoint `step-9`.
        """
        numerator, denominator = self.sums.tolist()
        values = {
            "loss": numerator / denominator if denominator else math.nan,
            "loss_numerator": numerator,
            "loss_denominator": denominator,
            "gradient_norm": self.norm.item(),
        }
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        return {"step": self.step + 1, "epoch": self.epoch, **plain, "images": self.ids.tolist()}


class NumberGuard:
    """Stands between gradients and optimiser.

    Args:
        model: its buffers are put back after a step that is not made, since a forward pass changes running statistics.
        optimizer: whose steps are made or not.
        restores: whether training goes on after such a step (policy `skip`); if not, buffers are not looked after.
        deferred: whether findings are read later; only for optimisers with a fused kernel.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, restores: bool, deferred: bool):
        self.optimizer, self.deferred = optimizer, deferred
        self._buffers = list(model.buffers()) if restores else []
        self._kept: list[Tensor] = []
        self._unread: list[tuple[StepNumbers, Tensor]] = []

    def remember(self) -> None:
        """Called before a step's forward passes."""
        self._kept = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def step(self, numbers: StepNumbers, finite: Tensor) -> None:
        """Makes the optimiser's step, unless it is not finite.

        Args:
            numbers: what the step came to.
            finite: (), bool, on the device; the same on all processes.
        """
        self._unread.append((numbers, finite))
        if self.deferred:
            self._prepare()
            self.optimizer.found_inf = (~finite).to(torch.float32)  # pyright: ignore[reportAttributeAccessIssue]
            self.optimizer.step()
        elif bool(finite):
            self.optimizer.step()
        else:
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(kept)
        if self.deferred:
            for buffer, kept in zip(self._buffers, self._kept, strict=True):
                buffer.copy_(torch.where(finite, buffer, kept))

    def _prepare(self) -> None:
        """SGD's fused kernel makes its momentum in its first step, and leaves it uninitialised if that one is not made."""
        if not isinstance(self.optimizer, torch.optim.SGD):
            return
        for group in self.optimizer.param_groups:
            for parameter in group["params"] if group["momentum"] else ():
                if parameter.grad is not None and "momentum_buffer" not in self.optimizer.state[parameter]:
                    self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def read(self) -> Iterator[tuple[StepNumbers, bool]]:
        """The steps since the last call, and whether each was made; waits for the device."""
        if not self._unread:
            return
        unread, self._unread = self._unread, []
        flags = torch.stack([finite for _, finite in unread]).tolist()
        yield from zip((numbers for numbers, _ in unread), flags, strict=True)
