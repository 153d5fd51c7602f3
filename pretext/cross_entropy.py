"""What does a prediction cost: for pixels of one colour each, and when a pixel may be several and pixels count differently?"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from ..runtime.loop import Loss


class PixelTargets(NamedTuple):
    """What the pixels of a batch are.

    Attributes:
        indices: int64 (b, n, h, w), the colours that share a pixel; the other k - n have no share of it.
        shares: float32 (b, n, h, w), sum 1 over n.
        weights: float32 (b, h, w), how much a pixel counts; None if all count alike.
        counted: bool (b,), whether a picture counts at all; None if all do.
    """

    indices: Int64[Tensor, "b n h w"]
    shares: Float32[Tensor, "b n h w"]
    weights: Float32[Tensor, "b h w"] | None = None
    counted: Bool[Tensor, " b"] | None = None


def pixel_cross_entropy(
    logits: Float[Tensor, "b k h w"], labels: Int64[Tensor, "b h w"], smoothing: float = 0.0
) -> Float32[Tensor, "b h w"]:
    """The cross-entropy of every pixel with its label, in nats; no mean, since a fused one over pixels has no deterministic kernel
    on CUDA.

    Args:
        logits: any precision; scored in float32.
        labels: one colour a pixel.
        smoothing: this part of each label is spread evenly over all k colours (Szegedy et al. 2016, section 7).
    """
    if logits.is_contiguous(memory_format=torch.channels_last):
        # as rows they need no copy: the colours of a pixel lie side by side
        rows = logits.permute(0, 2, 3, 1).flatten(0, 2).float()
        each = F.cross_entropy(rows, labels.flatten(), reduction="none", label_smoothing=smoothing)
        return each.view(labels.shape)
    return F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)


def soft_cross_entropy(logits: Float[Tensor, "b k h w"], targets: PixelTargets, smoothing: float = 0.0) -> Loss:
    """Σ w · H(target, softmax(logits)) over the pixels that count, and how many those are.

    The denominator counts pixels and not their weights: with weights of mean 1 over the training set, each batch is a fair
    sample of the whole loss, and one of rare colours does count more (Zhang et al. 2016, equation 2). It is 0, and so is the
    numerator, if no picture of the batch counts.

    Args:
        logits: any precision; scored in float32.
        targets: no (b, k, h, w) of targets is made of them: the n shares are enough.
        smoothing: as in :func:`pixel_cross_entropy`.
    """
    each = _cross_entropy(logits, targets, smoothing)
    if targets.weights is not None:
        each = each * targets.weights
    if targets.counted is None:
        return Loss.mean_of(each)
    counted = targets.counted.to(each.dtype)
    return Loss((each.sum((1, 2)) * counted).sum(), counted.sum() * (each.shape[1] * each.shape[2]))


def _cross_entropy(
    logits: Float[Tensor, "b k h w"], targets: PixelTargets, smoothing: float
) -> Float32[Tensor, "b h w"]:
    """The cross-entropy of every pixel, in nats."""
    indices, shares, colours = targets.indices, targets.shares, 1
    if logits.is_contiguous(memory_format=torch.channels_last):
        # The colours of a pixel lie side by side: as the last axis they need no copy, and 313 of them take half the time.
        logits, indices, shares = (x.permute(0, 2, 3, 1) for x in (logits, indices, shares))
        colours = 3
    log = logits.float().log_softmax(colours)
    each = -(log.gather(colours, indices) * shares).sum(colours)
    return (1 - smoothing) * each - smoothing * log.mean(colours) if smoothing else each
