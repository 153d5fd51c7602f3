"""What happens on images unlike the training set? Networks that saw horses alone paint ships and generated scenes."""

from __future__ import annotations

from .bench import Answer, Bench, Picture, measured, shown
from .drawing import grey_of, side_by_side
from .tables import beside, table

_RUNS = ("toronto-unet", "toronto-convtranspose")
_COLUMNS = 4


def unlike_the_training_set(bench: Bench) -> Answer:
    runs = {name: bench.preset(name) for name in _RUNS}
    sources = {
        "horses": bench.test_pictures("horse"),
        "ships": bench.test_pictures("ship"),
        "toy scenes": bench.test_pictures(data="toy"),
    }
    rows, groups = [], {}
    for what, source in sources.items():
        for name, run in runs.items():
            entry = measured(run, source)
            gain = 100 * (1 - entry["ab_rmse"] / entry["grey_ab_rmse"])
            rows.append([
                what, f"`{name}`", beside(entry, "top1", "grey_lookup"), beside(entry, "ab_rmse", "grey"),
                f"{gain:+.0f} %".replace("-", "−"), beside(entry, "delta_e2000", "grey"),
                f"{entry['colourfulness']:.0f} ({entry['colourfulness_true']:.0f})",
            ])  # fmt: skip
        rgb = shown(source)[:_COLUMNS] if what == "toy scenes" else shown(source)[:: len(shown(source)) // _COLUMNS]
        painted = [run.painter.paint(rgb) for run in runs.values()]
        groups[what] = [grey_of(rgb, next(iter(runs.values())).config.grey), *painted, rgb]
    header = [
        "pictures", "trained on horses", "top-1 (grey lookup)", "ab-RMSE (all grey)", "gain over grey", "ΔE2000 (all grey)",
        "colourfulness (true)",
    ]  # fmt: skip
    labels = ["grey", *(name.removeprefix("toronto-") for name in runs), "true"]
    caption = "Horses, ships and toy scenes: grey, painted by two networks that were trained on horses, and true"
    return Answer(table(header, rows), [Picture("elsewhere", caption, side_by_side(groups, labels, scale=3))])
