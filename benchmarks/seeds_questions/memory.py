"""Can the smallest network learn one picture by heart, and what does it know of others?"""

from __future__ import annotations

import torch

from pretint.recipes.training_data import open_training_source

from .bench import Answer, Bench, Picture, measured, shown
from .drawing import grey_of, side_by_side
from .tables import beside, table


def learnt_by_heart(bench: Bench) -> Answer:
    # The preset's own picture, the first of all, is an aeroplane with next to no colour: nothing to learn.
    run = bench.preset("wallner-alpha", "wallner-alpha-bird", classes=("bird",))
    own = open_training_source(run.config, bench.compute)
    sources = {"the picture it learnt": own, "test pictures": bench.test_pictures()}
    rows = []
    for name, source in sources.items():
        entry = measured(run, source)
        measures = [beside(entry, key, "grey") for key in ("ab_rmse", "delta_e2000", "delta_m3")]
        rows.append([name, f"{len(source):,}", *measures])
    lines = table(["pictures", "number", "ab-RMSE (all grey)", "ΔE2000 (all grey)", "ΔM3 (all grey)"], rows)
    groups = {}
    for name, rgb in (("learnt", own.gather(torch.arange(1))), ("never seen", shown(sources["test pictures"])[:11])):
        groups[name] = [grey_of(rgb, run.config.grey), run.painter.paint(rgb), rgb]
    caption = "Grey, painted and true: the one picture of the training, and eleven of the test split"
    return Answer(lines, [Picture("memory", caption, side_by_side(groups, ["grey", "painted", "true"]))])
