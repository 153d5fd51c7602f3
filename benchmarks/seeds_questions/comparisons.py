"""What changes when one thing about a system changes? Two runs side by side on the same test horses."""

from __future__ import annotations

from collections.abc import Mapping

from pretint.evaluation import contact_sheet
from pretint.recipes import Run

from .bench import Answer, Bench, Picture, measured, shown, training_seconds
from .drawing import grey_of
from .tables import colour_comparison

_MINUTES = 2.0
_HORSES = ("horse",)


def regression_or_classification(bench: Bench) -> Answer:
    runs = {
        "regression": bench.preset("toronto-regression", "toronto-regression-25", epochs=25),
        "classification": bench.preset("toronto-unet"),
    }
    return _compare(bench, "regression-classification", runs)


def bottleneck_or_skips(bench: Bench) -> Answer:
    # The same time, optimiser and rate for both: networks are compared here, and not SGD with AdamW.
    training = {
        "classes": _HORSES,
        "minutes": _MINUTES,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "batch_size": 128,
        "schedule": "cosine",
    }
    runs = {
        "dense bottleneck": bench.preset("cs520-autoencoder", "horses-autoencoder", patience=None, **training),
        "U-Net": bench.preset("cifar100-unet", "horses-unet", **training),
    }
    return _compare(bench, "bottleneck-skips", runs)


def _compare(bench: Bench, name: str, runs: Mapping[str, Run]) -> Answer:
    horses = bench.test_pictures(*_HORSES)
    rgb = shown(horses)
    entries = {label: measured(run, horses) for label, run in runs.items()}
    spent = ", ".join(
        f"{label} {training_seconds(run):.0f} s ({len(run.folder.read_metrics())} epochs)"
        for label, run in runs.items()
    )
    painted = {label: run.painter.paint(rgb) for label, run in runs.items()}
    rows = {"grey": grey_of(rgb, next(iter(runs.values())).config.grey), **painted, "true": rgb}
    caption = f"Test horses grey, painted by {' and by '.join(runs)}, and true"
    sheet = contact_sheet(list(rows.values()), list(rows), scale=2)
    return Answer([*colour_comparison(entries), "", f"Training: {spent}."], [Picture(name, caption, sheet)])
