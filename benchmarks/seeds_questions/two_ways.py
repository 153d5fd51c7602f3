"""What does squared error encourage? Objects that are one of two colours, and which colour each loss paints them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pretint.colour import rgb_to_lab, to_float
from pretint.data import TOY_CLASSES, draw_toy, toy_colours
from pretint.evaluation import contact_sheet
from pretint.pretext import Decoding, Painter
from pretint.recipes import PretrainConfig, Run

from .bench import Answer, Bench, Picture, training_seconds
from .drawing import grey_of
from .tables import table

_SCENES = 2000
_SHOWN = 9
_BATCH = 250
_ALIKE = "classification, mean"  # in the table; in the picture hardly another than annealed
_COMMON: dict[str, Any] = {"data": "toy", "width": 16, "epochs": 5, "paint_every": 1000, "overwrite": True}
_TASKS: dict[str, dict[str, Any]] = {
    "toy-rgb-regression": {"task": "rgb-regression"},
    "toy-lab-regression": {"task": "lab-regression"},
    "toy-classification": {"task": "palette", "palette_space": "ab"},
}


@dataclass(frozen=True)
class TwoWays:
    """Scenes with an object of one of two colours, and what else is known of them.

    Attributes:
        rgb: the scenes, uint8 (n, 3, s, s).
        ways: the same scenes with every object in its first and in its second colour.
        masks: bool (n, s, s), the pixels that show nothing but the object's paint.
        choices: (n,), which of the two colours a scene has.
    """

    rgb: Tensor
    ways: tuple[Tensor, Tensor]
    masks: Tensor
    choices: Tensor

    @property
    def other(self) -> Tensor:
        """The scenes with their objects in the colour that they have not."""
        return torch.where(self.choices.view(-1, 1, 1, 1) == 0, self.ways[1], self.ways[0])

    def chroma(self, rgb: Tensor) -> Tensor:
        """a* and b* (p, 2) of the objects' pixels in pictures of these scenes."""
        return rgb_to_lab(rgb)[:, 1:].permute(0, 2, 3, 1)[self.masks]


def two_way_scenes(count: int) -> TwoWays:
    """The test scenes among the first `count` whose object has a colour that its grey does not tell."""
    labels = [label for label, name in enumerate(TOY_CLASSES) if toy_colours()[name].kind == "two-way"]
    ids = torch.arange(count)
    ids = ids[torch.isin(ids % len(TOY_CLASSES), torch.tensor(labels))]
    scenes = draw_toy(ids, split="test")
    first, second = (draw_toy(ids, split="test", choice=choice).images for choice in (0, 1))
    return TwoWays(scenes.images, (first, second), scenes.masks, scenes.choices)


def what_squared_error_wants(bench: Bench) -> Answer:
    scenes = two_way_scenes(_SCENES)
    runs = {
        name: bench.finished(PretrainConfig(out=bench.options.out / name, seed=bench.options.seed, **_COMMON, **task))
        for name, task in _TASKS.items()
    }
    painted = _paintings(runs, scenes.rgb)
    first, second = (to_float(way) for way in scenes.ways)
    known = {
        "the true pictures": scenes.rgb,
        "the mean of both, in RGB": ((first + second) / 2 * 255).round().to(torch.uint8),
        "all grey": grey_of(scenes.rgb, "rec601"),
    }
    header = [
        "painted by", "ab distance to the nearer colour", "to the mean of both", "pixels nearer to a colour than to the mean",
        "ab-RMSE to the true picture", "chroma",
    ]  # fmt: skip
    rows = [[name, *_row(pictures, scenes)] for name, pictures in (painted | known).items()]
    seconds = ", ".join(f"`{name}` {training_seconds(run):.0f} s" for name, run in runs.items())
    lines = [
        *table(header, rows),
        "",
        f"{len(scenes.rgb)} scenes, {int(scenes.masks.sum()):,} pixels. Training: {seconds}.",
    ]
    rows_shown = {
        "grey": grey_of(scenes.rgb, "rec601"),
        **{name: pictures for name, pictures in painted.items() if name != _ALIKE},
        "true": scenes.rgb,
        "as likely": scenes.other,
    }
    sheet = contact_sheet([rows[:_SHOWN] for rows in rows_shown.values()], list(rows_shown), scale=2)
    caption = "Apples, flowers and fish of the toy data, grey, painted by each task, true, and in their other colour"
    return Answer(lines, [Picture("two-ways", caption, sheet)])


def _paintings(runs: dict[str, Run], rgb: Tensor) -> dict[str, Tensor]:
    painter = runs["toy-classification"].painter
    painted = {
        "RGB regression": _paint(runs["toy-rgb-regression"].painter, rgb),
        "ab regression": _paint(runs["toy-lab-regression"].painter, rgb),
    }
    for mode in ("mode", "annealed", "mean"):
        painter.decoding = Decoding(mode)
        painted[f"classification, {mode}"] = _paint(painter, rgb)
    return painted


def _paint(painter: Painter, rgb: Tensor) -> Tensor:
    return torch.cat([painter.paint(part.to(painter.compute.device)).cpu() for part in rgb.split(_BATCH)])


def _row(pictures: Tensor, scenes: TwoWays) -> list[str]:
    """The measures of one way of painting, over the objects' pixels."""
    painted, true = scenes.chroma(pictures), scenes.chroma(scenes.rgb)
    first, second = (scenes.chroma(way) for way in scenes.ways)
    nearer = torch.minimum((painted - first).norm(dim=1), (painted - second).norm(dim=1))
    middle = (painted - (first + second) / 2).norm(dim=1)
    rmse = (painted - true).square().sum(1).mean().sqrt()
    return [
        f"{nearer.mean():.1f}",
        f"{middle.mean():.1f}",
        f"{100 * (nearer < middle).float().mean():.0f} %",
        f"{rmse:.1f}",
        f"{painted.norm(dim=1).mean():.1f}",
    ]
