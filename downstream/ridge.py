"""How well does ridge regression read the classes off frozen features? An exact answer within seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn import functional

from ..runtime.errors import ArgumentError
from .axes import ROUNDING, channel_moments, joined_rows
from .protocol import Probed, ProbeResult, checked_splits, held_out, summarise

ALPHAS = tuple(float(f"{step}e{exponent}") for exponent in range(-3, 7) for step in (1, 3))


def ridge_probe(
    train_features: Float[Tensor, "n d"] | Mapping[str, Tensor],
    train_labels: Tensor | np.ndarray,
    test_features: Float[Tensor, "m d"] | Mapping[str, Tensor],
    test_labels: Tensor | np.ndarray,
    *,
    alphas: Sequence[float] = ALPHAS,
    holdout: float = 0.1,
    seed: int = 0,
    classes: int | None = None,
    device: torch.device | str | None = None,
) -> ProbeResult:
    """Ridge regression of ±1 on frozen features, one class against all others, its penalty chosen on held-out training images.

    Predicts what scikit-learn's `make_pipeline(StandardScaler(), RidgeClassifier(alpha))`, fitted on all training images,
    predicts. For each layer every α is fitted on the training images without a seeded, class-balanced `holdout`; the one
    with the best accuracy there (equal ones: the lower squared error) is fitted on all training images, and reads the
    test images once. The headline is the layer with the best held-out accuracy. Same features, same `holdout` and same
    seed as :func:`linear_probe`: the same images are held out.

    Args:
        train_features, test_features: float (n, d) and (m, d), any scale, or dicts of layers, as :func:`linear_probe` takes
            them, with the same concatenations; standardised by their training images.
        train_labels, test_labels: integers from 0, (n,) and (m,), tensor or array.
        alphas: penalties α of ‖XW + 1bᵀ − T‖² + α‖W‖² (a sum over images, as in scikit-learn), above 0.
        holdout: share of the training images to choose on, in (0, 1).
        classes: number of classes; None: the largest label + 1.
        device: where to compute, in float64; None: where the features are. The CPU serves where a device has no float64.

    Raises:
        ArgumentError: lengths, widths, layers or classes do not fit each other; only one class; a test class that
            training lacks; too few images of a class to hold one out; a number out of range.
        NotFiniteError: features with NaN or infinity; names the layer.

    Source:
        Hoerl & Kennard 1970, equation 2.1; targets and intercept as scikit-learn's RidgeClassifier has them.

    >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> ridge_probe(x[:150], y[:150], x[150:], y[150:]).top1 > 0.9
    True
    """
    if not alphas or not all(0 < alpha < math.inf for alpha in alphas):
        raise ArgumentError(f"alphas: got {alphas}; use one or more numbers above 0.")
    splits = checked_splits(train_features, train_labels, test_features, test_labels, classes)
    held = torch.nonzero(held_out(splits.labels, holdout, seed)).flatten()
    where = splits.device(device)
    where = torch.device("cpu") if where.type == "mps" else where  # mps has no float64
    targets = 2 * functional.one_hot(splits.labels, splits.classes).to(where, torch.float64) - 1  # (n, c)
    probed = {
        layer: _probe_layer(parts, splits.test[layer], targets, held, alphas) for layer, parts in splits.train.items()
    }
    return summarise(probed, splits, seed, None)


# Why the normal equations, and one eigendecomposition. With rows x of the images that are fitted, targets t = ±1 and an
# intercept b without a penalty, the best b is t̄ − Wᵀx̄; what remains is ridge regression of centred T on centred X:
#
#     W(α) = (XᵀX + αI)⁻¹ XᵀT = V diag(1 / (s + α)) Vᵀ XᵀT,     XᵀX = V diag(s) Vᵀ
#
# XᵀX (2·n·d²) is all that grows with the images. It and XᵀT are sums over images: chunks are added up, nothing of the size
# of the features is held, and the sums of the images kept for fitting are all sums minus those of the held-out ones. For
# 50,000 × 512 that is 26 GFLOP, the eigendecomposition (some 10·d³) 1.3, and another α costs d²·c: next to nothing, so the
# grid may be fine, and doubled or dead channels (s = 0) do no harm however small α is. The winner's fit on all images has
# one α only, and there solving the equations is ten times as fast as another eigendecomposition.
# A singular value decomposition of X would cost several times n·d² and hold X, for accuracy that float64 gives here:
# squaring X squares its condition number, and pooled features have variances over six orders of magnitude, which float64
# can carry, but not float32, which PrincipalAxes has.
# With fewer images than channels (n < d), X W only sees W within the span of the images, and the penalty keeps W there. So
# the features are rotated into that span first: n numbers an image instead of d, and the same answer.


def _probe_layer(
    train: tuple[Tensor, ...],
    test: tuple[Tensor, ...],
    targets: Float64[Tensor, "n c"],
    held: Int64[Tensor, " h"],
    alphas: Sequence[float],
) -> Probed:
    """Chooses α on the held-out images, fits it on all, reads the test images."""
    coordinates = _Coordinates.fit(train, targets.device)
    held_x = torch.cat(list(coordinates.reduced(tuple(part[held.to(part.device)] for part in train))))  # (h, r)
    held_t = targets[held.to(targets.device)]  # (h, c)
    everything = _Sums.over(coordinates.reduced(train), targets, coordinates.width)
    kept = everything.without(_Sums.over([held_x], held_t, coordinates.width))
    judged = [_validation(head, held_x, held_t) for head in kept.heads(alphas)]
    validation, alpha = max(zip(judged, alphas, strict=True))
    winner = coordinates.lifted(everything.head(alpha))
    scores = torch.cat([winner.scores(x).cpu() for x in coordinates.standardised(test)])
    return Probed(validation, {"alpha": alpha}, scores)


@dataclass(frozen=True)
class _Coordinates:
    """From raw features to standardised ones, (x − mean) · scale, and on to those that are computed with; all float64.

    Channels that do not vary become zero. `span` is an orthonormal basis of the images' span where they are fewer than the
    channels; else there is none, and the standardised features are computed with.
    """

    mean: Float64[Tensor, " d"]
    scale: Float64[Tensor, " d"]
    span: Float64[Tensor, "d r"] | None = None

    @classmethod
    def fit(cls, parts: tuple[Tensor, ...], device: torch.device) -> _Coordinates:
        mean, deviation, peak = channel_moments(parts, device)
        found = cls(mean, torch.where(deviation > ROUNDING * peak, 1 / deviation, 0.0))
        if len(parts[0]) >= len(mean):
            return found
        return replace(found, span=torch.linalg.qr(torch.cat(list(found.standardised(parts))).T).Q)

    @property
    def width(self) -> int:
        """r: how many numbers an image has when it is computed with."""
        return len(self.mean) if self.span is None else self.span.shape[1]

    def standardised(self, parts: tuple[Tensor, ...]) -> Iterator[Float64[Tensor, "b d"]]:
        """Standardised features, some thousand rows at a time."""
        for chunk in joined_rows(parts):
            yield (chunk.to(self.mean) - self.mean) * self.scale

    def reduced(self, parts: tuple[Tensor, ...]) -> Iterator[Float64[Tensor, "b r"]]:
        """What is computed with, some thousand rows at a time."""
        for x in self.standardised(parts):
            yield x if self.span is None else x @ self.span

    def lifted(self, head: _Head) -> _Head:
        """A classifier of standardised features that does what `head` does to reduced ones."""
        return head if self.span is None else _Head(self.span @ head.weight, head.bias)


class _Head(NamedTuple):
    """A linear classifier."""

    weight: Tensor  # (r, c)
    bias: Tensor  # (c,)

    def scores(self, x: Float64[Tensor, "b r"]) -> Float64[Tensor, "b c"]:
        return torch.addmm(self.bias, x, self.weight)


@dataclass(frozen=True)
class _Sums:
    """What ridge regression needs to know of some images: sums of x (r,), t (c,), xxᵀ (r, r) and xtᵀ (r, c)."""

    count: int
    x: Float64[Tensor, " r"]
    t: Float64[Tensor, " c"]
    xx: Float64[Tensor, "r r"]
    xt: Float64[Tensor, "r c"]

    @classmethod
    def over(cls, rows: Iterable[Tensor], targets: Float64[Tensor, "n c"], width: int) -> _Sums:
        """The sums over features that come in chunks (b, width), in the order of their targets."""
        count, x_sum = 0, targets.new_zeros(width)
        xx, xt = targets.new_zeros(width, width), targets.new_zeros(width, targets.shape[1])
        for x in rows:
            x_sum += x.sum(0)
            xx.addmm_(x.T, x)
            xt.addmm_(x.T, targets[count : count + len(x)])
            count += len(x)
        return cls(count, x_sum, targets.sum(0), xx, xt)

    def without(self, part: _Sums) -> _Sums:
        """The sums over the other images."""
        return _Sums(*(a - b for a, b in zip(vars(self).values(), vars(part).values(), strict=True)))

    def heads(self, alphas: Sequence[float]) -> Iterator[_Head]:
        """The classifier of each α, all from one eigendecomposition."""
        gram, cross = self._centred()
        eigenvalues, vectors = torch.linalg.eigh(gram)
        rotated = vectors.T @ cross  # (r, c)
        for alpha in alphas:
            yield self._with_bias(vectors @ (rotated / (eigenvalues.clamp_min(0) + alpha)[:, None]))

    def head(self, alpha: float) -> _Head:
        """The classifier of one α."""
        gram, cross = self._centred()
        gram.diagonal().add_(alpha)
        return self._with_bias(torch.linalg.solve(gram, cross))

    def _centred(self) -> tuple[Float64[Tensor, "r r"], Float64[Tensor, "r c"]]:
        """XᵀX and XᵀT about the means of these images."""
        mean = self.x / self.count
        return torch.addr(self.xx, self.x, mean, alpha=-1), torch.addr(self.xt, mean, self.t, alpha=-1)

    def _with_bias(self, weight: Float64[Tensor, "r c"]) -> _Head:
        return _Head(weight, (self.t - self.x @ weight) / self.count)


def _validation(head: _Head, x: Float64[Tensor, "h r"], targets: Float64[Tensor, "h c"]) -> tuple[float, float]:
    """Held-out accuracy, and minus the mean squared error."""
    scores = head.scores(x)
    right = (scores.argmax(1) == targets.argmax(1)).double().mean()
    return float(right), -float((scores - targets).square().mean())
