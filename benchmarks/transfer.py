"""What does each pretext teach the same encoder in the same time?

Every method trains the encoder of preset `pretint` for so many minutes (as many whole epochs as fit), from grey input unless the
table says otherwise; then a linear probe reads the classes off the frozen features with all labels. Random weights are the control,
and training with labels on grey input is the ceiling. Of methods with two encoders both halves together and the luma half alone
are probed. A run that is there already is not made again, so the script can be stopped and started.

    python benchmarks/transfer.py --data cifar10 --minutes 5 --seeds 0 1 2
    python benchmarks/transfer.py --data cifar10 --minutes 10 --methods random pretint --grid 4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import tyro
from machine import describe

from pretint.downstream import HYPERCOLUMN
from pretint.evaluation.tables import percent_text
from pretint.recipes import PRESETS, PretrainConfig, ProbeConfig, pretrain, probe
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder

_PIXELS: dict[str, Any] = {k: PRESETS["pretint"].settings[k] for k in ("predict_at", "decoder", "skips")}
_HALVES: dict[str, Any] = {"width": PRESETS["pretint"].settings["width"] // 2}
_LAB: dict[str, Any] = {"grey": "lstar", "chroma": "ab"}
METHODS: dict[str, dict[str, Any]] = {
    "random": {"task": "random"},
    "autoencoder": {"task": "autoencoder", **_PIXELS},
    "rotation": {"task": "rotation"},
    "rgb-regression": {"task": "rgb-regression", **_PIXELS},
    "lab-regression": {"task": "lab-regression", "grey": "lstar", **_PIXELS},
    "palette-rgb": {"task": "palette", "palette_space": "rgb", **_PIXELS},
    "palette-ab": {"task": "palette", "palette_space": "ab", "grey": "lstar", **_PIXELS},
    "palette-cbcr": {"task": "palette", "palette_space": "cbcr", **_PIXELS},
    "bins": {"task": "bins", "grey": "lstar", **_PIXELS},
    "split-brain": {"task": "split-brain", "palette_space": "ab", **_LAB, **_PIXELS, **_HALVES},
    "contrast": {"task": "contrast", "augment": "flip-resized-crop", **_HALVES},
    "palette+contrast": {"task": "palette+contrast", "palette_space": "cbcr", "augment": "flip-resized-crop", **_PIXELS, **_HALVES},
    "supervised": {"task": "supervised"},
    "pretint": PRESETS["pretint"].settings,
}  # fmt: skip
# what the probed encoder sees -> the part of the run's encoder that it is, for single encoders and for pairs
INPUTS: tuple[dict[str, str | None], dict[str, str | None]] = (
    {"grey": None},
    {"luma and chroma": None, "grey": "luma"},
)
_COMMON = ("backbone", "width", "depth", "blocks", "learning_rate", "batch_size", "warmup_epochs")


@dataclass(frozen=True)
class Options:
    """Transfer of several pretexts at equal time.

    Attributes:
        data: labelled data with a train and a test split.
        out: folder of the run folders.
        methods: their names; besides the default ones `pretint`, the preset as it is.
        minutes: of training for each.
        seeds: of everything random; each is a run of its own.
        grid: cells a side that stages are pooled to, besides their global averages.
    """

    data: str = "cifar10"
    out: Path = Path("runs/transfer")
    methods: tuple[str, ...] = tuple(name for name in METHODS if name != "pretint")
    minutes: float = 5.0
    seeds: tuple[int, ...] = (0,)
    grid: int = 2

    @property
    def hypercolumn(self) -> str:
        """The layer of all stages, pooled to the grid."""
        return f"{HYPERCOLUMN}/{self.grid}x{self.grid}"


def make_run(name: str, seed: int, options: Options) -> Path:
    folder = options.out / f"{name}-{options.minutes:g}min-seed{seed}"
    common = {k: v for k, v in PRESETS["pretint"].settings.items() if k in _COMMON}
    if not (folder / "results.json").exists():
        settings = {**common, **METHODS[name]}
        pretrain(
            PretrainConfig(
                data=options.data, minutes=options.minutes, seed=seed, paint_every=1000, out=folder, overwrite=True, **settings
            )
        )  # fmt: skip
    rows = read_results(folder)["transfer"]
    probed = {row["sees"] for row in rows if options.hypercolumn in row["per_layer"]}
    for sees, part in INPUTS[is_pair(name)].items():
        if sees not in probed:
            probe(ProbeConfig(run=folder, part=part, grid=options.grid, control=False, seed=seed))
    return folder


def is_pair(name: str) -> bool:
    return "split-brain" in name or "contrast" in name


def print_table(runs: dict[str, list[Path]], options: Options) -> None:
    print(describe(), end="\n\n")
    grid = f"all stages, {options.grid} × {options.grid}"
    print(f"| method | encoder sees | epochs | training | best stage | all stages | {grid} | headline |")
    print("|---|---|---|---|---|---|---|---|")
    for name, folders in runs.items():
        for sees, part in INPUTS[is_pair(name)].items():
            rows = [next(row for row in read_results(folder)["transfer"] if row["sees"] == sees) for folder in folders]
            metrics = [RunFolder.open(folder).read_metrics() for folder in folders]
            cells = [f"{name}, {part} half" if part else name, sees]
            cells += [f"{fmean(len(m) for m in metrics):.0f}"]
            cells += [f"{fmean(sum(row['seconds'] for row in m) for m in metrics) / 60:.1f} min"]
            cells += [
                _spread([_layer(row, which) for row in rows]) for which in ("stage", HYPERCOLUMN, options.hypercolumn)
            ]
            print(f"| {' | '.join([*cells, _spread([row['top1'] for row in rows])])} |")


def _layer(row: dict[str, Any], which: str) -> float:
    """Test accuracy of a layer; of the single stages, of the one that was best on held-out training images."""
    if which != "stage":
        return row["per_layer"][which]["test_top1"]
    stages = [layer for name, layer in row["per_layer"].items() if name.startswith("stage") and "/" not in name]
    return max(stages, key=lambda layer: layer["validation_top1"])["test_top1"]


def _spread(values: list[float]) -> str:
    return percent_text(fmean(values), stdev(values) if len(values) > 1 else None)


def main(options: Options) -> None:
    runs = {name: [make_run(name, seed, options) for seed in options.seeds] for name in options.methods}
    print_table(runs, options)


if __name__ == "__main__":
    main(tyro.cli(Options))
