"""How does an RGB picture become an encoder's input? Explicit, and stored with the weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..colour import GREY_FORMULAS, luma, to_float
from ..runtime.errors import ArgumentError, UnknownNameError


@dataclass(frozen=True)
class Preprocess:
    """RGB to an encoder's input: grey by a formula (one channel) or RGB (three), then (x − mean) / std.

    Attributes:
        in_chans: 1 (grey) or 3 (RGB).
        grey: the grey formula of one-channel input: rec601, rec709, mean or lstar.
        mean, std: the normalisation, the same for each channel, in units of 0…1.
    """

    in_chans: int = 1
    grey: str = "rec601"
    mean: float = 0.5
    std: float = 0.25

    def __post_init__(self) -> None:
        if self.in_chans not in (1, 3):
            raise ArgumentError(
                f"in_chans: {self.in_chans} channels can't be made from RGB pictures; use 1 (grey) or 3 (RGB)."
            )
        if self.grey not in GREY_FORMULAS:
            raise UnknownNameError("grey", self.grey, GREY_FORMULAS)
        if isinstance(self.mean, bool) or not math.isfinite(self.mean):
            raise ArgumentError(f"mean: {self.mean} must be a finite number.")
        if not (self.std > 0 and math.isfinite(self.std)):
            raise ArgumentError(f"std: {self.std} must be a finite number above 0.")

    def __call__(self, rgb: Tensor) -> Tensor:
        """Network input.

        Args:
            rgb: (n, 3, h, w), uint8 or float in 0…1.

        Returns:
            float32 (n, in_chans, h, w).

        Raises:
            ArgumentError: the shape is not (n, 3, h, w), or the numbers are neither uint8 nor floating.
        """
        if rgb.ndim != 4 or rgb.shape[1] != 3:
            raise ArgumentError(
                f"images: shape {tuple(rgb.shape)} is not (n, 3, h, w); stack RGB pictures channel first."
            )
        if rgb.dtype != torch.uint8 and not rgb.is_floating_point():
            raise ArgumentError(
                f"images: {rgb.dtype} is neither uint8 in 0…255 nor floating in 0…1; convert them to uint8."
            )
        if self.in_chans == 1:
            return self.normalise(luma(rgb, self.grey))
        return self.normalise(to_float(rgb) if rgb.dtype == torch.uint8 else rgb.to(torch.float32))

    def normalise(self, x: Tensor) -> Tensor:
        """(x − mean) / std, for input that is grey or RGB in 0…1 already."""
        return (x - self.mean) / self.std

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
