"""Which ids has a view of very many pictures, when a tensor of them would be too large to keep?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from ..runtime.errors import ArgumentError
from ..runtime.randomness import hash_bits

_STREAM_OFFSET = 0x102  # stream number of runtime.randomness; subsets.py has 0x100 and 0x101


class LazyIds:
    """Ids that are computed where they are asked for; indexed, split and counted as a tensor of them would be.

    Args:
        n: how many.
        at: from positions 0 … n − 1 to the ids there, int64 (m,) to (m,).

    >>> even = LazyIds(4, lambda positions: 2 * positions)
    >>> len(even), even[1:3].tolist(), [part.tolist() for part in even.split(3)]
    (4, [2, 4], [[0, 2, 4], [6]])
    """

    def __init__(self, n: int, at: Callable[[Tensor], Tensor]):
        self._n, self._at = n, at

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, key: slice | Tensor) -> Int64[Tensor, " m"]:
        return self._at(torch.arange(*key.indices(self._n)) if isinstance(key, slice) else key)

    def split(self, size: int) -> Iterator[Int64[Tensor, " m"]]:
        """Parts of `size` ids each, the last one perhaps smaller."""
        return (self[start : start + size] for start in range(0, self._n, size))

    def to(self, device: torch.device | str) -> LazyIds:
        """The same: ids are computed where their positions are."""
        return self


Ids = Tensor | LazyIds


def all_ids(n: int) -> LazyIds:
    """The ids 0 … n − 1."""
    return LazyIds(n, lambda positions: positions)


def spread_hold_out(n: int, fraction: float, seed: int) -> tuple[LazyIds, LazyIds]:
    """Divides ids 0 … n − 1 into those to learn from and those held out: disjoint, together all, both ascending, neither stored.

    Held-out pictures are spread evenly: the ids are cut into as many runs of equal length (up to 1) as pictures are held out,
    and of each run one is, chosen by the seed. Where pictures lie class by class, the same share of every class is held out,
    give or take one.

    Args:
        n: how many pictures, 2 or more.
        fraction: share to hold out, in (0, 1); at least one picture is on either side.

    Raises:
        ArgumentError: the fraction is outside (0, 1), or there are fewer than two pictures.

    >>> kept, held = spread_hold_out(10, 0.3, seed=0)
    >>> len(held), sorted(kept[:].tolist() + held[:].tolist()) == list(range(10))
    (3, True)
    """
    if not 0 < fraction < 1 or n < 2:
        raise ArgumentError(f"fraction: got {fraction} of {n} pictures; hold out a share between 0 and 1 of 2 or more.")
    out = min(max(round(n * fraction), 1), n - 1)
    left = n - out

    def chosen(run: Tensor) -> Tensor:
        """The id that is held out of each run j, which has the ids ⌊j·n / out⌋ … ⌊(j + 1)·n / out⌋ − 1."""
        first, end = run * n // out, (run + 1) * n // out
        return first + (hash_bits(seed, 0, run, _STREAM_OFFSET) >> 1).abs() % (end - first)

    def kept(positions: Tensor) -> Tensor:
        # Before run j there are ⌊j·n / out⌋ − j = ⌊j·left / out⌋ kept ids, so position p lies in the last run j for which that
        # is at most p: the largest j with j·left < (p + 1)·out.
        run = ((positions + 1) * out - 1) // left
        ids = positions + run  # as if each run held out its last id; behind the one that it does hold out, one more
        return ids + (ids >= chosen(run))

    return LazyIds(left, kept), LazyIds(out, chosen)
