"""Is a classifier as sure as it is right, how right is it by class, and which classes does it take for which?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from ..runtime.errors import ArgumentError

Confusion = Integer[np.ndarray, "true predicted"] | Sequence[Sequence[int]]


class ConfusedPair(NamedTuple):
    """A class that is taken for another: so many images, and their share (0…1) of all images of the true class."""

    true: str
    predicted: str
    images: int
    share: float


def expected_calibration_error(
    probabilities: Float[Tensor, "n c"], labels: Int64[Tensor, " m"], *, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy, 0…1: 0 when of all images judged with 80 % confidence 80 % are judged rightly.

    Images are put into bins of equal width by the probability of the class predicted for them; the gap |accuracy − mean
    confidence| of each bin counts by its share of the images.

    Args:
        probabilities: of the classes, each row in 0…1 with sum 1.
        labels: the true classes.

    Raises:
        ArgumentError: no images, lengths that differ, rows that are no probabilities, or `bins` below 1.

    Source:
        Guo et al. 2017, "On calibration of modern neural networks", equation 3; 15 bins as there. A confidence on the
        border of two bins counts in the upper one (in the lower one there).
    """
    if bins < 1:
        raise ArgumentError(f"bins: got {bins}; use 1 or more, such as 15.")
    if not len(labels) or len(labels) != len(probabilities):
        raise ArgumentError(
            f"probabilities, labels: got {len(probabilities)} and {len(labels)}; give as many of both, 1 or more."
        )
    p = probabilities.detach().cpu().double()
    # written so that NaN is refused too
    if not (float(p.min()) >= 0 and float((p.sum(1) - 1).abs().max()) < 1e-2):
        raise ArgumentError(
            "probabilities: some rows are negative, not finite, or do not add up to 1; give the softmax of logits."
        )
    confidence, predicted = p.max(1)
    # torchmetrics takes numbers above 1, which rounding may leave, for logits, and has a bin of its own for exactly 1.
    confidence = confidence.clamp_max(math.nextafter(1.0, 0.0))
    return float(binary_calibration_error(confidence, (predicted == labels.cpu()).long(), n_bins=bins, norm="l1"))


def per_class_accuracy(confusion: Confusion) -> list[float | None]:
    """Share of each class's images that are predicted rightly, 0…1; None for a class without images.

    Args:
        confusion: images by true class (row) and predicted class (column).

    Raises:
        ArgumentError: the matrix is not square.

    >>> per_class_accuracy([[8, 2], [5, 5]])
    [0.8, 0.5]
    """
    counts = _square(confusion)
    images = counts.sum(1)
    return [int(counts[c, c]) / int(images[c]) if images[c] else None for c in range(len(counts))]


def most_confused(
    confusion: Confusion, class_names: Sequence[str] | None = None, *, top: int = 5
) -> list[ConfusedPair]:
    """The pairs (true class, another class that was predicted) with the largest share of the true class's images.

    Equal shares are ordered by the number of images, then by class. Pairs that never occur are left out.

    Args:
        confusion: images by true class (row) and predicted class (column).
        class_names: names of the classes; None: their numbers.
        top: pairs at most.

    Raises:
        ArgumentError: the matrix is not square, or there is not one name a class.

    >>> most_confused([[8, 2], [5, 5]], ["cat", "dog"], top=1)
    [ConfusedPair(true='dog', predicted='cat', images=5, share=0.5)]
    """
    counts = _square(confusion)
    names = [str(name) for name in class_names] if class_names else [str(c) for c in range(len(counts))]
    if len(names) != len(counts):
        raise ArgumentError(f"class_names: got {len(names)} for {len(counts)} classes; give one name a class.")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = [(int(i), int(j)) for i, j in np.argwhere(counts) if i != j]
    wrong.sort(key=lambda pair: (-shares[pair], -counts[pair]))
    return [ConfusedPair(names[i], names[j], int(counts[i, j]), float(shares[i, j])) for i, j in wrong[:top]]


def _square(confusion: Confusion) -> Integer[np.ndarray, "c c"]:
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ArgumentError(f"confusion: got shape {counts.shape}; a confusion matrix is square, classes by classes.")
    return counts
