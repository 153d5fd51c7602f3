"""Does a classifier that learned from true colours find the classes of painted pictures as well? Recolour-then-classify."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..colour import to_uint8
from ..runtime.errors import ArgumentError
from .baselines import Picture, grey_picture
from .sums import Sums, total_of

# RGB uint8 (b, 3, h, w) -> logits (b, classes)
Classify: TypeAlias = Callable[[Tensor], Tensor]

_JUDGED = ("painted", "grey", "colour")
RECOLOUR_METRICS = (*(f"recolour_top1_{name}" for name in _JUDGED), "recolour_score")


class RecolourQuality:
    """A streaming accumulator: `update` with batches, `compute` once at the end; it does not wait for the device.

    Source of the idea: Zhang, Isola & Efros 2016, "Colorful image colorization", section 3.1, who have a network trained on
    true colours classify painted pictures; the score between grey and colour is this project's.

    Args:
        classify: gives logits (b, classes) of RGB uint8 pictures (b, 3, h, w). It should have learned from true colour
            pictures that are not among the judged ones.

    >>> reddish = lambda rgb: torch.stack((rgb[:, 2], rgb[:, 0]), 1).float().mean((2, 3))  # class 0 is blue, 1 is red
    >>> true = torch.tensor([[10, 10, 250], [250, 10, 10]], dtype=torch.uint8).view(2, 3, 1, 1)
    >>> quality = RecolourQuality(reddish)
    >>> quality.update(true, true, torch.tensor([0, 1]))
    >>> quality.compute()["recolour_score"]
    1.0
    """

    def __init__(self, classify: Classify):
        self.classify = classify
        self._sums = Sums()
        self._images = 0

    @torch.no_grad()
    def update(
        self,
        # underscores: sizes that do not agree are the user's mistake, and get a sentence
        painted: UInt8[Tensor, "_b 3 _h _w"] | Float[Tensor, "_b 3 _h _w"],
        true: UInt8[Tensor, "_b 3 _h _w"],
        labels: Int64[Tensor, " _b"],
        grey: str = "rec601",
    ) -> None:
        """Count a batch.

        Args:
            painted: what the network painted, RGB uint8 in 0…255 or floating in 0…1.
            true: the true pictures.
            labels: the class of each.
            grey: the grey formula of the all-grey pictures, one of `colour.GREY_FORMULAS`.

        Raises ArgumentError for shapes that do not fit, also of what `classify` gives.
        """
        if painted.shape != true.shape or len(labels) != len(true):
            raise ArgumentError(
                f"painted, true, labels: got {tuple(painted.shape)}, {tuple(true.shape)} and {len(labels)}; they must agree."
            )
        self._images += len(true)
        for name, pictures in zip(_JUDGED, (painted, grey_picture(true, grey), true), strict=True):
            logits = self._logits(pictures)
            self._sums.add(f"{name} logits", logits)  # a sum that is not finite tells of any logit that is not
            self._sums.add(name, logits.argmax(1) == labels.to(logits.device))

    def merge(self, other: RecolourQuality) -> None:
        """Add what another accumulator counted (another process, another part of the data), by the same classifier."""
        self._sums.merge(other._sums)
        self._images += other._images

    def reduce(self) -> None:
        """Add up what all processes counted; called once, before `compute`, by all."""
        self._sums.reduce()
        self._images = total_of(self._images)

    def compute(self) -> dict[str, float | None]:
        """The metrics as `results.json` "colour" has them.

        recolour_top1_painted, recolour_top1_grey and recolour_top1_colour: share of the painted, the all-grey and the true
        pictures whose class is found. recolour_score = (painted - grey) / (colour - grey): 0 for pictures no better than grey
        ones, 1 for pictures as good as the true ones; None if colour is of no help to the classifier.

        Raises ArgumentError when nothing was counted, NotFiniteError when a logit was not finite.
        """
        if not self._images:
            raise ArgumentError(
                "RecolourQuality: no picture was counted; call update with at least one batch before compute."
            )
        totals = self._sums.totals()
        painted, grey, colour = (float(totals[name]) / self._images for name in _JUDGED)
        score = (painted - grey) / (colour - grey) if colour > grey else None
        return dict(zip(RECOLOUR_METRICS, (painted, grey, colour, score), strict=True))

    def _logits(self, pictures: Picture) -> Tensor:
        rgb = pictures if pictures.dtype == torch.uint8 else to_uint8(pictures)
        logits = self.classify(rgb)
        if logits.ndim != 2 or len(logits) != len(rgb):
            raise ArgumentError(
                f"classify: gave {tuple(logits.shape)} for {len(rgb)} pictures; needed are logits (b, classes)."
            )
        return logits


def no_recolour() -> dict[str, float | None]:
    """The metrics where no classifier judged: None for each."""
    return dict.fromkeys(RECOLOUR_METRICS)
