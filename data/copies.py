"""How do pictures reach a GPU while it still works on the batch before? Through a CUDA stream of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

TensorsT = TypeVar("TensorsT", bound=Iterable[Tensor | None])
# where in its stream a copy is complete; None where nothing is waited for
Arrival = torch.Event | torch.cuda.Event | None


class Copies:
    """Copies to a device that run beside what the device computes; elsewhere than on CUDA there is nothing to run beside.

    What is copied from page-locked memory with `non_blocking=True` waits neither for the computing nor is waited for by the
    processor; whoever is handed the copies makes its own stream wait for them.

    Args:
        device: where to.

    >>> copies = Copies("cpu")
    >>> copies.receive(copies.send(lambda: (torch.zeros(2), None)))
    (tensor([0., 0.]), None)
    """

    def __init__(self, device: torch.device | str):
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None

    def send(self, make: Callable[[], TensorsT]) -> tuple[TensorsT, Arrival]:
        """Makes a batch's tensors, and copies them to the device; in whichever thread."""
        if self._stream is None:
            return make(), None
        with torch.cuda.stream(self._stream):
            return make(), self._stream.record_event()

    def receive(self, sent: tuple[TensorsT, Arrival]) -> TensorsT:
        """What was sent, for the stream that this thread computes on: it waits for the copies, and the processor does not."""
        tensors, arrived = sent
        if arrived is not None:
            computing = torch.cuda.current_stream(self._device)
            computing.wait_event(arrived)
            for tensor in tensors:
                if tensor is not None:
                    # it was made on the other stream, which must not take its memory for the next batch before this one is done
                    tensor.record_stream(computing)
        return tensors
