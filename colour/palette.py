"""How does a picture become a map of palette labels, and a prediction a picture again?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.processes import broadcast_from_main, is_main
from .histogram import fit_palette, in_parts, rgb_histogram
from .spaces import GREY_FORMULAS, grey_levels, lab_to_rgb, luma, to_uint8, ycbcr_to_rgb
from .tables import check_space, colour_index, label_table

# How many coordinates a colour has in each palette space.
_CHANNELS = {"rgb": 3, "lab": 3, "ab": 2, "cbcr": 2}
# The lightness at which swatches of a chroma palette are shown: most chromas of photographs exist there.
_SWATCH_LSTAR, _SWATCH_Y = 60.0, 0.55


@dataclass(frozen=True, eq=False)
class Palette:
    """k colours, and how often each of them occurred in the training pictures.

    Attributes:
        space: where distances are taken: "rgb", "lab", "ab" or "cbcr".
        centres: (k, c) in the units of the space (rgb 0…1, Lab's own units, cbcr -0.5…0.5); the order is
            :func:`fit_palette`'s.
        prior: (k,) share of the training pixels with each label; sums to 1, zeros are possible.
        grey_lookup: (256, k) training pixels of each grey level (0…255) and label: the table of the best guess from a
            pixel's own grey value alone.
        grey: the formula of those grey levels, one of `GREY_FORMULAS`.

    Raises:
        UnknownNameError: an unknown `space` or `grey`.
        ArgumentError: arrays that do not fit each other, or centres that are not finite.

    >>> black_and_white = Palette(
    ...     space="rgb",
    ...     centres=torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]),
    ...     prior=torch.tensor([0.5, 0.5], dtype=torch.float64),
    ...     grey_lookup=torch.ones(256, 2, dtype=torch.float64),
    ... )
    >>> black_and_white.labels(torch.tensor([10, 250], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)).tolist()
    [[[0, 1]]]
    """

    space: str
    centres: Float32[Tensor, "k c"]
    prior: Float64[Tensor, " k"]
    grey_lookup: Float64[Tensor, "256 k"]
    grey: str = "rec601"
    # One label table per device, made when it is first needed.
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_space(self.space)
        if self.grey not in GREY_FORMULAS:
            raise UnknownNameError("grey formula", self.grey, GREY_FORMULAS)
        channels = _CHANNELS[self.space]
        if self.centres.ndim != 2 or len(self.centres) < 2 or self.centres.shape[1] != channels:
            raise ArgumentError(
                f"centres: a palette in the space {self.space!r} needs a table of at least 2 × {channels} numbers, "
                f"got one of {tuple(self.centres.shape)}."
            )
        if tuple(self.prior.shape) != (self.size,) or tuple(self.grey_lookup.shape) != (256, self.size):
            raise ArgumentError(
                f"prior, grey_lookup: {self.size} centres need ({self.size},) and (256, {self.size}), "
                f"got {tuple(self.prior.shape)} and {tuple(self.grey_lookup.shape)}."
            )
        if not bool(self.centres.isfinite().all()):
            raise ArgumentError("centres: a palette's colours must be finite numbers, got some that are not.")
        for name, counts in (("prior", self.prior), ("grey_lookup", self.grey_lookup)):
            if not bool((counts.isfinite() & (counts >= 0)).all()):
                raise ArgumentError(f"{name}: shares and counts are finite and not negative, got some that are not.")

    @property
    def size(self) -> int:
        """The number of colours, k."""
        return len(self.centres)

    def labels(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Int64[Tensor, "b h w"]:
        """The nearest palette colour of every pixel; exact, the lowest index wins a tie.

        One look-up a pixel in a table of all 256³ colours, made on the first call (about a second) and copied once to
        each device that asks.

        Raises:
            ArgumentError: not uint8 (b, 3, h, w).
        """
        if rgb.dtype != torch.uint8 or rgb.ndim != 4 or rgb.shape[1] != 3:
            raise ArgumentError(
                f"rgb: labels are read off uint8 pictures (batch, 3, height, width), "
                f"got {rgb.dtype} {tuple(rgb.shape)}."
            )
        index = colour_index(rgb)
        # index_select with int32 is 3 times quicker on a CPU than table[index], and needs no int64 index.
        return self._table(rgb.device).index_select(0, index.flatten()).to(torch.int64).view(index.shape)

    def _table(self, device: torch.device) -> Tensor:
        """The label table on a device."""
        if device not in self._tables:
            cpu = torch.device("cpu")
            if cpu not in self._tables:
                self._tables[cpu] = label_table(self.centres, self.space)
            self._tables[device] = self._tables[cpu].to(device)
        return self._tables[device]

    def decode(self, values: Float[Tensor, "b c h w"], grey: Float[Tensor, "b 1 h w"]) -> Float32[Tensor, "b 3 h w"]:
        """Turn colours or chromas in the units of the space into a picture.

        Args:
            values: for "rgb" and "lab" the colour itself, for "ab" and "cbcr" the chroma (c = 2).
            grey: the grey picture in 0…1 by the palette's formula; gives chroma spaces their lightness ("ab": the grey
                picture's L*; "cbcr": Y = grey), and is not looked at otherwise.

        Returns:
            RGB, clipped to 0…1.

        Raises:
            ArgumentError: the number of channels does not fit the space.
        """
        if values.ndim != 4 or values.shape[1] != _CHANNELS[self.space]:
            raise ArgumentError(
                f"values: the space {self.space!r} needs (batch, {_CHANNELS[self.space]}, height, width), "
                f"got {tuple(values.shape)}."
            )
        values = values.to(torch.float32)
        if self.space == "rgb":
            return values.clamp(0, 1)
        if self.space == "lab":
            return lab_to_rgb(values)
        grey = grey.to(torch.float32)
        if self.space == "ab":
            # A grey picture of rec601 levels is shown as R = G = B = grey; its L* is what the eye gets.
            lightness = grey if self.grey == "lstar" else luma(grey.expand(-1, 3, -1, -1), "lstar")
            return lab_to_rgb(torch.cat((lightness * 100, values), dim=1))
        if self.grey == "lstar":
            neutral = torch.zeros_like(grey)
            grey = lab_to_rgb(torch.cat((grey * 100, neutral, neutral), dim=1))[:, :1]
        return ycbcr_to_rgb(torch.cat((grey, values), dim=1))

    def colours(self) -> UInt8[Tensor, "k 3"]:
        """One swatch for each label, uint8 RGB; chroma palettes are shown at a middle lightness."""
        values = self.centres.t()[None, :, :, None]  # (1, c, k, 1)
        if self.space in ("ab", "cbcr"):
            level = torch.full_like(values[:, :1], _SWATCH_LSTAR if self.space == "ab" else _SWATCH_Y)
            joined = torch.cat((level, values), dim=1)
            rgb = lab_to_rgb(joined) if self.space == "ab" else ycbcr_to_rgb(joined)
        else:
            rgb = self.decode(values, values[:, :1])
        return to_uint8(rgb)[0, :, :, 0].t().contiguous()

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and strings, for JSON; :meth:`from_dict` gives the same palette to the bit."""
        return {
            "space": self.space,
            "centres": self.centres.tolist(),
            "prior": self.prior.tolist(),
            "grey_lookup": self.grey_lookup.tolist(),
            "grey": self.grey,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Palette:
        """The palette that :meth:`to_dict` wrote.

        Raises:
            ArgumentError, UnknownNameError: something is missing, or does not fit.
        """
        try:
            if not isinstance(saved["space"], str) or not isinstance(saved["grey"], str):
                raise TypeError("space and grey are words")
            return cls(
                space=saved["space"],
                centres=torch.tensor(saved["centres"], dtype=torch.float32),
                prior=torch.tensor(saved["prior"], dtype=torch.float64),
                grey_lookup=torch.tensor(saved["grey_lookup"], dtype=torch.float64),
                grey=saved["grey"],
            )
        except KeyError as missing:
            raise ArgumentError(f"palette: the saved palette lacks {missing}; fit it again.") from missing
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ArgumentError(f"palette: what was saved is no palette ({error}); fit it again.") from error


def build_palette(
    batches: Callable[[], Iterable[UInt8[Tensor, "_ 3 _ _"]]],
    k: int = 24,
    space: str = "rgb",
    grey: str = "rec601",
    seed: int = 0,
) -> Palette:
    """Fit a palette to pictures and count how often each colour occurs, in two passes over the pictures.

    With several processes the main one does both and sends the result to the others; all of them must call this.

    Args:
        batches: called twice; gives the same uint8 pictures each time, on any device, in any batching.
        k: how many colours.
        space: one of `PALETTE_SPACES`.
        grey: the grey formula of the look-up table.
        seed: of the k-means start.

    Raises:
        ArgumentError: no pictures; `k` below 2 or above the number of distinct colours.
        UnknownNameError: an unknown `space` or `grey`.
    """
    check_space(space)
    if grey not in GREY_FORMULAS:
        raise UnknownNameError("grey formula", grey, GREY_FORMULAS)
    centres = torch.zeros(max(k, 0), _CHANNELS[space])
    if is_main():
        centres = fit_palette(rgb_histogram(batches()), k, space, seed)
    return count_palette(broadcast_from_main(centres), space, batches, grey)


def count_palette(
    centres: Float32[Tensor, "k c"],
    space: str,
    batches: Callable[[], Iterable[UInt8[Tensor, "_ 3 _ _"]]],
    grey: str = "rec601",
) -> Palette:
    """The palette of given colours: how often each occurs is counted in one pass over the pictures.

    With several processes the main one counts and sends the result to the others; all of them must call this.

    Args:
        centres: (k, c) in the units of the space, the same in all processes.
        space: one of `PALETTE_SPACES`.
        batches: called once; gives uint8 pictures on any device, in any batching.
        grey: the grey formula of the look-up table.

    Raises:
        ArgumentError: no pictures, or centres that do not fit the space.
        UnknownNameError: an unknown `space` or `grey`.
    """
    counts = torch.zeros(256, len(centres), dtype=torch.float64)
    draft = Palette(space, centres, counts[0], counts, grey)
    if is_main():
        counts = _count_grey_and_label(batches(), draft)
    counts = broadcast_from_main(counts)
    palette = Palette(space, centres, counts.sum(0) / counts.sum(), counts, grey)
    palette._tables.update(draft._tables)
    return palette


def _count_grey_and_label(batches: Iterable[UInt8[Tensor, "_ 3 _ _"]], palette: Palette) -> Float64[Tensor, "256 k"]:
    """How many pixels have each pair of grey level and label; whole numbers, exact up to 2^53."""
    totals: Tensor | None = None
    for batch in batches:
        if totals is None:
            totals = torch.zeros(256 * palette.size, dtype=torch.int64, device=batch.device)
        for rgb in in_parts(batch):
            level = grey_levels(rgb, palette.grey).to(torch.int64)
            pair = level.mul_(palette.size).add_(palette.labels(rgb)).flatten()
            totals.scatter_add_(0, pair, torch.ones_like(pair))
    if totals is None:
        raise ArgumentError(
            "batches: there is no picture to count colours in; at least one is needed, on a second pass too."
        )
    return totals.cpu().to(torch.float64).view(256, palette.size)
