"""How are several things timed beside each other, on a machine that is faster now and slower then?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def interleaved(loops: Mapping[Name, Callable[[], float]], rounds: int) -> dict[Name, list[float]]:
    """What each loop says of itself in each round: all of them one after another, so that a machine that slows down slows all of
    them. A first round warms up and is left out.

    >>> interleaved({"one": iter([9.0, 1.0, 2.0]).__next__, "ten": iter([9.0, 10.0, 20.0]).__next__}, rounds=2)
    {'one': [1.0, 2.0], 'ten': [10.0, 20.0]}
    """
    told: dict[Name, list[float]] = {name: [] for name in loops}
    for _ in range(rounds + 1):
        for name, run in loops.items():
            told[name].append(run())
    return {name: values[1:] for name, values in told.items()}


def share_of(rates: Sequence[float], others: Sequence[float]) -> float:
    """How many times as fast as another loop one was: the median over the rounds, each of which compares neighbours in time.

    >>> share_of([2.0, 3.0, 8.0], [1.0, 1.0, 8.0])
    2.0
    """
    return median(rate / other for rate, other in zip(rates, others, strict=True))
