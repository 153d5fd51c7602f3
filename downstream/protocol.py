"""What do all probes share? Checked input, the training images that a choice is made on, and the form of a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..data import class_balanced_subset
from ..runtime.errors import ArgumentError, NotFiniteError
from .features import MOST_NUMBERS, is_finite
from .scores import confusion_counts, top_k_accuracy

Layers = dict[str, tuple[Tensor, ...]]
# All layers of one pooling side by side (Hariharan et al. 2015; Larsson et al. 2016).
HYPERCOLUMN = "hypercolumn"


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found. Accuracies are fractions of 1, of the test images unless said otherwise.

    Attributes:
        top1, top5: of the layer that was best on the held-out training images; top5 is None with fewer than 6 classes.
        layer: its name (:data:`HYPERCOLUMN` is the concatenation of all).
        chosen: the settings chosen for it on the held-out images: `learning_rate` and `weight_decay` of the linear probe,
            `alpha` of the ridge probe, `k` of kNN.
        per_layer: for each layer `validation_top1` (of the held-out images), `test_top1` and what was chosen for it.
        confusion: int64 (c, c), test images by true class (row) and predicted class (column).
        predictions: int64 (m,), the predicted class of each test image.
        probabilities: float32 (m, c) on the CPU, of the classes of each test image, for calibration: softmax of the linear
            probe's logits, shares of kNN's votes; None for the ridge probe, whose outputs are none.
        seed: fixed the held-out images and the order of the batches.
    """

    top1: float
    top5: float | None
    layer: str
    chosen: dict[str, float | int]
    per_layer: dict[str, dict[str, float | int]]
    confusion: np.ndarray
    predictions: np.ndarray
    seed: int
    probabilities: Float32[Tensor, "m c"] | None = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; without what is as long as the test split."""
        short = {k: v for k, v in vars(self).items() if k not in ("predictions", "probabilities")}
        return short | {"confusion": self.confusion.tolist()}


class Splits(NamedTuple):
    """The input of a probe, checked: layer name -> float32 column blocks, and int64 labels on the CPU."""

    train: Layers
    labels: Int64[Tensor, " n"]
    test: Layers
    test_labels: Int64[Tensor, " m"]
    classes: int

    def device(self, wanted: torch.device | str | None) -> torch.device:
        """The device asked for, or the one where the training features are."""
        return torch.device(wanted) if wanted is not None else next(iter(self.train.values()))[0].device


def checked_splits(
    train_features: Tensor | Mapping[str, Tensor],
    train_labels: Tensor | np.ndarray,
    test_features: Tensor | Mapping[str, Tensor],
    test_labels: Tensor | np.ndarray,
    classes: int | None,
    *,
    join: bool = True,
) -> Splits:
    """Features and labels of two splits that fit each other; the number of classes, if None, is the largest label + 1.

    Raises ArgumentError when lengths, widths, layers, labels or classes do not fit, NotFiniteError for features that are
    not finite, naming the layer.
    """
    train, test = paired_layers(train_features, test_features, join=join)
    labels = _checked_labels("train_labels", train_labels, train)
    labels_of_test = _checked_labels("test_labels", test_labels, test)
    seen, test_seen = set(labels.unique().tolist()), set(labels_of_test.unique().tolist())
    if len(seen) < 2:
        raise ArgumentError(f"train_labels: only class {min(seen)} occurs; a probe needs images of two or more.")
    if unseen := sorted(test_seen - seen):
        raise ArgumentError(f"test_labels: classes {unseen} occur in no training image; use the same classes in both.")
    count = max(seen) + 1 if classes is None else classes
    if min(seen) < 0 or max(seen) >= count:
        raise ArgumentError(f"train_labels: from {min(seen)} to {max(seen)}; {count} classes are 0 to {count - 1}.")
    return Splits(train, labels, test, labels_of_test, count)


def _checked_labels(name: str, given: Tensor | np.ndarray, layers: Layers) -> Int64[Tensor, " n"]:
    labels = torch.as_tensor(given).cpu()
    if labels.ndim != 1 or labels.dtype == torch.bool or labels.is_floating_point():
        raise ArgumentError(f"{name}: got {labels.dtype} {tuple(labels.shape)}; use one integer per image.")
    for layer, (part, *_) in layers.items():
        if len(part) != len(labels):
            raise ArgumentError(f"{name}: got {len(labels)} for {len(part)} images in layer {layer!r}; use as many.")
    return labels.long()


def paired_layers(
    train: Tensor | Mapping[str, Tensor], test: Tensor | Mapping[str, Tensor], *, join: bool = True
) -> tuple[Layers, Layers]:
    """Layer name -> float32 column blocks of two splits; with `join`, "hypercolumn" lists the blocks of every layer
    instead of copying them, and "hypercolumn/2x2" those of every layer whose name ends in /2x2.

    A bare tensor is the one layer "features". Raises ArgumentError when a layer is no float (n, d) with n, d > 0 or the
    splits differ in layers or widths, NotFiniteError when a layer holds NaN or infinity.
    """
    both: list[Layers] = []
    for name, given in (("train_features", train), ("test_features", test)):
        features = dict(given) if isinstance(given, Mapping) else {"features": given}
        if not features or any(layer.partition("/")[0] == HYPERCOLUMN for layer in features):
            raise ArgumentError(f"{name}: got layers {list(features)}; give one or more, none called {HYPERCOLUMN!r}.")
        for layer, x in features.items():
            features[layer] = checked_features(x, layer, name)
        layers: Layers = {layer: (x,) for layer, x in features.items()}
        both.append(layers | _joined(features) if join else layers)
    widths, test_widths = ({layer: sum(x.shape[1] for x in parts) for layer, parts in side.items()} for side in both)
    if widths != test_widths:
        raise ArgumentError(f"test_features: layers and widths {test_widths} differ from those of training, {widths}.")
    return both[0], both[1]


def checked_features(x: Tensor, layer: str, name: str) -> Float32[Tensor, "n d"]:
    """One layer as float32; raises ArgumentError unless it is float (n, d) with n, d > 0, NotFiniteError unless finite."""
    if x.ndim != 2 or not x.is_floating_point() or not x.numel():
        raise ArgumentError(f"{name}: layer {layer!r} is {x.dtype} {tuple(x.shape)}; use floats (images, width).")
    x = x.detach().float()
    if not is_finite(x):
        raise NotFiniteError(f"{name}: layer {layer!r} holds NaN or infinity; check the encoder that made it.")
    return x


def _joined(features: Mapping[str, Tensor]) -> Layers:
    """For each pooling of two layers or more, the blocks of its layers together; grids only up to `MOST_NUMBERS` in all, since the
    work grows with the cube of the width."""
    poolings: dict[str, list[Tensor]] = {}
    for layer, x in features.items():
        _, slash, pooling = layer.partition("/")
        poolings.setdefault(f"{HYPERCOLUMN}{slash}{pooling}", []).append(x)
    return {
        name: tuple(blocks)
        for name, blocks in poolings.items()
        if len(blocks) > 1 and (name == HYPERCOLUMN or sum(x.shape[1] for x in blocks) <= MOST_NUMBERS)
    }


def held_out(labels: Int64[Tensor, " n"], holdout: float, seed: int) -> Bool[Tensor, " n"]:
    """Which training images the choice is made on: seeded, the same share of every class, every class on both sides.

    Raises ArgumentError when the share is not between 0 and 1, or a class has too few images for both sides.
    """
    if not 0 < holdout < 1:
        raise ArgumentError(f"holdout: got {holdout}; use a share between 0 and 1, such as 0.1.")
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[class_balanced_subset(labels, holdout, seed)] = True
    if lacking := sorted(set(labels.tolist()) - set(labels[~held].tolist())):
        has = ", ".join(f"class {label} has {int((labels == label).sum())}" for label in lacking[:10])
        raise ArgumentError(
            f"train_labels: {has} image(s), too few to hold out a share of {holdout:g}; give 2 or more."
        )
    return held


class Probed(NamedTuple):
    """What a probe found in one layer."""

    validation: tuple[float, float]  # held-out top1, and what parts equal ones: larger is better
    chosen: dict[str, float | int]
    scores: Tensor  # float (m, c) of the test images, on the CPU


def summarise(
    probed: Mapping[str, Probed],
    splits: Splits,
    seed: int,
    probabilities: Callable[[Float[Tensor, "m c"]], Float32[Tensor, "m c"]] | None,
) -> ProbeResult:
    """The table of all layers, and the figures of the one that was best on the held-out images.

    `probabilities` makes them of a layer's scores, where that can be done.
    """
    labels, classes = splits.test_labels, splits.classes
    per_layer: dict[str, dict[str, float | int]] = {
        layer: {
            "validation_top1": one.validation[0],
            # not top_k_accuracy, which may part equal scores in another way than the predictions
            "test_top1": float((one.scores.argmax(1) == labels).double().mean()),
            **one.chosen,
        }
        for layer, one in probed.items()
    }
    layer = max(probed, key=lambda name: probed[name].validation)
    scores = probed[layer].scores
    predictions = scores.argmax(1)
    return ProbeResult(
        top1=per_layer[layer]["test_top1"],
        top5=top_k_accuracy(scores, labels, 5) if classes > 5 else None,
        layer=layer,
        chosen=probed[layer].chosen,
        per_layer=per_layer,
        confusion=confusion_counts(predictions, labels, classes),
        predictions=predictions.numpy(),
        seed=seed,
        probabilities=None if probabilities is None else probabilities(scores),
    )
