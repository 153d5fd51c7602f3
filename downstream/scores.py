"""How often is a classifier right, and which classes does it take for which?"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


def top_k_accuracy(logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"], k: int) -> float:
    """Share of images, in 0…1, whose class is among the k largest logits; a class with −∞ is never among them."""
    values, classes = logits.topk(k, dim=1)
    found = (classes == labels.to(logits.device)[:, None]) & (values > -torch.inf)
    return float(found.any(1).double().mean())


def confusion_counts(predictions: Int64[Tensor, " n"], labels: Int64[Tensor, " n"], classes: int) -> np.ndarray:
    """Images by true class (row) and predicted class (column): int64 (classes, classes)."""
    pairs = labels.cpu() * classes + predictions.cpu()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes).numpy()
