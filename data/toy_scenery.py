"""What stands behind the toy objects? Four kinds of background and some clutter, as likely for every class."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Uniform = Callable[[int], Tensor]

# Colours in full light. Their kind shows in grey by its texture, so that they can be learned too.
BACKGROUNDS = {
    "sky": (0.45, 0.66, 0.93),
    "grass": (0.38, 0.62, 0.24),
    "table": (0.66, 0.45, 0.26),
    "wall": (0.74, 0.71, 0.67),
}
_CLOUD = 0.93
_CLUTTER = 3

# What each chance decides (added to the first stream number given).
_KIND, _LIGHT, _PHASE_X, _PHASE_Y, _FREQUENCY, _CLUTTER_FROM, _PER_CLUTTER = 0, 1, 2, 3, 4, 8, 8
STREAMS = _CLUTTER_FROM + _CLUTTER * _PER_CLUTTER


def draw_scenery(
    x: Float[Tensor, "1 h w"],
    y: Float[Tensor, "1 h w"],
    grain: Float[Tensor, "b h w"],
    chance: Uniform,
    hue: Callable[[Tensor], Tensor],
) -> Float[Tensor, "b 3 h w"]:
    """Backgrounds with clutter, RGB in 0 … 0.95.

    Args:
        x, y: picture coordinates, -1 … 1.
        grain: noise in [0, 1), one number per blade of grass.
        chance: chance(k) is a uniform number per picture (b, 1, 1), k below STREAMS.
        hue: turns a uniform number per picture (b, 1, 1) into a colour (b, 3) of the free kind.
    """
    kind = (chance(_KIND) * len(BACKGROUNDS)).to(torch.int64)  # (b, 1, 1)
    picture = _background(x, y, grain, chance, kind)
    for k in range(_CLUTTER):
        offset = _CLUTTER_FROM + k * _PER_CLUTTER
        cover, colour = _clutter(x, y, lambda i, offset=offset: chance(offset + i), hue)
        picture = picture + cover[:, None] * (colour - picture)
    return picture


def _background(x: Tensor, y: Tensor, grain: Tensor, chance: Uniform, kind: Int64[Tensor, "b 1 1"]) -> Tensor:
    """One of four textures (b, h, w) times its colour, in a random light; clouds are white on the sky."""
    a, b, frequency = chance(_PHASE_X) * 2 * math.pi, chance(_PHASE_Y) * 2 * math.pi, 1 + chance(_FREQUENCY)
    clouds = ((torch.sin(3 * frequency * x + a) + torch.sin(5 * y + 2 * x + b)) * 0.9 - 0.7).clamp_(0, 0.8)
    sky = 0.85 + 0.15 * y
    grass = 0.5 + 0.5 * grain
    wood = 0.8 + 0.2 * torch.sin(7 * frequency * y + 0.8 * torch.sin(2 * x + a) + b)
    row = torch.floor(2.5 * y + a)  # bricks: every other row is shifted by half a brick
    along, up = torch.frac(1.6 * x + b + 0.5 * torch.remainder(row, 2)).abs(), torch.frac(2.5 * y + a).abs()
    bricks = torch.where((along < 0.12) | (up < 0.2), 0.72, 1.0)
    textures = torch.stack(torch.broadcast_tensors(sky, grass, wood, bricks), 1)  # (b, 4, h, w)
    index = kind[:, None].expand(-1, 1, *x.shape[1:])
    light = (0.35 + 0.6 * chance(_LIGHT)) * textures.gather(1, index)[:, 0]  # (b, h, w)
    colours = torch.tensor(list(BACKGROUNDS.values()), device=x.device)[kind.flatten()][:, :, None, None]
    clouds = torch.where(kind == 0, clouds, 0.0)[:, None]
    return light[:, None] * (colours + clouds * (_CLOUD - colours))


def _clutter(x: Tensor, y: Tensor, chance: Uniform, hue: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """A disc, a bar or nothing anywhere in the picture: its cover (b, h, w) and colour (b, 3, 1, 1), of any hue."""
    u, v = x - 2 * chance(0) + 1, y - 2 * chance(1) + 1
    radius, angle = 0.1 + 0.25 * chance(2), chance(3) * math.pi
    along, across = u * torch.cos(angle) + v * torch.sin(angle), v * torch.cos(angle) - u * torch.sin(angle)
    disc, bar = torch.hypot(u, v) - radius, torch.maximum(along.abs() - 2 * radius, across.abs() - 0.3 * radius)
    pixel = 2 / x.shape[-1]
    shape = chance(4)
    cover = (0.5 - torch.where(shape < 0.5, disc, bar) / pixel).clamp_(0, 1)
    colour = hue(chance(5)) * (0.35 + 0.6 * chance(6).flatten(1))
    return torch.where(shape < 0.75, cover, 0.0), colour[:, :, None, None]
