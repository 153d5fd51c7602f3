"""What does a probe make of five labelled images a class? Accuracy over several draws of them, mean and spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data import few_shot_subset
from ..runtime.errors import ArgumentError
from .protocol import ProbeResult, checked_splits
from .ridge import ridge_probe

PER_CLASS = (5, 10, 25)


@dataclass(frozen=True)
class FewShotResult:
    """What a probe found on few labels. Accuracies are fractions of 1, of all test images.

    Attributes:
        per_class: labelled images of each class.
        draws: what the probe found for each draw of them; its `seed` fixed the draw.
    """

    per_class: int
    draws: tuple[ProbeResult, ...]

    @property
    def top1(self) -> float:
        """Mean over the draws, each with the layer that it chose."""
        return fmean(draw.top1 for draw in self.draws)

    @property
    def top1_sd(self) -> float | None:
        """Standard deviation of a draw (n − 1 in the denominator); None for one draw."""
        return stdev(draw.top1 for draw in self.draws) if len(self.draws) > 1 else None

    @property
    def top5(self) -> float | None:
        """Mean over the draws; None with fewer than 6 classes."""
        known = [draw.top5 for draw in self.draws if draw.top5 is not None]
        return fmean(known) if known else None

    @property
    def per_layer(self) -> dict[str, dict[str, float | None]]:
        """For each layer `test_top1`, the mean over the draws, and `test_top1_sd`."""
        table = {}
        for layer in self.draws[0].per_layer:
            found = [draw.per_layer[layer]["test_top1"] for draw in self.draws]
            table[layer] = {"test_top1": fmean(found), "test_top1_sd": stdev(found) if len(found) > 1 else None}
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON."""
        names = ("per_class", "top1", "top1_sd", "top5", "per_layer")
        return {name: getattr(self, name) for name in names} | {"draws": [draw.to_dict() for draw in self.draws]}


def few_shot(
    train_features: Float[Tensor, "n d"] | Mapping[str, Tensor],
    train_labels: Tensor | np.ndarray,
    test_features: Float[Tensor, "m d"] | Mapping[str, Tensor],
    test_labels: Tensor | np.ndarray,
    *,
    per_class: Sequence[int] = PER_CLASS,
    seeds: Sequence[int] = range(5),
    probe: Callable[..., ProbeResult] = ridge_probe,
    holdout: float = 0.2,
    classes: int | None = None,
    device: torch.device | str | None = None,
) -> dict[int, FewShotResult]:
    """A probe on exactly so many training images of each class, averaged over several draws; tested on all test images.

    Which images are drawn decides more than anything else when they are few, so one draw says little. Fewer images of a
    seed are a part of more. The probe's settings and layer are chosen on a share of the drawn images, nothing else.

    Args:
        train_features, train_labels, test_features, test_labels, classes, device: as the probe takes them.
        per_class: numbers of labelled images of each class, 2 or more: one at least is held out.
        seeds: one draw for each.
        probe: :func:`ridge_probe`, :func:`linear_probe`, or one of them with settings (`functools.partial`).
        holdout: share of the drawn images that the probe chooses on; of five, one.

    Returns:
        For each number of images a class what was found.

    Raises:
        ArgumentError: no draw, fewer than two images a class, or what the probe raises.
        DataError: a class has fewer images than asked for.
        NotFiniteError: features with NaN or infinity; names the layer.
    """
    if not seeds:
        raise ArgumentError("seeds: there are none; give one for each draw, such as range(5).")
    if not per_class or min(per_class) < 2:
        raise ArgumentError(f"per_class: got {tuple(per_class)}; use 2 or more, one of them to choose on.")
    splits = checked_splits(train_features, train_labels, test_features, test_labels, classes, join=False)
    train, test = ({layer: parts[0] for layer, parts in side.items()} for side in (splits.train, splits.test))

    def draw(count: int, seed: int) -> ProbeResult:
        ids = few_shot_subset(splits.labels, count, seed)
        drawn = {layer: x[ids.to(x.device)] for layer, x in train.items()}
        return probe(
            drawn,
            splits.labels[ids],
            test,
            splits.test_labels,
            holdout=holdout,
            seed=seed,
            classes=splits.classes,
            device=device,
        )

    return {count: FewShotResult(count, tuple(draw(count, seed) for seed in seeds)) for count in per_class}
