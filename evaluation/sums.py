"""What is added up over a stream of batches, without waiting for the device?"""

from __future__ import annotations

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ..runtime.errors import ArgumentError, NotFiniteError
from ..runtime.processes import sum_over_processes


class Sums:
    """Named sums (float64) and counts (int64) that grow batch by batch, so that any batching gives the same numbers.

    They lie on the device of what is added; on the CPU where the device has no float64.
    """

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}

    def add(self, name: str, values: Shaped[Tensor, ...], dim: int | None = None) -> None:
        """Adds the sum of `values`: of all of them, or along one axis."""
        values = _with_float64(values)
        self._grow(name, values.sum(dtype=torch.float64) if dim is None else values.sum(dim, dtype=torch.float64))

    def count(self, name: str, numbers: Int64[Tensor, ...], size: int) -> None:
        """Counts how often each of the numbers 0 … `size` - 1 occurs: a total of shape (size,)."""
        flat = _with_float64(numbers).flatten()
        counts = torch.zeros(size, dtype=torch.int64, device=flat.device)
        self._grow(name, counts.scatter_add_(0, flat, torch.ones_like(flat)))

    def merge(self, other: Sums) -> None:
        """Adds what other sums hold."""
        for name, total in other._totals.items():
            self._grow(name, total)

    def reduce(self) -> None:
        """Adds up what all processes hold; each of them must have counted the same names, and call this once at the end."""
        for name in sorted(self._totals):
            self._totals[name] = sum_over_processes(self._totals[name])

    def totals(self) -> dict[str, Tensor]:
        """All totals by name, on the CPU.

        Raises:
            NotFiniteError: one of them is not finite.
        """
        totals = {name: total.cpu() for name, total in self._totals.items()}
        for name, total in totals.items():
            if not bool(total.isfinite().all()):
                raise NotFiniteError(
                    f"{name} is {float(total.sum())}: the painted pictures or the logits hold values that are not "
                    "finite."
                )
        return totals

    def _grow(self, name: str, total: Tensor) -> None:
        known = self._totals.get(name)
        if known is not None and known.shape != total.shape:
            raise ArgumentError(
                f"{name}: totals of {tuple(known.shape)} and {tuple(total.shape)} were counted differently and can't "
                "be added."
            )
        self._totals[name] = total if known is None else known + total.to(known.device)


def _with_float64(values: Tensor) -> Tensor:
    return values.cpu() if values.device.type == "mps" else values


def total_of(count: int) -> int:
    """A count of this process with those of all others."""
    return int(sum_over_processes(torch.tensor(count)))
