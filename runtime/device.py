"""Where does the computing happen, and in which precision and memory layout?"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from .allocation import keep_freed_memory
from .errors import ArgumentError, UnknownNameError
from .processes import local_rank, world_size

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("auto", "bf16", "fp32")
LAYOUTS = ("auto", "channels-last", "channels-first")

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def resolve_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes cuda, then mps, then cpu. Of several processes each has the GPU of its number.

    Raises:
        UnknownNameError: the name is none of auto, cuda, cuda:N, mps, cpu.
        ArgumentError: this machine does not have the device, or it is one GPU for several processes.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise UnknownNameError("device", name, DEVICES)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    if world_size() > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise ArgumentError(
                f"device: {name!r} is one GPU, and each of {world_size()} processes has its own; use 'cuda'."
            )
        name = f"cuda:{local_rank()}"
    index = int(name.partition(":")[2] or 0)
    if (name.startswith("cuda") and not index < torch.cuda.device_count()) or (name == "mps" and not has_mps):
        raise ArgumentError(f"device: {name!r} is not to be had on this machine; use 'auto' or 'cpu'.")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 instructions (on processors: AVX-512 BF16 or AMX), so that bf16 is faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


@dataclass(frozen=True)
class Compute:
    """A device with a precision and a memory layout: all a loop must know to run a model well.

    Attributes:
        device: where tensors live.
        bf16: whether the forward pass runs under bf16 autocast; weights and optimiser stay float32.
        channels_last: whether pictures and weights are laid out NHWC in memory.
    """

    device: torch.device
    bf16: bool
    channels_last: bool = True

    @classmethod
    def choose(cls, device: str = "auto", precision: str = "auto", layout: str = "auto") -> Compute:
        """bf16 where the device has the instructions for it, else fp32, and channels last, unless told otherwise; on a processor
        memory is kept from step to step."""
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        if layout not in LAYOUTS:
            raise UnknownNameError("layout", layout, LAYOUTS)
        resolved = resolve_device(device)
        if resolved.type == "cpu":
            keep_freed_memory()
        bf16 = has_bf16(resolved) if precision == "auto" else precision == "bf16"
        return cls(resolved, bf16, layout != "channels-first")

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"

    @property
    def layout_name(self) -> str:
        """The layout as :meth:`choose` is told it."""
        return "channels-last" if self.channels_last else "channels-first"

    def autocast(self) -> AbstractContextManager[object]:
        """The context under which the forward pass runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def place(self, model: ModuleT) -> ModuleT:
        """The model on the device, its weights in the chosen layout."""
        return model.to(self.device).to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    def layout(self, x: Tensor) -> Tensor:
        """A picture batch (b, c, h, w) in the chosen layout."""
        return x.contiguous(memory_format=self.memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format
