"""The table of feature health: a line for each encoder and layer, mean and spread over seeds."""

from __future__ import annotations

import io

from rich.console import Console

from pretint.evaluation import features_table


def entry(init: str, seed: int, rank: float, **changes: object) -> dict:
    figures = {"effective_rank": rank, "dead_channels": 0.25, "uniformity": -2.5, "alignment": None}
    return {"init": init, "seed": seed, "layer": "stage1", "sees": "grey", **figures, **changes}


def test_seeds_are_one_line_and_runs_are_named():
    entries = [entry("pretrained", seed, rank, run="a") for seed, rank in ((0, 10.0), (1, 12.0))]
    entries += [entry("pretrained", 0, 5.0, run="b"), entry("random", 0, 3.0, leaks=None)]
    console = Console(width=120, color_system=None, file=io.StringIO(), record=True)
    console.print(features_table(entries))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["a:", "pretrained", "stage1", "11.0", "±", "1.4", "25.0%", "±", "0.0%", "-2.50", "±", "0.00", "–"] in lines
    assert ["b:", "pretrained", "stage1", "5.0", "25.0%", "-2.50", "–"] in lines
    assert ["random", "weights", "stage1", "3.0", "25.0%", "-2.50", "–"] in lines
