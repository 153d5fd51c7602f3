"""How well does a network tell the palette's labels, and how well are they told without it?"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..colour import Palette, grey_levels, shrink_to
from .baselines import LabelTable, label_tables
from .sums import Sums, total_of

LABEL_METRICS = ("cross_entropy_nats", "bits_per_pixel", "top1", "top5", "class_balanced_top1")
# the network; P(label); P(label | grey level)
PREFIXES = ("", "prior_", "grey_lookup_")
# A larger confusion matrix says nothing to a reader, and would be most of results.json.
MOST_CONFUSED = 64


class LabelQuality:
    """A streaming accumulator of what concerns labels; :class:`ColourQuality` holds one, and says what the numbers mean.

    Args:
        palette: what the logits refer to; its counts are the baselines.
    """

    def __init__(self, palette: Palette):
        self.palette = palette
        self.pixels = 0
        self._sums = Sums()
        self._baselines: dict[torch.device, tuple[LabelTable, LabelTable]] = {}

    def update(self, logits: Float[Tensor, "b k h2 w2"], true: UInt8[Tensor, "b 3 h w"]) -> None:
        """Counts a batch; labels are those of the true pictures, average-pooled to the logits' resolution."""
        pooled = shrink_to(true, *logits.shape[-2:])
        labels = self.palette.labels(pooled)  # (b, h', w')
        self.pixels += labels.numel()
        own = logits.float().log_softmax(1).gather(1, labels[:, None])  # (b, 1, h', w')
        own_logit = logits.gather(1, labels[:, None])
        index = torch.arange(self.palette.size, device=logits.device).view(1, -1, 1, 1)
        # the number of labels that stand before the true one; equals go by index, as in the baselines, so that an
        # undecided network is not called right
        before = (logits > own_logit) | ((logits == own_logit) & (index < labels[:, None]))
        self._count("", labels, own[:, 0], before.sum(1))
        if self.palette.size <= MOST_CONFUSED:
            pairs = labels * self.palette.size + logits.argmax(1)  # argmax gives the first of equals
            self._sums.count("confusion", pairs, self.palette.size**2)
        if labels.device not in self._baselines:
            self._baselines[labels.device] = label_tables(self.palette, labels.device)
        prior, lookup = self._baselines[labels.device]
        self._count("prior_", labels, *(table[labels] for table in prior))
        levels = grey_levels(pooled, self.palette.grey).long()
        self._count("grey_lookup_", labels, *(table[levels, labels] for table in lookup))

    def merge(self, other: LabelQuality) -> None:
        """Adds what another accumulator counted."""
        self.pixels += other.pixels
        self._sums.merge(other._sums)

    def reduce(self) -> None:
        """Adds up what all processes counted."""
        self._sums.reduce()
        self.pixels = total_of(self.pixels)

    def compute(self) -> dict[str, Any]:
        """The metrics with their baselines, and the confusion matrix; None for all if nothing was counted.

        Raises:
            NotFiniteError: the logits held a value that is not finite.
        """
        if not self.pixels:
            return no_labels()
        totals = self._sums.totals()
        results: dict[str, Any] = {}
        for prefix in PREFIXES:
            results |= {f"{prefix}{name}": value for name, value in self._metrics(prefix, totals).items()}
        size = self.palette.size
        confusion = totals["confusion"].view(size, size).tolist() if "confusion" in totals else None
        return results | {"confusion": confusion}

    def _count(
        self,
        prefix: str,
        labels: Int64[Tensor, "b h w"],
        log_probability: Float[Tensor, "b h w"],
        rank: Int64[Tensor, "b h w"],
    ) -> None:
        self._sums.add(f"{prefix}cross_entropy_nats", -log_probability)
        self._sums.add(f"{prefix}top5", rank < 5)
        # two cells a label: its pixels that were not found, and those that were
        self._sums.count(f"{prefix}hits", labels * 2 + (rank < 1), 2 * self.palette.size)

    def _metrics(self, prefix: str, totals: dict[str, Tensor]) -> dict[str, float | None]:
        nats = float(totals[f"{prefix}cross_entropy_nats"]) / self.pixels
        hits = totals[f"{prefix}hits"].view(-1, 2).to(torch.float64)
        hits = hits[hits.sum(1) > 0]  # of the labels that occur
        return {
            "cross_entropy_nats": nats,
            "bits_per_pixel": nats / math.log(2),
            "top1": float(hits[:, 1].sum()) / self.pixels,
            "top5": float(totals[f"{prefix}top5"]) / self.pixels if self.palette.size > 5 else None,
            "class_balanced_top1": float((hits[:, 1] / hits.sum(1)).mean()),
        }


def no_labels() -> dict[str, Any]:
    """The metrics of a task that predicts no labels: None for each."""
    return {f"{prefix}{name}": None for prefix in PREFIXES for name in LABEL_METRICS} | {"confusion": None}
