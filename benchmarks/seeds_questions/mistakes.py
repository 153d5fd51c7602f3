"""Which mistakes make sense? Palette colours painted for one another, and hues painted for other hues."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.colors import CSS4_COLORS, to_rgb
from torch import Tensor

from pretint.colour import delta_e2000, rgb_to_lab
from pretint.data import ImageSource
from pretint.evaluation.swatches import palette_confusion
from pretint.pretext import Painter

from .bench import Answer, Bench, Picture, measured
from .tables import table

# Where hues begin in CIE Lab, in degrees; sRGB's own red lies at 40, yellow at 103, green at 136, cyan at 196, blue at
# 306, magenta at 328. Brown is a dark orange, and counts as yellow's neighbour.
_HUES = {"red": -15.0, "orange to yellow": 50.0, "green": 115.0, "blue": 190.0, "purple": 312.0}
_STRONG, _HARDLY_ANY = 25.0, 10.0  # chroma in ab: a true colour counts from here, a painted one as a colour at all
_DARK_BELOW, _WHITE_ABOVE = 30.0, 75.0  # L* of what has hardly any chroma
_PAIRS = 8


def which_mistakes(bench: Bench) -> Answer:
    run = bench.preset("toronto-unet")
    palette = run.painter.task.palette
    assert palette is not None
    horses = bench.test_pictures("horse")
    counts = torch.tensor(measured(run, horses)["confusion"])
    lightness = rgb_to_lab(palette.colours().t()[None, :, :, None])[0, 0, :, 0]
    order = lightness.argsort()
    counts, colours = counts[order][:, order], palette.colours()[order]
    lines = [*_pairs_table(counts, colours), "", *_hue_table(run.painter, horses)]
    caption = (
        "The palette's 24 colours from dark to light: rows are true colours, columns what was painted, "
        "per cent of each row's pixels"
    )
    return Answer(lines, [Picture("mistakes", caption, palette_confusion(counts, colours))])


def _pairs_table(counts: Tensor, colours: Tensor) -> list[str]:
    """The mistakes that most pixels are of."""
    mistakes = counts.clone().fill_diagonal_(0)
    labs = rgb_to_lab(colours.t()[None, :, :, None])[0, :, :, 0].t()  # (k, 3)
    rows = []
    for place in mistakes.flatten().argsort(descending=True)[:_PAIRS].tolist():
        true, painted = divmod(place, len(counts))
        share = mistakes[true, painted] / counts[true].sum()
        difference = delta_e2000(*(labs[at].view(1, 3, 1, 1) for at in (true, painted))).item()
        lighter = (labs[painted] - labs[true])[0].item()
        rows.append([
            _named(colours[true]), _named(colours[painted]), f"{100 * share:.0f} %",
            f"{100 * mistakes[true, painted] / mistakes.sum():.1f} %", f"{difference:.0f}", f"{lighter:+.0f}".replace("-", "−"),
        ])  # fmt: skip
    header = ["true colour", "painted as", "of this colour's pixels", "of all mistakes", "ΔE2000", "change of L*"]
    return table(header, rows)


def _named(colour: Tensor) -> str:
    """The nearest of the web's colour names, and the colour itself."""
    names = [name for name in CSS4_COLORS if "gray" not in name]  # each of these is there as grey too
    known = torch.tensor([to_rgb(CSS4_COLORS[name]) for name in names]).t()[None, :, :, None]  # (1, 3, names, 1)
    own = colour.float().div(255).view(1, 3, 1, 1).expand_as(known)
    nearest = int(delta_e2000(rgb_to_lab(own.contiguous()), rgb_to_lab(known))[0, :, 0].argmin())
    return f"{names[nearest]} `#{''.join(f'{int(value):02x}' for value in colour)}`"


def _hue_table(painter: Painter, source: ImageSource) -> list[str]:
    """Of the pixels whose true colour is strong: which hue it has, and which was painted."""
    true_hues, painted_hues = [], []
    pixels = 0
    for rgb, painted, _ in painter.predictions(source, torch.arange(len(source))):
        lab, painted_lab = (rgb_to_lab(pictures).transpose(0, 1).flatten(1).cpu() for pictures in (rgb, painted))
        chosen = lab[1:].norm(dim=0) >= _STRONG
        pixels += chosen.numel()
        true_hues.append(_hue(lab[:, chosen]))
        painted_hues.append(_hue(painted_lab[:, chosen], _HARDLY_ANY))
    true_hue, painted_hue = torch.cat(true_hues).numpy(), torch.cat(painted_hues).numpy()
    columns = [*_HUES, "dark grey", "grey", "white"]
    rows = []
    for number, name in enumerate(_HUES):
        of_this = painted_hue[true_hue == number]
        counted = np.bincount(of_this, minlength=len(columns))
        shares = [f"{100 * count / max(len(of_this), 1):.0f} %" for count in counted]
        rows.append([name, f"{100 * len(of_this) / pixels:.1f} %", *shares])
    return table(["strongly", "of all pixels", *(f"painted {name}" for name in columns)], rows)


def _hue(lab: Tensor, least_chroma: float = 0.0) -> Tensor:
    """The number of each colour's hue (3, p) -> (p,); below the least chroma, those of the greys follow."""
    angle = torch.rad2deg(torch.atan2(lab[2], lab[1]))
    starts = torch.tensor(list(_HUES.values()))
    hue = torch.bucketize((angle - starts[0]) % 360, starts - starts[0], right=True) - 1
    dull = len(_HUES) + (lab[0] >= _DARK_BELOW).long() + (lab[0] >= _WHITE_ABOVE).long()
    return torch.where(lab[1:].norm(dim=0) < least_chroma, dull, hue)
