"""Are an encoder's features in good health? Their rank, their dead channels, their spread on the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ..runtime.errors import ArgumentError
from ..runtime.randomness import hash_permutation
from .axes import ROUNDING, channel_moments, joined_rows
from .protocol import checked_features


@dataclass(frozen=True)
class FeatureHealth:
    """Figures that need no labels.

    Attributes:
        effective_rank: see :func:`effective_rank`; at most the smaller of images and channels.
        dead_channels: see :func:`dead_channels`; a share in 0…1.
        uniformity: see :func:`uniformity`; lower is more spread.
        alignment: see :func:`alignment`; lower is closer; None without a second view.
    """

    effective_rank: float
    dead_channels: float
    uniformity: float
    alignment: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return dict(vars(self))


def feature_health(
    features: Float[Tensor, "n d"], other_view: Float[Tensor, "n d"] | None = None, *, seed: int = 0
) -> FeatureHealth:
    """All figures of one layer; `other_view` holds the features of the same images, augmented in another way."""
    return FeatureHealth(
        effective_rank(features),
        dead_channels(features),
        uniformity(features, seed=seed),
        None if other_view is None else alignment(features, other_view),
    )


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp of the entropy of the singular values, divided by their sum: as how many equally strong directions they count.

    Between 1 and min(n, d); 0 for features that are all zero. As in the paper, and in RankMe (Garrido et al. 2023), the
    features are not centred: for an encoder that gives every image nearly the same the rank is 1, while the rounding that
    centring would leave of it is full of directions.

    Raises:
        ArgumentError, NotFiniteError: no finite float (n, d).

    Source:
        Roy & Vetterli 2007, "The effective rank", definition 1.

    >>> round(effective_rank(torch.eye(5)), 3), round(effective_rank(torch.ones(6, 5)), 3)
    (5.0, 1.0)
    """
    x = checked_features(features, "features", "features").cpu()
    # Singular values are roots of the eigenvalues of the smaller one of XᵀX and XXᵀ; float64 leaves them eight digits.
    if len(x) >= x.shape[1]:
        gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        for chunk in joined_rows((x,)):
            rows = chunk.double()
            gram.addmm_(rows.T, rows)
    else:
        rows = x.double()
        gram = rows @ rows.T
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    if not bool(singular.any()):
        return 0.0
    return math.exp(float(torch.special.entr(singular / singular.sum()).sum()))


def dead_channels(features: Float[Tensor, "n d"]) -> float:
    """Share of channels that have the same value for every image, up to float32's rounding.

    Raises:
        ArgumentError, NotFiniteError: no finite float (n, d).

    >>> dead_channels(torch.tensor([[1.0, 2.0, 0.0, 0.1], [1.5, 2.0, 0.0, 0.3]]))
    0.5
    """
    x = checked_features(features, "features", "features").cpu()
    _, deviation, peak = channel_moments((x,), torch.device("cpu"))
    return float((deviation <= ROUNDING * peak).double().mean())


def uniformity(features: Float[Tensor, "n d"], *, t: float = 2.0, most: int = 2048, seed: int = 0) -> float:
    """log of the mean of exp(−t ‖u − v‖²) over pairs of different images, u and v their features divided by their length.

    0 when all features point the same way; about −2t when they are spread evenly over a sphere of many dimensions, where
    most pairs are at right angles.

    Args:
        t: above 0; 2 in the paper.
        most: images at most, a seeded choice of them; all their pairs count.

    Raises:
        ArgumentError, NotFiniteError: no finite float (n, d) with n > 1, or a number out of range.

    Source:
        Wang & Isola 2020, "Understanding contrastive representation learning through alignment and uniformity on the
        hypersphere", section 4.1.2.
    """
    x = checked_features(features, "features", "features")
    if not 0 < t < math.inf:
        raise ArgumentError(f"t: got {t}; use a number above 0, such as 2.")
    if min(len(x), most) < 2:
        raise ArgumentError(f"features, most: {len(x)} and {most} images; uniformity needs 2 or more of both.")
    chosen = hash_permutation(seed, 0, len(x))[:most]
    unit = functional.normalize(x[chosen.to(x.device)].cpu().double(), dim=1)
    i, j = torch.triu_indices(len(unit), len(unit), offset=1)  # (pairs,) each
    squared = torch.cdist(unit, unit)[i, j].square()
    return float(torch.logsumexp(-t * squared, 0)) - math.log(len(squared))


def alignment(view: Float[Tensor, "n d"], other_view: Float[Tensor, "n d"]) -> float:
    """Mean of ‖u − v‖² over images, u and v the features of two augmented views of one image, divided by their length.

    0 when augmentation changes nothing, 2 when the views are as unlike as features at right angles, 4 at most.

    Raises:
        ArgumentError, NotFiniteError: no finite float (n, d), or the views differ in shape.

    Source:
        Wang & Isola 2020, section 4.1.1, with α = 2.
    """
    u, v = (checked_features(x, "features", name) for name, x in (("view", view), ("other_view", other_view)))
    if u.shape != v.shape:
        raise ArgumentError(
            f"other_view: {tuple(v.shape)} differs from {tuple(u.shape)}; give two views of the same images."
        )
    u, v = functional.normalize(u, dim=1), functional.normalize(v.to(u.device), dim=1)
    return float((u - v).square().sum(1).mean(dtype=torch.float64))
