"""What does a training step cost on any number of processes? Compute, memory and network, as docs/scale.md derives them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_MIB = 2**20
# DistributedDataParallel sends gradients in buckets, the first of which is small, so that sending begins early.
_FIRST_BUCKET, _BUCKET = _MIB, 25 * _MIB
# Of a step's computing, backward takes two thirds: two products for each one of forward.
_BACKWARD = 2 / 3
# What the training loop sums over the processes besides gradients: the loss's denominator, whether all is finite, who is to stop.
_SMALL_SUMS, _SMALL_BYTES = 3, 16
# float32: a weight, its gradient and AdamW's two moments; then the copy of the gradient that is sent.
_STATE_BYTES, _SENT_BYTES = 16, 4


@dataclass(frozen=True)
class Network:
    """What joins the processes.

    Attributes:
        bandwidth: bytes a second that each process sends while it receives as many.
        latency: seconds of a message.
    """

    bandwidth: float
    latency: float

    def all_reduce(self, size: float, processes: int) -> float:
        """Seconds to sum `size` bytes over the processes, round a ring: each sends and receives 2(n−1) parts of size/n
        (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations")."""
        return 2 * (processes - 1) * (size / processes / self.bandwidth + self.latency)

    @classmethod
    def of(cls, small: float, large: float, size: float, processes: int) -> Network:
        """The network that sums next to nothing in `small` seconds and `size` bytes in `large` seconds."""
        return cls(2 * (processes - 1) / processes * size / max(large - small, 1e-9), small / (2 * (processes - 1)))


def sent_bytes(gradient_bytes: int, processes: int) -> float:
    """What each process sends, and receives, in a step."""
    return 2 * (processes - 1) / processes * gradient_bytes


def step_seconds(
    compute: float, gradient_bytes: int, processes: int, network: Network | None = None, *, overlaps: bool = False
) -> float:
    """Seconds of a step.

    Args:
        compute: seconds that the slowest process computes for its share of the batch.
        gradient_bytes: of the model.
        processes: how many; a single one needs no network.
        network: what joins them.
        overlaps: whether gradients travel while backward goes on, all but the last bucket, as on GPUs; processors that compute
            with all cores have none left to send with.
    """
    if processes == 1 or network is None:
        return compute
    sizes, left = [], gradient_bytes
    while left > 0:
        sizes.append(min(left, _BUCKET if sizes else _FIRST_BUCKET))
        left -= sizes[-1]
    times = [network.all_reduce(size, processes) for size in sizes]
    hidden = min(sum(times[:-1]), _BACKWARD * compute) if overlaps else 0.0
    return compute + sum(times) - hidden + _SMALL_SUMS * network.all_reduce(_SMALL_BYTES, processes)


def state_bytes(parameters: int, processes: int) -> int:
    """Memory of weights, gradients and moments in each process, without feature maps and images."""
    return parameters * (_STATE_BYTES + (_SENT_BYTES if processes > 1 else 0))


def operations(network: nn.Module, inputs: torch.Tensor) -> int:
    """Additions and multiplications of convolutions and matrix products for one picture of a batch, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        network(inputs).sum().backward()
    return counter.get_total_flops() // len(inputs)
