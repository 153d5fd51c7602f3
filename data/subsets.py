"""Which pictures are held out or kept, so that the choice is fixed by a seed and fair to every class?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from ..runtime.errors import ArgumentError, DataError, UnknownNameError
from ..runtime.randomness import hash_bits
from .tensors import ImageSource

# Uses of randomness in this module (stream numbers of runtime.randomness); batches.py has its own.
_STREAM_HOLD_OUT, _STREAM_LABELS = 0x100, 0x101


def hold_out(source: ImageSource, fraction: float, seed: int) -> tuple[Int64[Tensor, " t"], Int64[Tensor, " v"]]:
    """Divide a source into ids to train on and ids held out for choices: disjoint, together all, both ascending.

    Of every class the same share is held out (up to rounding); without labels, of all pictures. At least one picture is
    on either side. A larger fraction with the same seed holds out a superset.

    Args:
        fraction: share to hold out, in (0, 1).

    Raises:
        ArgumentError: the fraction is outside (0, 1), or there are fewer than two pictures.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(f"fraction: got {fraction}; the share to hold out lies between 0 and 1, for example 0.1.")
    n = len(source)
    if n < 2:
        raise ArgumentError(f"source: has {n} picture(s); at least 2 are needed to hold one out.")
    groups = _groups(source.labels, n)
    rank, counts = _rank_in_group(groups, seed, _STREAM_HOLD_OUT)
    held = rank < torch.floor(counts * fraction + 0.5)[groups]
    if not held.any() or held.all():
        # Rounding left one side empty (tiny classes): decide over all pictures together instead.
        rank, _ = _rank_in_group(torch.zeros_like(groups), seed, _STREAM_HOLD_OUT)
        held = rank < min(max(math.floor(n * fraction + 0.5), 1), n - 1)
    return torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()


def only_classes(source: ImageSource, names: Sequence[str]) -> ImageSource:
    """The pictures of some classes; labels keep their numbers.

    Raises:
        UnknownNameError: there is no class of such a name.
        DataError: the source has no classes.
    """
    if source.labels is None or source.class_names is None:
        raise DataError(f"--classes: {source.name} has no classes to choose from; leave the option out.")
    for name in names:
        if name not in source.class_names:
            raise UnknownNameError("--classes", name, source.class_names)
    wanted = torch.tensor([source.class_names.index(name) for name in names], device=source.labels.device)
    return source.subset(torch.isin(source.labels, wanted).nonzero().flatten())


def class_balanced_subset(labels: Int64[Tensor, " n"], fraction: float, seed: int) -> Int64[Tensor, " m"]:
    """The ids that stay labelled under `--labels`: the same share of every class, at least one picture each, ascending.

    A larger fraction with the same seed gives a superset, and 1.0 gives all ids.

    Args:
        fraction: share to keep, in (0, 1].

    Raises:
        ArgumentError: the fraction is outside (0, 1], or there are no labels.

    >>> class_balanced_subset(torch.tensor([0, 0, 0, 1, 1, 1]), 0.01, seed=0).shape
    torch.Size([2])
    """
    if not 0 < fraction <= 1:
        raise ArgumentError(f"labels: got {fraction}; the share of labels lies in (0, 1], for example 0.1.")
    if not len(labels):
        raise ArgumentError("labels: there are none; a class-balanced subset needs at least one labelled picture.")
    groups = _groups(labels, len(labels))
    rank, counts = _rank_in_group(groups, seed, _STREAM_LABELS)
    keep = torch.floor(counts * fraction + 0.5).clamp(min=1)
    return torch.nonzero(rank < keep[groups]).flatten()


def few_shot_subset(labels: Int64[Tensor, " n"], per_class: int, seed: int) -> Int64[Tensor, " m"]:
    """The ids of exactly so many pictures of every class that occurs, ascending.

    More pictures with the same seed give a superset, and of equal classes :func:`class_balanced_subset` keeps the same.

    Args:
        per_class: pictures of each class, 1 or more.

    Raises:
        ArgumentError: `per_class` is below 1, or there are no labels.
        DataError: a class has fewer pictures.

    >>> few_shot_subset(torch.tensor([0, 0, 0, 1, 1, 1]), 2, seed=0).shape
    torch.Size([4])
    """
    if per_class < 1:
        raise ArgumentError(f"per_class: got {per_class}; use 1 or more pictures of each class, for example 5.")
    if not len(labels):
        raise ArgumentError("labels: there are none; a few-shot subset needs labelled pictures.")
    groups = _groups(labels, len(labels))
    rank, counts = _rank_in_group(groups, seed, _STREAM_LABELS)
    if lacking := torch.nonzero(counts < per_class).flatten().tolist():
        names = torch.unique(labels.cpu())
        has = ", ".join(f"class {int(names[group])} has {int(counts[group])}" for group in lacking[:10])
        raise DataError(f"per_class: {per_class} pictures of each class are asked for, but {has}; ask for fewer.")
    return torch.nonzero(rank < per_class).flatten()


def _groups(labels: Tensor | None, n: int) -> Int64[Tensor, " n"]:
    """Numbers 0 … g − 1 of the classes that occur, on the CPU; one group without labels."""
    if labels is None:
        return torch.zeros(n, dtype=torch.int64)
    return torch.unique(labels.cpu(), return_inverse=True)[1]


def _rank_in_group(
    groups: Int64[Tensor, " n"], seed: int, stream: int
) -> tuple[Int64[Tensor, " n"], Float64[Tensor, " g"]]:
    """Place of every picture in the shuffled order of its own class (n,), and the sizes of the classes (g,)."""
    keys = hash_bits(seed, 0, torch.arange(len(groups)), stream)
    order = torch.argsort(keys, stable=True)
    order = order[torch.argsort(groups[order], stable=True)]  # (n,) class by class, shuffled within
    counts = torch.bincount(groups)
    starts = counts.cumsum(0) - counts  # (g,) where each class begins in that order
    rank = torch.empty_like(groups)
    rank[order] = torch.arange(len(groups)) - starts[groups[order]]
    return rank, counts.to(torch.float64)
