"""Why is RGB error a poor distance? Pairs of colours equally far apart in RGB, and how far apart they look."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pretint.colour import delta_e2000, rgb_to_lab

from .bench import Answer, Bench, Picture
from .drawing import chart_style, rendered
from .tables import table

RGB_DISTANCE = 60
_PAIRS = 400_000
_SHOWN = 6
_APART = 20.0  # ΔE2000 of a shown pair from every other, else they would all be neighbours of one
_PERCENTILES = {"smallest": 0, "1 %": 1, "median": 50, "99 %": 99, "largest": 100}


def is_rgb_error_a_distance(bench: Bench) -> Answer:
    first, second = equally_far_pairs(_PAIRS, bench.options.seed)
    seen = visible_difference(first, second)
    order = np.argsort(seen)
    alike, unlike = (_spread_pairs(first, second, ranked) for ranked in (order, order[::-1]))
    measured = {name: float(np.percentile(seen, share)) for name, share in _PERCENTILES.items()}
    lines = table(
        [f"ΔE2000 of {len(seen):,} pairs", *measured], [["", *(f"{value:.1f}" for value in measured.values())]]
    )
    lines += [
        "",
        *table(
            ["pair", "first colour", "second colour", "RGB distance", "ΔE2000"],
            [
                [name, _hex(first[at]), _hex(second[at]), str(RGB_DISTANCE), f"{seen[at]:.1f}"]
                for name, at in (("most alike", order[0]), ("least alike", order[-1]))
            ],
        ),
    ]
    caption = (
        f"Twelve pairs of colours at the same RGB distance of {RGB_DISTANCE}: six that look alike and six that do not, "
        "and the distribution of ΔE2000 over all pairs"
    )
    return Answer(lines, [Picture("distance", caption, _figure(first, second, seen, alike, unlike))])


def equally_far_pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs of uint8 colours (n, 3), exactly `RGB_DISTANCE` apart in RGB; those that leave the cube fall away."""
    rng = np.random.default_rng(seed)
    line = np.arange(-RGB_DISTANCE, RGB_DISTANCE + 1)
    steps = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 3)
    steps = steps[(steps**2).sum(1) == RGB_DISTANCE**2]
    first = rng.integers(0, 256, (count, 3))
    second = first + steps[rng.integers(0, len(steps), count)]
    inside = ((second >= 0) & (second <= 255)).all(1)
    return first[inside].astype(np.uint8), second[inside].astype(np.uint8)


def visible_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """ΔE2000 of pairs of uint8 colours (n, 3)."""
    # a colour a pixel: (n, 3) -> (1, 3, 1, n)
    labs = [rgb_to_lab(torch.from_numpy(colours).t()[None, :, None]) for colours in (first, second)]
    return delta_e2000(*labs).flatten().numpy()


def _spread_pairs(first: np.ndarray, second: np.ndarray, ranked: np.ndarray) -> list[int]:
    """The first pairs of a ranking whose colours are not all neighbours."""
    chosen: list[int] = []
    for place in ranked:
        # a pair is the same one with its colours exchanged
        taken = np.concatenate((first[chosen], second[chosen]))
        repeated = np.repeat(first[place : place + 1], len(taken), axis=0)
        if not chosen or visible_difference(repeated, taken).min() > _APART:
            chosen.append(int(place))
        if len(chosen) == _SHOWN:
            break
    return chosen


def _figure(
    first: np.ndarray, second: np.ndarray, seen: np.ndarray, alike: list[int], unlike: list[int]
) -> Image.Image:
    with chart_style():
        figure = Figure(figsize=(8.4, 6.0), layout="constrained")
        top, bottom, below = figure.subplots(3, 1, height_ratios=(1, 1, 1.25))
        for axis, pairs, what in ((top, alike, "look alike"), (bottom, unlike, "do not look alike")):
            _swatches(axis, [(first[at], second[at], seen[at]) for at in pairs])
            axis.set_title(f"RGB distance {RGB_DISTANCE}: these {what}", loc="left", fontsize=11)
        below.hist(seen, bins=80, color="#2f7fd1")
        below.set_xlabel(f"ΔE2000 of {len(seen):,} random pairs at RGB distance {RGB_DISTANCE}")
        below.set_yticks([])
        below.spines["left"].set_visible(False)
        return rendered(figure)


def _swatches(axis: Axes, pairs: list[tuple[np.ndarray, np.ndarray, float]]) -> None:
    """Touching squares, their colours and their difference below."""
    for place, (one, other, difference) in enumerate(pairs):
        for shift, colour in ((0.0, one), (0.45, other)):
            axis.add_patch(Rectangle((place + shift, 0), 0.45, 1, color=colour / 255, linewidth=0))
        axis.text(place + 0.45, -0.08, f"ΔE {difference:.1f}", ha="center", va="top", fontweight="bold")
        axis.text(place + 0.45, -0.40, f"{_hex(one)} {_hex(other)}", ha="center", va="top", fontsize=8)
    axis.set_xlim(0, len(pairs))
    axis.set_ylim(-0.6, 1)
    axis.axis("off")


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)
