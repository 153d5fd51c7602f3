"""Which class do an image's nearest neighbours among the training images have? kNN on frozen features, all k in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from ..runtime.errors import ArgumentError
from .protocol import Probed, ProbeResult, checked_splits, held_out, summarise

KS = (1, 5, 10, 20, 50, 100, 200)
_SIMILARITIES = 1 << 25  # numbers held at a time: 128 MiB


@dataclass(frozen=True)
class NeighboursResult(ProbeResult):
    """What kNN found: a :class:`ProbeResult`, and every k.

    Attributes:
        per_k: for each layer and each k `validation_top1` and `test_top1`; the latter is for showing, never for choosing.
    """

    per_k: dict[str, dict[int, dict[str, float]]]


def knn(
    train_features: Float[Tensor, "n d"] | Mapping[str, Tensor],
    train_labels: Tensor | np.ndarray,
    test_features: Float[Tensor, "m d"] | Mapping[str, Tensor],
    test_labels: Tensor | np.ndarray,
    *,
    ks: Sequence[int] = KS,
    temperature: float = 0.07,
    weighted: bool = True,
    holdout: float = 0.1,
    seed: int = 0,
    classes: int | None = None,
    chunk: int | None = None,
    device: torch.device | str | None = None,
) -> NeighboursResult:
    """k nearest neighbours by cosine similarity on frozen features; k is chosen on held-out training images.

    The seeded, class-balanced `holdout` of the training images looks for its neighbours among the others, and the k with
    the best accuracy there (equal ones: the smaller) is the layer's; then every test image looks for its neighbours among
    all training images, once for all k. The headline is the layer with the best held-out accuracy.

    Equal votes go to the class with the lower number, as in scikit-learn's KNeighborsClassifier. Which of several training
    images at the same similarity are the last to belong to the k nearest is left open, there as here.

    Args:
        train_features, test_features: float (n, d) and (m, d), or dicts of layers. They are divided by their length and
            otherwise taken as they are, as in Wu et al.; a feature of zeros is as similar to all. Layers are not
            concatenated: in a sum of similarities the layer with the longest features would decide alone.
        train_labels, test_labels: integers from 0, (n,) and (m,), tensor or array.
        ks: numbers of neighbours.
        temperature: T of the weighted vote, above 0.
        weighted: a neighbour of similarity s has exp(s/T) votes; False: one.
        holdout: share of the training images to choose on, in (0, 1).
        classes: number of classes; None: the largest label + 1.
        chunk: images that look for neighbours at a time; None: as many as keep their similarities under 128 MiB.
        device: where to compute; None: where the features are.

    Raises:
        ArgumentError: lengths, widths, layers or classes do not fit each other; only one class; a test class that
            training lacks; too few images of a class to hold one out; more neighbours than images; a number out of range.
        NotFiniteError: features with NaN or infinity; names the layer.

    Source:
        Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4: the vote
        and T = 0.07, with k = 200 there. The choice of k on held-out training images is this project's.

    >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> result = knn(x[:150], y[:150], x[150:], y[150:], ks=(1, 5, 25))
    >>> result.top1 > 0.7, list(result.per_k["features"])
    (True, [1, 5, 25])
    """
    if not ks or min(ks) < 1:
        raise ArgumentError(f"ks: got {tuple(ks)}; use one or more numbers of neighbours, from 1.")
    if not 0 < temperature < math.inf:
        raise ArgumentError(f"temperature: got {temperature}; use a number above 0, such as 0.07.")
    if chunk is not None and chunk < 1:
        raise ArgumentError(f"chunk: got {chunk}; use 1 or more.")
    splits = checked_splits(train_features, train_labels, test_features, test_labels, classes, join=False)
    held = held_out(splits.labels, holdout, seed)
    if max(ks) > (kept := int((~held).sum())):
        raise ArgumentError(
            f"ks: {max(ks)} neighbours are more than the {kept} training images beside those held out to choose k; "
            "use smaller ones."
        )
    vote = _Vote(tuple(sorted(set(ks))), temperature if weighted else None, splits.classes, chunk)
    where, found, per_k = splits.device(device), {}, {}
    for layer, (train,) in splits.train.items():
        (test,) = splits.test[layer]
        found[layer], per_k[layer] = _probe_layer(train, splits.labels, test, splits.test_labels, held, vote, where)
    return NeighboursResult(**vars(summarise(found, splits, seed, _shares)), per_k=per_k)


def _probe_layer(
    train: Float32[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    test: Float32[Tensor, "m d"],
    test_labels: Int64[Tensor, " m"],
    held: Tensor,
    vote: _Vote,
    device: torch.device,
) -> tuple[Probed, dict[int, dict[str, float]]]:
    """Chooses k on the held-out images, then has the test images look for their neighbours among all."""
    bank, held = functional.normalize(train.to(device), dim=1), held.to(device)
    known, sought = labels.to(device), test_labels.to(device)
    validation = _accuracies(
        torch.cat([votes.argmax(2) for votes in vote(bank[~held], known[~held], bank[held])], 1), known[held]
    )
    best = max(range(len(vote.ks)), key=lambda i: (validation[i], -i))
    predictions, scores = [], []
    for votes in vote(bank, known, test):
        predictions.append(votes.argmax(2))  # of equal ones the first, which is the lowest class
        scores.append(votes[best].cpu())
    accuracies = _accuracies(torch.cat(predictions, 1), sought)
    per_k = {k: {"validation_top1": a, "test_top1": b} for k, a, b in zip(vote.ks, validation, accuracies, strict=True)}
    k = vote.ks[best]
    # A class without a vote is no candidate, not even for the fifth place.
    votes = torch.cat(scores)
    return Probed((validation[best], -float(k)), {"k": k}, votes.masked_fill(votes == 0, -torch.inf)), per_k


def _accuracies(predictions: Int64[Tensor, "k b"], labels: Int64[Tensor, " b"]) -> list[float]:
    return [right / len(labels) for right in (predictions == labels).sum(1).tolist()]


class _Vote(NamedTuple):
    """How neighbours vote."""

    ks: tuple[int, ...]  # ascending
    temperature: float | None  # None: one neighbour, one vote
    classes: int
    chunk: int | None

    def __call__(
        self, bank: Float32[Tensor, "n d"], labels: Int64[Tensor, " n"], queries: Float32[Tensor, "m d"]
    ) -> Iterator[Float32[Tensor, "k b c"]]:
        """The votes for each class, for every k, of the queries' neighbours in a bank of unit vectors, chunk by chunk."""
        for chunk in queries.split(self.chunk or max(1, _SIMILARITIES // len(bank))):
            x = functional.normalize(chunk.to(bank.device), dim=1)  # (b, d)
            similarity, index = (x @ bank.T).topk(self.ks[-1], dim=1)  # (b, largest k), the nearest first
            if self.temperature is None:
                weight = torch.ones_like(similarity)
            else:
                # Relative to the nearest: the vote is the same, and a small T does not overflow.
                weight = ((similarity - similarity[:, :1]) / self.temperature).exp()
            neighbours, nearer = labels[index], 0
            votes = torch.zeros(len(self.ks), len(x), self.classes, device=bank.device)
            for i, k in enumerate(self.ks):
                # those who voted for the last k, and the neighbours up to this one
                votes[i] = votes[i - 1] if i else 0.0
                votes[i].scatter_add_(1, neighbours[:, nearer:k], weight[:, nearer:k])
                nearer = k
            yield votes


def _shares(votes: Float32[Tensor, "m c"]) -> Float32[Tensor, "m c"]:
    """Shares of the vote, where a class without one is given as −∞."""
    counts = votes.clamp_min(0)
    return counts / counts.sum(1, keepdim=True)
