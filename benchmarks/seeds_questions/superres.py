"""Can the same network enlarge? Pictures painted from 8 × 8 pixels, beside what needs no network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pretint.colour import shrink, to_float, to_uint8
from pretint.evaluation import ColourQuality, contact_sheet
from pretint.evaluation.tables import percent_text
from pretint.pretext import Decoding
from pretint.pretext.superres import coarse

from .bench import Answer, Bench, Picture, measured, shown
from .tables import colour_comparison, measure

_FACTOR = 4


def from_small_to_large(bench: Bench) -> Answer:
    run = bench.preset("toronto-superres")
    horses = bench.test_pictures("horse")
    rgb = shown(horses)
    ways = {"painted, mode": Decoding("mode"), "painted, mean": Decoding("mean")}
    entries, painted = {}, {}
    for name, way in ways.items():
        run.painter.decoding = way
        entries[name] = measured(run, horses)
        painted[name] = run.painter.paint(rgb)
    labels = next(iter(entries.values()))
    plain = {"8 × 8 pixels": coarse, "bicubic": bicubic}
    all_pictures = horses.gather(torch.arange(len(horses)))
    for name, enlarge in plain.items():
        quality = ColourQuality()
        quality.update(enlarge(all_pictures), all_pictures)
        entries[name] = quality.compute()
    accuracy = (
        f"Palette: {measure(labels, 'cross_entropy_nats')} nats, top-1 {percent_text(labels['top1'])} "
        f"(grey lookup {percent_text(labels['grey_lookup_top1'])}, which sees each pixel's true grey)."
    )
    # The all-grey picture is no baseline here: it has the true lightness, which is what is asked for.
    table = colour_comparison(entries, baselines=("true",))
    rows = {"8 × 8": coarse(rgb), **painted, "bicubic": bicubic(rgb), "true": rgb}
    sheet = contact_sheet(list(rows.values()), list(rows), scale=2)
    caption = "Test horses as 8 × 8 pixels, painted from these by the network, enlarged without one, and true"
    return Answer([*table, "", accuracy], [Picture("superres", caption, sheet)])


def bicubic(rgb: Tensor) -> Tensor:
    """The picture averaged over 4 × 4 pixels and enlarged again bicubically."""
    small = to_float(shrink(rgb, _FACTOR))
    return to_uint8(F.interpolate(small, size=rgb.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1))
