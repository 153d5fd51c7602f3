"""Which of the training processes am I, and how do they share numbers? One code path for one process and for many."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, 0 when there is only one."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _joined() else 1


def is_main() -> bool:
    """True on the one process that writes files and prints."""
    return rank() == 0


def broadcast_from_main(tensor: Tensor) -> Tensor:
    """The tensor of rank 0, on every rank (same shape and type everywhere); the identity in a single process."""
    if _joined():
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum over all ranks; the identity in a single process."""
    if _joined():
        tensor = tensor.clone()
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def all_over_processes(flag: Tensor) -> Tensor:
    """Whether a flag (0-dimensional, bool) is true on all ranks; the identity in a single process."""
    return sum_over_processes((~flag).to(torch.int32)) == 0 if _joined() else flag


def largest_over_processes(*numbers: int) -> tuple[int, ...]:
    """The largest of each number over all ranks, so that all decide alike; the identity in a single process."""
    if not _joined():
        return numbers
    largest = torch.tensor(numbers, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return tuple(largest.tolist())
