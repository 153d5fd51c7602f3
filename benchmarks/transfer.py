"""What does the pretext teach? Pretrains, probes and reports runs on a data set, and prints one table.

The defaults are the first result of docs/results.md: a U-Net encoder on CIFAR-10, five epochs each with 24 RGB colours, 24 chroma
colours and RGB regression, a linear probe on all labels, and random weights as control. A run that is there already is not made
again, so the script can be stopped and started.

    python benchmarks/transfer.py --data cifar10 --out runs/transfer
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from machine import describe

from pretint.recipes import PretrainConfig, ProbeConfig, ReportConfig, pretrain, probe, report
from pretint.recipes.options import plain
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder

TASKS: dict[str, dict[str, Any]] = {
    "palette-rgb": {"task": "palette", "palette_space": "rgb"},
    "palette-cbcr": {"task": "palette", "palette_space": "cbcr"},
    "rgb-regression": {"task": "rgb-regression"},
}


@dataclass(frozen=True)
class Options:
    """Transfer of several pretexts.

    Attributes:
        data: labelled data with a train and a test split.
        out: folder of the run folders.
        backbone: an encoder's name.
        width: of our own encoders.
        epochs: of pretraining.
        seed: of everything random.
    """

    data: str = "cifar10"
    out: Path = Path("runs/transfer")
    backbone: str = "pretint_unet"
    width: int = 32
    epochs: int = 5
    seed: int = 0


def make_run(name: str, settings: dict[str, Any], options: Options) -> Path:
    folder = options.out / name
    config = PretrainConfig(
        data=options.data, backbone=options.backbone, width=options.width, epochs=options.epochs, seed=options.seed,
        paint_every=1, out=folder, overwrite=True, **settings,
    )  # fmt: skip
    finished = (folder / "results.json").exists()
    if not finished or RunFolder.open(folder).config["settings"] != plain(config):
        pretrain(config)
    if not read_results(folder)["transfer"]:
        probe(ProbeConfig(run=folder, seed=options.seed))
    return folder


def print_table(folders: list[Path]) -> None:
    print(describe(), end="\n\n")
    print(
        "| run | training | bits/pixel (grey lookup) | ab-RMSE (all grey) | ΔM3 "
        "| best stage | random | gain | all stages | random | gain |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for path in folders:
        results = read_results(path)
        colour = results["colour"][0]
        rows = {row["init"]: row for row in results["transfer"] if row["protocol"] == "linear"}
        seconds = sum(row["seconds"] for row in RunFolder.open(path).read_metrics())
        bits, lookup = (_number(colour.get(key)) for key in ("bits_per_pixel", "grey_lookup_bits_per_pixel"))
        cells = [path.name, f"{seconds / 60:.1f} min", f"{bits} ({lookup})"]
        cells += [f"{colour['ab_rmse']:.2f} ({colour['grey_ab_rmse']:.2f})", f"{colour['delta_m3']:.1f}"]
        for choose in (_best_stage, _all_stages):
            mine, control = choose(rows["pretrained"]), choose(rows["random"])
            cells += [f"{100 * mine:.1f} %", f"{100 * control:.1f} %", f"{100 * (mine - control):+.1f}"]
        print(f"| {' | '.join(cells)} |")


def _best_stage(row: dict[str, Any]) -> float:
    """Test accuracy of the single stage that was best on held-out training images."""
    stages = [layer for name, layer in row["per_layer"].items() if name != "all"]
    return max(stages, key=lambda layer: layer["validation_top1"])["test_top1"]


def _all_stages(row: dict[str, Any]) -> float:
    return row["per_layer"]["all"]["test_top1"]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main(options: Options) -> None:
    folders = [make_run(name, settings, options) for name, settings in TASKS.items()]
    report(ReportConfig(runs=tuple(folders), out=options.out / "report.html"))
    print_table(folders)


if __name__ == "__main__":
    main(tyro.cli(Options))
