"""What do the rows of `pretint transfer` come to, in sentences? Which run is ahead, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..evaluation import Comparison, ConfusedPair, difference, headline, most_confused, per_class_accuracy
from ..evaluation.tables import signed

Headline = tuple[Comparison, list[dict[str, Any]]]


def headlines_of(rows: Sequence[dict[str, Any]]) -> list[Headline]:
    """The line of each run that answers whether its pretext helped, with the rows behind it."""
    found = []
    for run in dict.fromkeys(row["run"] for row in rows if row["init"] == "pretrained"):
        best = headline(row for row in rows if row["run"] in (None, run))
        if best is not None:
            told = (run, best.init, best.protocol, best.labels)
            found.append((best, [row for row in rows if _told(row) == told]))
    return found


def _told(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["run"], row["init"], row["protocol"], row["labels"]


def ranking(headlines: Sequence[Headline]) -> list[str]:
    """Runs from the most accurate to the least, each beside the next, of those that were judged alike and see the same."""
    groups: dict[tuple[Any, ...], list[Headline]] = {}
    for best, rows in headlines:
        groups.setdefault((best.data, best.protocol, best.labels, best.sees), []).append((best, rows))
    lines = []
    for members in groups.values():
        ranked = sorted(members, key=lambda member: -member[0].top1)
        for (better, rows), (worse, other) in pairwise(ranked):
            apart = difference(rows, other)
            if apart is not None:
                spread = "" if apart.points_sd is None else f" ± {apart.points_sd:.1f}"
                within = ", within the noise" if abs(apart.points) <= apart.noise else ""
                lines.append(
                    f"{better.run} − {worse.run}: {signed(apart.points)}{spread} points{within} "
                    f"({better.protocol_name}, {better.labels_name})."
                )
    return lines


def mistakes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the headline of each run takes for what, and how right it is class by class: all seeds together."""
    lines = []
    for best, own in headlines_of(rows):
        confusion = np.sum([row["confusion"] for row in own], axis=0)
        names = own[0]["class_names"][: len(confusion)] or None
        right = sorted(
            (share, name)
            for share, name in zip(per_class_accuracy(confusion), names or map(str, range(len(confusion))), strict=True)
            if share is not None
        )
        which = f"{best.protocol_name} of {best.run}" if best.run else best.protocol_name
        pairs = ", ".join(_pair(pair) for pair in most_confused(confusion, names))
        lines.append(f"Most confused ({which}): {pairs or 'nothing'}.")
        told = ", ".join(f"{name} {share:.1%}" for share, name in right)
        lines.append(f"Right by class ({which}): {told}.")
    return lines


def _pair(pair: ConfusedPair) -> str:
    return f"{pair.true} → {pair.predicted} {pair.share:.1%}"
