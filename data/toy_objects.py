"""What do the ten toy objects look like? Each is drawn from signed distances, for a whole batch of frames at once.

A signed distance is negative inside a shape and positive outside (Quilez, "2D distance functions",
https://iquilezles.org/articles/distfunctions2d). Object coordinates: u to the right, v downwards; objects fill about
the square from -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

Rgb = tuple[float, float, float]

_BLACK, _WHITE, _WOOD, _LEAF = (0.10, 0.10, 0.11), (0.93, 0.93, 0.91), (0.42, 0.27, 0.15), (0.22, 0.48, 0.16)
_GLASS, _STONE, _POLLEN = (0.70, 0.78, 0.82), (0.33, 0.32, 0.34), (0.90, 0.75, 0.20)


@dataclass(frozen=True)
class Frame:
    """Where a batch of objects is drawn.

    Args:
        u, v: object coordinates of every pixel (b, h, w).
        pixel: the side of a pixel in object coordinates (b, 1, 1).
        chance: three numbers in [0, 1) per picture, each (b, 1, 1), for what varies within a class.
    """

    u: Float[Tensor, "b h w"]
    v: Float[Tensor, "b h w"]
    pixel: Float[Tensor, "b 1 1"]
    chance: tuple[Tensor, Tensor, Tensor]

    def cover(self, distance: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
        """How much of each pixel a shape covers, 0 … 1: the edge is one pixel soft."""
        return (0.5 - distance / self.pixel).clamp_(0, 1)

    def circle(self, x: float, y: float, radius: float) -> Tensor:
        return torch.hypot(self.u - x, self.v - y) - radius

    def ellipse(self, x: float, y: float, a: float, b: float) -> Tensor:
        # Not the exact distance, but zero on the edge and nearly right beside it.
        return (torch.hypot((self.u - x) / a, (self.v - y) / b) - 1) * min(a, b)

    def box(self, x: float, y: float, a: float, b: float) -> Tensor:
        return torch.maximum((self.u - x).abs() - a, (self.v - y).abs() - b)

    def line(self, x0: float, y0: float, x1: float, y1: float, radius: float) -> Tensor:
        """A line with round ends, `radius` to either side."""
        dx, dy = x1 - x0, y1 - y0
        along = (((self.u - x0) * dx + (self.v - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
        return torch.hypot(self.u - x0 - along * dx, self.v - y0 - along * dy) - radius

    def polygon(self, *corners: tuple[float, float]) -> Tensor:
        """A convex polygon, its corners given clockwise as seen on the screen."""
        distance = torch.full_like(self.u, -math.inf)
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            length = math.hypot(x1 - x0, y1 - y0)
            edge = ((y1 - y0) * (self.u - x0) - (x1 - x0) * (self.v - y0)) / length
            distance = torch.maximum(distance, edge)
        return distance


@dataclass
class Drawing:
    """What an object covers.

    Args:
        paint: cover (b, h, w) of the part whose colour belongs to the class.
        shade: light on it (b, h, w) in 0 … 1: the texture, by which the class shows in grey.
        under, over: other parts as (cover (b, h, w), colour), drawn before and after the paint.
    """

    paint: Tensor
    shade: Tensor
    under: list[tuple[Tensor, Rgb]] = field(default_factory=list)
    over: list[tuple[Tensor, Rgb]] = field(default_factory=list)


def _waves(x: Tensor, low: float, high: float) -> Tensor:
    """Stripes between two lights, from an angle in radians."""
    return low + (high - low) * (0.5 + 0.5 * torch.sin(x))


def _banana(f: Frame) -> Drawing:
    crescent = torch.maximum(f.circle(0.0, -0.35, 1.0), -f.circle(0.0, -0.86, 1.1))
    ridge = (torch.hypot(f.u, f.v + 0.35) - 0.82).abs()
    shade = 1 - 0.3 * f.cover(ridge - 0.03)
    tips = torch.maximum(crescent, 0.72 + 0.1 * f.chance[0] - f.u.abs())
    return Drawing(f.cover(crescent), shade, over=[(f.cover(tips), _WOOD)])


def _tree(f: Frame) -> Drawing:
    tiers = [
        f.polygon((0.0, -0.98 + 0.42 * k), (0.42 + 0.16 * k, -0.3 + 0.42 * k), (-0.42 - 0.16 * k, -0.3 + 0.42 * k))
        for k in range(3)
    ]
    crown = torch.minimum(torch.minimum(tiers[0], tiers[1]), tiers[2])
    needles = _waves(14 * (f.v - 0.5 * f.u.abs()) + 6 * f.chance[0], 0.55, 1.0)
    return Drawing(f.cover(crown), needles, under=[(f.cover(f.box(0.0, 0.7, 0.12, 0.3)), _WOOD)])


def _ball(f: Frame) -> Drawing:
    ball = f.circle(0.0, 0.0, 0.82)
    seams = torch.minimum(f.u.abs(), f.v.abs())
    for x in (-1.05, 1.05):
        seams = torch.minimum(seams, f.circle(x, 0.0, 0.72).abs())
    light = 1 - 0.35 * (torch.hypot(f.u + 0.3, f.v + 0.3) / 1.2).clamp(0, 1).square()
    return Drawing(f.cover(ball), light, over=[(f.cover(torch.maximum(seams - 0.05, ball)), _BLACK)])


def _apple(f: Frame) -> Drawing:
    cheeks = torch.minimum(f.ellipse(-0.3, 0.12, 0.52, 0.66), f.ellipse(0.3, 0.12, 0.52, 0.66))
    light = 0.66 + 0.34 * torch.exp(-((f.u + 0.35).square() + (f.v + 0.15).square()) / 0.12)
    stem = f.cover(f.line(0.0, -0.3, 0.05, -0.85, 0.06))
    leaf = torch.maximum(f.circle(0.28, -0.45, 0.36), f.circle(0.34, -0.92, 0.36))
    return Drawing(f.cover(cheeks), light, over=[(stem, _WOOD), (f.cover(leaf), _LEAF)])


def _flower(f: Frame) -> Drawing:
    radius, angle = torch.hypot(f.u, f.v + 0.3), torch.atan2(f.v + 0.3, f.u)
    petals = torch.cos(5 * angle + 6 * f.chance[0])
    bloom = (radius - (0.47 + 0.19 * petals)) * 0.8
    shade = 0.6 + 0.4 * (0.5 + 0.5 * petals)
    stem = torch.minimum(f.line(0.0, 0.0, 0.0, 0.98, 0.055), f.ellipse(0.24, 0.62, 0.25, 0.1))
    heart = f.cover(f.circle(0.0, -0.3, 0.2))
    return Drawing(f.cover(bloom), shade, under=[(f.cover(stem), _LEAF)], over=[(heart, _POLLEN)])


def _fish(f: Frame) -> Drawing:
    body = f.ellipse(-0.15, 0.0, 0.75, 0.43)
    tail = f.polygon((0.4, 0.0), (0.95, -0.45), (0.95, 0.45))
    fin = f.polygon((-0.3, -0.3), (0.1, -0.72), (0.25, -0.3))
    scales = _waves(12 * f.u + 6 * f.chance[0], 0.55, 1.0)
    scales = torch.where(f.u < -0.5, 1.0, scales)  # the head is plain
    eye, pupil = f.cover(f.circle(-0.6, -0.1, 0.13)), f.cover(f.circle(-0.62, -0.1, 0.07))
    return Drawing(
        f.cover(torch.minimum(torch.minimum(body, tail), fin)), scales, over=[(eye, _WHITE), (pupil, _BLACK)]
    )


def _car(f: Frame) -> Drawing:
    cabin = f.polygon((-0.4, -0.45), (0.3, -0.45), (0.6, 0.05), (-0.6, 0.05))
    body = torch.minimum(f.box(0.0, 0.2, 0.95, 0.25), cabin)
    shade = torch.where(f.v > 0.2, 0.72, 1.0)  # the lower half of the doors lies in shadow
    windows = torch.minimum(
        f.polygon((-0.33, -0.34), (-0.06, -0.34), (-0.06, 0.0), (-0.46, 0.0)),
        f.polygon((0.06, -0.34), (0.25, -0.34), (0.46, 0.0), (0.06, 0.0)),
    )
    tyres = torch.minimum(f.circle(-0.52, 0.45, 0.25), f.circle(0.52, 0.45, 0.25))
    hubs = torch.minimum(f.circle(-0.52, 0.45, 0.1), f.circle(0.52, 0.45, 0.1))
    return Drawing(
        f.cover(body), shade, over=[(f.cover(windows), _GLASS), (f.cover(tyres), _BLACK), (f.cover(hubs), _WHITE)]
    )


def _house(f: Frame) -> Drawing:
    boards = _waves(16 * f.v + 6 * f.chance[0], 0.75, 1.0)
    roof = f.cover(f.polygon((0.0, -0.95), (0.92, -0.15), (-0.92, -0.15)))
    door = f.cover(f.box(-0.28, 0.52, 0.16, 0.36))
    window, bars = f.box(0.32, 0.3, 0.2, 0.2), torch.minimum((f.u - 0.32).abs(), (f.v - 0.3).abs()) - 0.035
    return Drawing(
        f.cover(f.box(0.0, 0.35, 0.7, 0.53)),
        boards,
        over=[(roof, _STONE), (door, _WOOD), (f.cover(window), _WHITE), (f.cover(torch.maximum(window, bars)), _BLACK)],
    )


def _shirt(f: Frame) -> Drawing:
    sleeves = torch.minimum(f.line(-0.38, -0.5, -0.8, -0.02, 0.2), f.line(0.38, -0.5, 0.8, -0.02, 0.2))
    cloth = torch.minimum(f.box(0.0, 0.08, 0.46, 0.76), sleeves)
    cloth = torch.maximum(cloth, -f.circle(0.0, -0.74, 0.24))
    stripes = torch.where(torch.sin((9 + 5 * f.chance[0]) * f.v + 6 * f.chance[1]) > 0, 0.5, 1.0)
    return Drawing(f.cover(cloth), stripes)


def _kite(f: Frame) -> Drawing:
    diamond = f.polygon((0.0, -0.95), (0.6, -0.35), (0.0, 0.45), (-0.6, -0.35))
    quarters = torch.where((f.u > 0) == (f.v > -0.35), 1.0, 0.55)
    swing = 0.13 * torch.sin(8 * f.v + 6 * f.chance[0])
    tail = torch.maximum((f.u - swing).abs() - 0.05, (f.v - 0.7).abs() - 0.28)
    rods = torch.maximum(torch.minimum(f.u.abs(), (f.v + 0.35).abs()) - 0.035, diamond)
    return Drawing(f.cover(diamond), quarters, under=[(f.cover(tail), _BLACK)], over=[(f.cover(rods), _BLACK)])


@dataclass(frozen=True)
class ToyObject:
    """One class: how it is drawn, and how far it may be turned to either side, in degrees."""

    draw: Callable[[Frame], Drawing]
    turn: float


OBJECTS: dict[str, ToyObject] = {
    "banana": ToyObject(_banana, 180.0),
    "tree": ToyObject(_tree, 20.0),
    "ball": ToyObject(_ball, 180.0),
    "apple": ToyObject(_apple, 35.0),
    "flower": ToyObject(_flower, 35.0),
    "fish": ToyObject(_fish, 40.0),
    "car": ToyObject(_car, 20.0),
    "house": ToyObject(_house, 15.0),
    "shirt": ToyObject(_shirt, 35.0),
    "kite": ToyObject(_kite, 60.0),
}
