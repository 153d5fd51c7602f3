"""Which of the training processes am I, and how do they share numbers? One code path for one process and for many.

torchrun, or `--processes N` (:mod:`.launcher`), starts the processes; a verb takes part through :func:`joined`. Outside of it, or
alone, every function here answers for a single process and sends nothing: a process group that somebody else's program has made is
none of Pretint's business. All processes must call the functions that send something, in the same order.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import ArgumentError, DataError, ProcessError

# The others wait while the main process fits a probe or reads an archive for the first time. One that has ended is noticed at
# once, by its closed connection; this is for one that hangs.
_PATIENCE, _MEETING = timedelta(hours=2), timedelta(minutes=10)
# What torchrun tells each process besides WORLD_SIZE. Nothing of it can be guessed: on several machines a process's number is not
# that of its GPU.
_TOLD = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Stands for a tensor where something else goes from process to process as JSON.
_TENSOR = "torch.Tensor"
_LOST = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|c10d|socket", re.IGNORECASE)

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class _Group:
    rank: int
    size: int
    local_rank: int = 0


_group: _Group | None = None
_store: dist.Store | None = None


def launched() -> int:
    """How many processes torchrun (or whoever set its environment variables) has started; 1 if nobody has.

    Raises:
        ArgumentError: `WORLD_SIZE` is no number.
    """
    words = os.environ.get("WORLD_SIZE", "1")
    if not words.isdecimal() or int(words) < 1:
        raise ArgumentError(f"WORLD_SIZE: {words!r} is no number of processes; unset it, or start with torchrun.")
    return int(words)


def local_rank() -> int:
    """This process's number on its machine, which is also the number of its GPU; 0 when there is only one."""
    return 0 if _group is None else _group.local_rank


def rank() -> int:
    """This process's number, 0 when there is only one."""
    return 0 if _group is None else _group.rank


def world_size() -> int:
    """How many processes work together."""
    return 1 if _group is None else _group.size


def is_main() -> bool:
    """True on the one process that writes files and prints."""
    return rank() == 0


@contextmanager
def joined(device_type: str) -> Iterator[None]:
    """Takes part in what torchrun has started, for the time of a verb; nothing happens alone, or inside of another one.

    Args:
        device_type: "cuda" exchanges tensors on GPUs through NCCL and those on the CPU through gloo, "cpu" all through gloo.

    Raises:
        ArgumentError: the device takes one process only, there are fewer GPUs than processes on this machine, or an environment
            variable of torchrun is missing.
        ProcessError: the processes do not find each other, or another one has ended.
    """
    global _group
    if launched() == 1 or _group is not None:
        yield
        return
    if missing := [name for name in _TOLD if name not in os.environ]:
        raise ArgumentError(
            f"WORLD_SIZE says that there are {launched()} processes, but {', '.join(missing)} is not set; start with torchrun or "
            "--processes, which set all of it, or unset WORLD_SIZE."
        )
    check_devices(device_type, launched(), here=int(os.environ["LOCAL_WORLD_SIZE"]))
    try:
        _group = _meet(device_type)
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _LOST.search(str(error)):
            raise
        reason = " ".join(str(error).split())[:120]
        raise ProcessError(
            f"Another process has ended or can't be reached ({reason}); see what it says, then go on with --resume."
        ) from error
    finally:
        _group = None


def check_devices(device_type: str, processes: int, here: int | None = None) -> None:
    """Raises ArgumentError unless each of so many processes has a device; `here` are on this machine, by default all."""
    here = processes if here is None else here
    if processes > 1 and device_type == "mps":
        raise ArgumentError(
            "--processes: an Apple GPU serves one process only; leave --processes out, or add --device cpu."
        )
    if processes > 1 and device_type == "cuda" and torch.cuda.device_count() < here:
        raise ArgumentError(
            f"--processes: {here} processes need as many GPUs, and this machine has {torch.cuda.device_count()}; use fewer, or "
            "--device cpu."
        )


def _meet(device_type: str) -> _Group:
    """The process group, made when it is first wanted; it is left when the interpreter ends."""
    global _store
    local = int(os.environ["LOCAL_RANK"])
    if device_type == "cuda":
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        store, number, size = next(dist.rendezvous("env://", timeout=_MEETING))
        _store = dist.PrefixStore("pretint", store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo",
            store=dist.PrefixStore("group", store),
            rank=number,
            world_size=size,
            timeout=_PATIENCE,
        )
        atexit.register(_part)
    return _Group(dist.get_rank(), dist.get_world_size(), local)


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def first_to_say(sentence: str, *, last_word: bool = False) -> bool:
    """Whether to print an error: one line for what all processes meet.

    Args:
        sentence: what would be printed; it is, unless another process has said the same.
        last_word: it is printed only if no process has said anything.
    """
    if _store is None:
        return os.environ.get("RANK", "0") == "0"
    try:
        said = _store.add("said", 1)
        return (said if last_word else _store.add(f"said/{sentence[:500]}", 1)) == 1
    except RuntimeError:  # whoever kept the store has ended
        return True


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does the work inside before the others do: it downloads or caches what they then find.

    Then comes the first process of each other machine, and then the rest: on a disk that all machines share everybody finds what
    the main process made, and on disks of their own what the first one there did.
    """
    turn = 0 if is_main() else 1 if local_rank() == 0 else 2
    for _ in range(turn):
        barrier()
    yield
    for _ in range(turn, 2):
        barrier()


def from_main(read: Callable[[], ValueT]) -> ValueT:
    """What the main process reads, on every process, so that its disk need not be in reach of the others; all must call this.

    Args:
        read: called on the main process alone; gives what JSON knows, and in it tensors on the CPU. The others get lists for
            tuples.
    """
    if _group is None:
        return read()
    value = read() if is_main() else None
    tensors: list[Tensor] = []

    def put(tensor: Tensor) -> dict[str, Any]:
        tensors.append(tensor.contiguous())
        return {_TENSOR: [str(tensor.dtype).removeprefix("torch."), *tensor.shape]}

    def take(found: dict[str, Any]) -> Any:
        if found.keys() != {_TENSOR}:
            return found
        kind, *shape = found[_TENSOR]
        tensors.append(torch.empty(shape, dtype=getattr(torch, kind)))
        return tensors[-1]

    words = json.dumps(value, default=put).encode() if is_main() else b""
    (length,) = largest(len(words))
    letters = broadcast_from_main(torch.frombuffer(bytearray(words.ljust(length)), dtype=torch.uint8))
    words = letters.numpy().tobytes()
    if not is_main():
        value = json.loads(words, object_hook=take)
    for tensor in tensors:
        broadcast_from_main(tensor.view(-1).view(torch.uint8))
    return value  # pyright: ignore[reportReturnType]  # what the main process has read


def barrier() -> None:
    """Waits until all processes are here."""
    sum_over_processes(torch.zeros(()))


def broadcast_from_main(tensor: Tensor) -> Tensor:
    """The tensor of rank 0, on every rank (same shape and type everywhere); the identity in a single process."""
    if _group is not None:
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=0)
    return tensor


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum over all ranks; the identity in a single process."""
    if _group is not None:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def largest(*numbers: int) -> tuple[int, ...]:
    """The largest of each number over all ranks, so that all decide alike; through the CPU, so that no device is waited for."""
    if _group is None:
        return numbers
    together = torch.tensor(numbers)
    dist.all_reduce(together, op=dist.ReduceOp.MAX)
    return tuple(together.tolist())


def any_process(flag: bool) -> bool:
    """Whether any process says yes."""
    return largest(int(flag)) > (0,)


def all_over_processes(flag: Tensor) -> Tensor:
    """Whether a flag (0-dimensional, bool) is true on all ranks; the identity in a single process."""
    return flag if _group is None else sum_over_processes((~flag).to(torch.int32)) == 0


def gather_numbers(numbers: list[int]) -> list[int]:
    """The whole numbers of all ranks, one list behind the other; for a few of them."""
    if _group is None:
        return numbers
    start, total = _place(len(numbers))
    everything = torch.zeros(total, dtype=torch.int64)
    everything[start : start + len(numbers)] = torch.tensor(numbers, dtype=torch.int64)
    return sum_over_processes(everything).tolist()


def _place(n: int) -> tuple[int, int]:
    """Where this process's `n` rows begin among those of all ranks, and how many there are in all."""
    counts = torch.zeros(world_size(), dtype=torch.int64)
    counts[rank()] = n
    counts = sum_over_processes(counts)
    return int(counts[: rank()].sum()), int(counts.sum())


def share(n: int, *, of: int | None = None, what: str = "images") -> slice:
    """Which of `n` things are this process's: neighbours, as many as any other's or one fewer; all of them when it is alone.

    Args:
        n: how many there are.
        of: the rank whose share is asked for; this process's by default.
        what: what an error calls them.

    Raises:
        DataError: there are fewer than processes.

    >>> share(10)
    slice(0, 10, None)
    """
    number, size = rank() if of is None else of, world_size()
    if n < size:
        raise DataError(f"{n} {what} are fewer than {size} processes, and each needs one; use {max(n, 1)} or fewer.")
    return slice(n * number // size, n * (number + 1) // size)


def gather_rows(part: Tensor, n: int) -> Tensor:
    """All `n` rows on every rank, of which `part` holds this process's :func:`share`."""
    if _group is None:
        return part
    rows = part.new_empty(n, *part.shape[1:])
    for number in range(_group.size):
        owned = rows[share(n, of=number)]
        if number == _group.rank:
            owned.copy_(part)
        dist.broadcast(owned, src=number)
    return rows


def rows_to_main(part: Tensor, n: int) -> Tensor:
    """All `n` rows on rank 0, of which `part` holds this process's :func:`share`; other ranks get none, which saves memory."""
    if _group is None:
        return part
    if not is_main():
        dist.send(part.contiguous(), dst=0)
        return part[:0]
    rows = part.new_empty(n, *part.shape[1:])
    rows[share(n)] = part
    for number in range(1, _group.size):
        dist.recv(rows[share(n, of=number)], src=number)
    return rows


class _Sum(torch.autograd.Function):
    """A sum over the ranks; what any of them makes of it has a gradient, and a term gets the sum of these."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return sum_over_processes(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return sum_over_processes(grad)


def gather_with_gradient(rows: Tensor) -> tuple[Tensor, int]:
    """The rows (b, d) of all ranks below each other, and where this rank's begin; numbers of rows may differ.

    The gradient of what any rank makes of a row comes back to the rank that it is of, so that a loss that compares the pictures of
    a batch is the same for any number of processes.
    """
    if _group is None:
        return rows, 0
    start, total = _place(len(rows))
    padded = F.pad(rows.float(), (0, 0, start, total - start - len(rows)))
    everything = _Sum.apply(padded)
    assert isinstance(everything, Tensor)
    return everything.to(rows.dtype), start


def parallel(model: nn.Module, device: torch.device, *, accumulates: bool = False) -> nn.Module:
    """The model as it is called in training: its gradients are averaged over the processes. Alone, the model itself.

    Running statistics of batch norm stay each process's own; :func:`copy_buffers` gives all those of rank 0 before they are used.

    Args:
        model: on its device; it shares its parameters with what comes out, and checkpoints are made of it alone.
        device: where it is.
        accumulates: whether :func:`share_gradients` is going to hold gradients back.
    """
    if _group is None or not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    with warnings.catch_warnings():
        # broadcast_buffers has a new name in torch 2.15, which older ones do not know
        warnings.simplefilter("ignore", FutureWarning)
        # A static graph finds layers that have no part in the loss once and for all, but torch lets it hold nothing back.
        return DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,
            static_graph=not accumulates,
            find_unused_parameters=accumulates,
        )


def share_gradients(network: nn.Module, now: bool) -> AbstractContextManager[object]:
    """The context of a forward and backward pass: `now` averages the gradients over the processes, else they only add up."""
    if isinstance(network, DistributedDataParallel) and not now:
        return network.no_sync()
    return nullcontext()


def copy_buffers(model: nn.Module) -> None:
    """Gives every process rank 0's buffers, such as the running statistics of batch norm."""
    if _group is not None:
        for buffer in model.buffers():
            buffer.copy_(broadcast_from_main(buffer))
