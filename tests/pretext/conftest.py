"""Pictures, batches and numbers that the tests of tasks share."""

from __future__ import annotations

import torch

from pretint.data import Batch
from pretint.runtime.loop import Loss


def pictures(n: int = 3, height: int = 8, width: int = 8, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def batch(rgb: torch.Tensor) -> Batch:
    return Batch(rgb, torch.arange(len(rgb)))


def value(loss: Loss) -> float:
    return float(loss.numerator / loss.denominator)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
