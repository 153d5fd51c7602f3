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


def line(name: str, folder: Path) -> str:
    entries: list[dict[str, Any]] = read_results(folder)["colour"]
    rows = RunFolder.open(folder).read_metrics()
    cells = [f"`{name}`", PRESETS[name].expected, str(len(rows)), f"{sum(row['seconds'] for row in rows):.0f} s"]
    colour = entries[0] if entries else {}
    cells += [
        f"{_number(colour, 'cross_entropy_nats', 3)} ({_number(colour, 'grey_lookup_cross_entropy_nats', 3)})",
        f"{_percent(colour, 'top1')} ({_percent(colour, 'grey_lookup_top1')})",
        _number(colour, "bits_per_pixel", 3),
        f"{_number(colour, 'ab_rmse', 2)} ({_number(colour, 'grey_ab_rmse', 2)})",
        _number(colour, "delta_e2000", 2),
        _number(colour, "delta_m3", 1),
        f"{_number(colour, 'auc', 1)} ({_number(colour, 'grey_auc', 1)})",
        f"{_number(colour, 'auc_rebalanced', 1)} ({_number(colour, 'grey_auc_rebalanced', 1)})",
    ]
    return f"| {' | '.join(cells)} |"


def _number(row: dict[str, Any], key: str, digits: int) -> str:
    return "–" if row.get(key) is None else f"{row[key]:.{digits}f}"


def _percent(row: dict[str, Any], key: str) -> str:
    return "–" if row.get(key) is None else f"{100 * row[key]:.1f} %"


def main(options: Options) -> None:
    folders = {name: make_run(name, options) for name in options.names}
    print(describe(), end="\n\n")
    print(
        "| preset | published | epochs | training | nats (grey lookup) | top-1 (grey lookup) | bits/pixel | ab-RMSE (all grey) "
        "| ΔE2000 | ΔM3 | AuC raw (all grey) | AuC rebalanced (all grey) |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name, folder in folders.items():
        print(line(name, folder))


if __name__ == "__main__":
    main(tyro.cli(Options))
