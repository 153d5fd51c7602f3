"""Which of many files have the content of another one?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8


def repeated(digests: Sequence[UInt8[np.ndarray, "_ 16"]]) -> list[frozenset[int]]:
    """The files that come behind one of equal content, as positions within each group.

    Args:
        digests: of each group in order, 16 bytes of every file's checksum.

    >>> a, b, c = np.eye(3, 16, dtype=np.uint8)
    >>> repeated([np.stack([a, b, a]), np.stack([c, b])])
    [frozenset({2}), frozenset({1})]
    """
    halves = np.ascontiguousarray(np.concatenate(digests)).view(np.uint64)  # (n, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal ones the first comes first
    again = np.zeros(len(halves), bool)
    again[order[1:]] = (halves[order[1:]] == halves[order[:-1]]).all(axis=1)
    ends = np.cumsum([len(part) for part in digests])
    return [frozenset(np.flatnonzero(part).tolist()) for part in np.split(again, ends[:-1])]
