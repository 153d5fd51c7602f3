"""Does each published system reach here what its authors report?

Runs presets one after another and prints one line each: nats and accuracy on the test split beside the published ones and the
grey-lookup baseline, and the colour metrics beside the all-grey picture's. Presets with a published figure run as they are; the
others, which have none at this size, train for so many minutes. Runs that are finished are not repeated, so it can be stopped and
started again.

    python benchmarks/presets.py --data cifar10
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from machine import describe
from seeds_questions.tables import beside, measure, table

from pretint.recipes import PRESETS, preset_config, pretrain
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder

_AS_THEY_ARE = ("toronto", "wallner-alpha")  # the latter's thousand steps are few


@dataclass(frozen=True)
class Options:
    """Presets against their published figures.

    Attributes:
        names: of presets.
        data: CIFAR-10, by name or as a path; the published figures are of its horses. It stands in for CIFAR-100 too.
        minutes: of training for presets without a published figure.
        out: folder of the run folders.
        seed: of everything random.
    """

    names: tuple[str, ...] = tuple(name for name in PRESETS if name != "pretint")
    data: str = "cifar10"
    minutes: float = 2.0
    out: Path = Path("runs/presets")
    seed: int = 0


def make_run(name: str, options: Options) -> Path:
    folder = options.out / name
    if not (folder / "results.json").exists():
        minutes = None if name.startswith(_AS_THEY_ARE) else options.minutes
        pretrain(
            preset_config(
                name,
                data=options.data,
                minutes=minutes,
                out=folder,
                seed=options.seed,
                overwrite=True,
                paint_every=1000,
            )
        )
    return folder


def cells(name: str, folder: Path) -> list[str]:
    entries: list[dict[str, Any]] = read_results(folder)["colour"]
    rows = RunFolder.open(folder).read_metrics()
    colour = entries[0] if entries else {}
    return [
        f"`{name}`",
        PRESETS[name].expected,
        str(len(rows)),
        f"{sum(row['seconds'] for row in rows):.0f} s",
        beside(colour, "cross_entropy_nats", "grey_lookup"),
        beside(colour, "top1", "grey_lookup"),
        measure(colour, "bits_per_pixel"),
        beside(colour, "ab_rmse", "grey"),
        measure(colour, "delta_e2000"),
        measure(colour, "delta_m3"),
        beside(colour, "auc", "grey"),
        beside(colour, "auc_rebalanced", "grey"),
    ]


def main(options: Options) -> None:
    folders = {name: make_run(name, options) for name in options.names}
    print(describe(), end="\n\n")
    header = [
        "preset", "published", "epochs", "training", "nats (grey lookup)", "top-1 (grey lookup)", "bits/pixel",
        "ab-RMSE (all grey)", "ΔE2000", "ΔM3", "AuC raw (all grey)", "AuC rebalanced (all grey)",
    ]  # fmt: skip
    print("\n".join(table(header, [cells(name, folder) for name, folder in folders.items()])))


if __name__ == "__main__":
    main(tyro.cli(Options))
