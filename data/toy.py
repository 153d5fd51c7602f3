"""What is the toy data set? Ten classes of generated scenes whose true colour distribution is known.

In grey, the class shows by shape and texture. In colour, a class is of one of three kinds: "fixed" (one colour),
"two-way" (one of two colours, half and half, of equal rec601 luma, so that the grey picture says nothing of which) or
"free" (any hue at one luma). Background, light, position, size, clutter and noise have the same distribution for every
class.

Light only scales a colour: every painted pixel is its object's colour times a number, which leaves the ratio of red,
green and blue as :func:`toy_colours` gives it. The constants were fixed by looking at the pictures, and never by any
result of training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from ..runtime.errors import ArgumentError, UnknownNameError
from ..runtime.randomness import hash_uniform
from .tensors import TensorSource
from .toy_objects import OBJECTS, Drawing, Frame
from .toy_scenery import STREAMS as _SCENERY_STREAMS
from .toy_scenery import draw_scenery

TOY_CLASSES: tuple[str, ...] = tuple(OBJECTS)
DEFAULT_SIZES = {"train": 20_000, "test": 4_000}

_LUMA = (0.299, 0.587, 0.114)
_FIXED = {"banana": (0.95, 0.83, 0.20), "tree": (0.20, 0.52, 0.22), "ball": (0.93, 0.50, 0.13)}
# The second colour is scaled to the luma of the first.
_TWO_WAY = {
    "apple": ((0.93, 0.22, 0.18), (0.28, 0.54, 0.24)),
    "flower": ((0.92, 0.42, 0.62), (0.45, 0.62, 0.95)),
    "fish": ((0.93, 0.48, 0.15), (0.20, 0.70, 0.75)),
}
_FREE_LUMA, _FREE_CHROMA = 0.50, 0.21
_FREE_SHOWN = 24

# Stream numbers of runtime.randomness; the split takes the place of the epoch, the scene's id that of the image.
_SPLITS = {"train": 0x7001, "test": 0x7002}
_X, _Y, _SIZE, _TURN, _MIRROR, _LIGHT, _LIGHT_FROM, _CHOICE, _HUE = range(0x200, 0x209)
_VARIETY, _SCENERY, _NOISE, _GRAIN = 0x210, 0x220, 0x300, 0x301
assert _SCENERY + _SCENERY_STREAMS <= _NOISE

# Pictures are drawn in blocks of one fixed shape, so that the arithmetic, to the last bit, is the same for one picture
# or many.
_BLOCK = 64
_NOISE_SHARE = 0.08


@dataclass(frozen=True)
class ToyColour:
    """The true colours of a class: its kind, and its equally likely colours (k, 3) in full light, RGB 0 … 1.

    A free class has any hue; its colours here are 24 evenly spaced ones.
    """

    kind: Literal["fixed", "two-way", "free"]
    colours: Float[Tensor, "k 3"]


@dataclass(frozen=True)
class ToyScenes:
    """Scenes with everything that is known of them.

    Args:
        images: uint8 RGB (n, 3, s, s).
        labels: int64 (n,), positions in TOY_CLASSES.
        masks: bool (n, s, s), the pixels that show nothing but the object's paint.
        paints: float32 (n, 3), the object's colour in full light; a painted pixel is this times its light.
        choices: int64 (n,), which of its class's colours that is; -1 for the free kind.
    """

    images: UInt8[Tensor, "n 3 s s"]
    labels: Int64[Tensor, " n"]
    masks: Bool[Tensor, "n s s"]
    paints: Float[Tensor, "n 3"]
    choices: Int64[Tensor, " n"]


def toy_colours() -> dict[str, ToyColour]:
    """The true distribution of the object's colour, by class name.

    >>> toy_colours()["apple"].kind, toy_colours()["apple"].colours.shape
    ('two-way', torch.Size([2, 3]))
    """
    colours = {name: ToyColour("fixed", torch.tensor([rgb])) for name, rgb in _FIXED.items()}
    for name, (first, second) in _TWO_WAY.items():
        scale = _luma_of(first) / _luma_of(second)
        colours[name] = ToyColour("two-way", torch.tensor([first, tuple(scale * value for value in second)]))
    hues = _free_colour(torch.arange(_FREE_SHOWN) / _FREE_SHOWN)
    return {name: colours.get(name, ToyColour("free", hues)) for name in TOY_CLASSES}


def make_toy(split: str = "train", n: int | None = None, seed: int = 0, image_size: int = 32) -> TensorSource:
    """The toy data set: `n` generated scenes, equally many of each class; picture i is the same whatever `n` is.

    Args:
        split: "train" or "test"; the two share no scene.
        n: how many; None: 20,000 for train, 4,000 for test.
        seed: a different seed gives entirely different scenes.
        image_size: side in pixels; the same scenes, drawn finer or coarser.

    Raises:
        UnknownNameError, ArgumentError: no such split, or a number below 1.
    """
    if split not in _SPLITS:
        raise UnknownNameError("split", split, _SPLITS)
    n = DEFAULT_SIZES[split] if n is None else n
    if n < 1:
        raise ArgumentError(f"n: got {n}; the toy needs at least 1 picture.")
    scenes = draw_toy(torch.arange(n), split=split, seed=seed, image_size=image_size)
    return TensorSource(scenes.images, scenes.labels, TOY_CLASSES, name="toy", split=split)


def draw_toy(
    ids: Int64[Tensor, " n"], *, split: str = "train", seed: int = 0, image_size: int = 32, choice: int | None = None
) -> ToyScenes:
    """The scenes with these ids, with masks and true colours. The class of scene i is i modulo 10.

    Args:
        choice: None: as :func:`make_toy` draws them; 0 or 1: every two-way object in its first or second colour, the
            rest of the scene unchanged (what the same scene would look like had the apple been green).
    """
    if split not in _SPLITS:
        raise UnknownNameError("split", split, _SPLITS)
    if image_size < 1:
        raise ArgumentError(f"image_size: got {image_size}; a picture has at least 1 pixel a side.")
    n = len(ids)
    images = torch.empty(n, 3, image_size, image_size, dtype=torch.uint8)
    masks = torch.empty(n, image_size, image_size, dtype=torch.bool)
    paints, choices = torch.empty(n, 3), torch.empty(n, dtype=torch.int64)
    labels = ids % len(TOY_CLASSES)
    with _one_thread():
        for label, name in enumerate(TOY_CLASSES):
            for rows in torch.nonzero(labels == label).flatten().split(_BLOCK):
                padded = torch.nn.functional.pad(ids[rows], (0, _BLOCK - len(rows)))
                block = _draw_block(name, padded, (seed, _SPLITS[split]), image_size, choice)
                for whole, part in zip((images, masks, paints, choices), block, strict=True):
                    whole[rows] = part[: len(rows)]
    return ToyScenes(images, labels, masks, paints, choices)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The blocks fit a core's cache; a second thread would only wait for the first (measured: up to 4 times slower)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _draw_block(
    name: str, ids: Int64[Tensor, " b"], key: tuple[int, int], size: int, choice: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, masks, paints and choices of scenes of one class."""

    def chance(stream: int) -> Float[Tensor, "b 1 1"]:
        return hash_uniform(*key, ids, stream)[:, None, None]

    steps = (torch.arange(size) + 0.5) * (2 / size) - 1
    x, y = steps[None, None, :].expand(1, size, size), steps[None, :, None].expand(1, size, size)
    grain = _pixel_noise(ids, key, size, _GRAIN, blade=max(size // 10, 1))
    picture = draw_scenery(x, y, grain, lambda k: chance(_SCENERY + k), lambda u: _free_colour(u.flatten()))
    drawing = OBJECTS[name].draw(_frame(x, y, chance, OBJECTS[name].turn))
    paints, choices = _paint(name, chance, choice)
    light = _light(x, y, chance)
    hidden = torch.zeros_like(drawing.paint)
    for cover, colour, shade in _layers(drawing, paints):
        picture += cover[:, None] * (colour * (light * shade)[:, None] - picture)
    for cover, _ in drawing.over:
        hidden = torch.maximum(hidden, cover)
    noise = 1 + _NOISE_SHARE * (2 * _pixel_noise(ids, key, size, _NOISE) - 1)
    images = (picture * noise[:, None] * 255).round_().clamp_(0, 255).to(torch.uint8)
    return images, (drawing.paint == 1) & (hidden == 0), paints, choices


def _layers(drawing: Drawing, paints: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Cover (b, h, w), colour (b or 1, 3, 1, 1) and shade (b, h, w) of each part, from the back to the front."""
    plain = torch.ones_like(drawing.paint)

    def part(cover: Tensor, colour: tuple[float, float, float]) -> tuple[Tensor, Tensor, Tensor]:
        return cover, torch.tensor(colour)[None, :, None, None], plain

    painted = (drawing.paint, paints[:, :, None, None], drawing.shade)
    return [*(part(*p) for p in drawing.under), painted, *(part(*p) for p in drawing.over)]


def _frame(x: Tensor, y: Tensor, chance: Callable[[int], Tensor], turn: float) -> Frame:
    """Object coordinates: shifted, turned, scaled, and mirrored half the time."""
    scale = 0.52 + 0.34 * chance(_SIZE)
    angle = (2 * chance(_TURN) - 1) * math.radians(turn)
    dx, dy = x - 0.5 * (chance(_X) - 0.5), y - 0.5 * (chance(_Y) - 0.5)
    u = (dx * torch.cos(angle) + dy * torch.sin(angle)) / scale
    v = (dy * torch.cos(angle) - dx * torch.sin(angle)) / scale
    u = torch.where(chance(_MIRROR) < 0.5, -u, u)
    return Frame(u, v, (2 / x.shape[-1]) / scale, (chance(_VARIETY), chance(_VARIETY + 1), chance(_VARIETY + 2)))


def _light(x: Tensor, y: Tensor, chance: Callable[[int], Tensor]) -> Float[Tensor, "b h w"]:
    """Light on the object, in 0.46 … 0.95, falling off to one side. At most 0.95: with noise, no channel is clipped."""
    angle = chance(_LIGHT_FROM) * 2 * math.pi
    slope = 1 + 0.15 * (x * torch.cos(angle) + y * torch.sin(angle)) / math.sqrt(2)
    return (0.63 + 0.32 * chance(_LIGHT)) * slope / 1.15


def _paint(name: str, chance: Callable[[int], Tensor], choice: int | None) -> tuple[Tensor, Tensor]:
    """The object's colour (b, 3), and which of its class's colours that is (b,)."""
    truth = toy_colours()[name]
    if truth.kind == "free":
        hue = chance(_HUE).flatten()
        return _free_colour(hue), torch.full(hue.shape, -1)
    k = len(truth.colours)
    choices = (chance(_CHOICE).flatten() * k).to(torch.int64)
    if choice is not None and k > 1:
        choices = torch.full_like(choices, choice)
    return truth.colours[choices], choices


def _free_colour(hue: Float[Tensor, " b"]) -> Float[Tensor, "b 3"]:
    """A colour of luma 0.5 from a hue in [0, 1): a circle in the plane of Cb and Cr (ITU-R BT.601)."""
    cb, cr = _FREE_CHROMA * torch.cos(2 * math.pi * hue), _FREE_CHROMA * torch.sin(2 * math.pi * hue)
    return torch.stack(
        [_FREE_LUMA + 1.402 * cr, _FREE_LUMA - 0.344136 * cb - 0.714136 * cr, _FREE_LUMA + 1.772 * cb], 1
    )


def _luma_of(rgb: tuple[float, float, float]) -> float:
    return sum(weight * value for weight, value in zip(_LUMA, rgb, strict=True))


def _pixel_noise(ids: Tensor, key: tuple[int, int], size: int, stream: int, blade: int = 1) -> Float[Tensor, "b s s"]:
    """A uniform number per picture and pixel, the same for `blade` pixels from top to bottom."""
    rows = torch.arange(size) // blade
    pixel = rows[:, None] * size + torch.arange(size)  # (s, s)
    return hash_uniform(*key, (ids[:, None] * (size * size) + pixel.flatten()).flatten(), stream).view(-1, size, size)
