"""What do all protocols say of several runs, over several seeds, beside their controls?

`pretint transfer` on runs that are there, such as those of benchmarks/transfer.py, as Markdown: a line for each run, a column for
each protocol: accuracies and their distance from random weights with the same input; and the linear probe's calibration error.
Linear, ridge and kNN probes and few-shot read frozen features; `--finetune` trains the whole network with shares of the labels,
beside training from scratch.

    python benchmarks/protocols.py runs/transfer/palette-cbcr-5min-seed0 runs/transfer/rgb-regression-5min-seed0 --data cifar10
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from machine import describe
from seeds_questions.tables import table
from tyro.conf import Positional

from pretint.evaluation import Comparison, compare
from pretint.evaluation.comparison import own_rows
from pretint.evaluation.tables import encoder_name, percent_text, signed
from pretint.recipes import TransferConfig, transfer
from pretint.recipes.transferring import PROBES, SHARES


@dataclass(frozen=True)
class Options:
    """Every protocol on several runs.

    Attributes:
        runs: their folders.
        data: labelled data with a train and a test split.
        seeds: how many, of labelled subsets, held-out images, few-shot draws and random weights.
        grid: cells a side that stages are pooled to, besides their global averages.
        finetune: shares of the labels to fine-tune with; none by default, since it takes long.
        supervised: train the same network with all labels too.
    """

    runs: Positional[tuple[Path, ...]]
    data: str = "cifar10"
    seeds: int = 3
    grid: int = 1
    finetune: tuple[float, ...] = ()
    supervised: bool = False


def judged(options: Options) -> dict[str, list[Comparison]]:
    """The lines of each run, beside its own controls."""
    outcome = transfer(
        TransferConfig(
            runs=options.runs,
            data=options.data,
            seeds=options.seeds,
            grid=options.grid,
            protocols=(*PROBES, *(["finetune"] if options.finetune else [])),
            finetune=options.finetune or SHARES,
            supervised=options.supervised,
            ceiling=options.supervised,
        )
    )
    found = outcome.results["runs"].items()
    return {Path(folder).name: lines_of(results["transfer"], options) for folder, results in found}


def lines_of(rows: list[dict[str, Any]], options: Options) -> list[Comparison]:
    """Of what a run's folder holds, that which these options asked for."""
    rows = [row for row in rows if row["seed"] < options.seeds and _was_told(row, options)]
    inits = [row["init"] for row in own_rows(rows)]
    init = "pretrained" if "pretrained" in inits else inits[0]  # a run of labels alone is judged as what it is
    own = [row for row in rows if row["init"] == init]
    return compare([*own, *(row for row in rows if row not in own)])


def _was_told(row: dict[str, Any], options: Options) -> bool:
    settings = row.get("settings")
    return settings is not None and settings.get("grid", options.grid) == options.grid


def as_table(runs: dict[str, list[Comparison]]) -> list[str]:
    """A line for each encoder, then one for each control; a column for each protocol."""
    columns = list(dict.fromkeys((line.protocol_name, line.labels_name) for lines in runs.values() for line in lines))
    own, controls = [], {}
    for run, lines in runs.items():
        encoders = dict.fromkeys(encoder_name(line) for line in lines)
        for name in encoders:
            found = {(line.protocol_name, line.labels_name): line for line in lines if encoder_name(line) == name}
            cells = [*(_cell(found.get(column)) for column in columns), _calibration(found.get(columns[0]))]
            if all(line.points is None for line in found.values()):
                controls.setdefault((name, *cells), []).append(run)  # runs of the same network and input share theirs
            else:
                own.append([f"{run}: {name}", *cells])
    heads = [protocol if labels == "all labels" else f"{protocol}, {labels}" for protocol, labels in columns]
    shared = [[f"{name} (of {', '.join(names)})", *cells] for (name, *cells), names in controls.items()]
    return table(["encoder", *heads, f"ECE, {columns[0][0]}"], [*own, *shared])


def _cell(line: Comparison | None) -> str:
    if line is None:
        return "–"
    unclear = " ≈" if line.tone == "unclear" else ""
    points = "" if line.points is None else f" ({signed(line.points)}{unclear})"
    return f"{percent_text(line.top1, line.top1_sd)}{points}"


def _calibration(line: Comparison | None) -> str:
    return "–" if line is None else percent_text(line.ece)


def main(options: Options) -> None:
    runs = judged(options)
    print(describe(), end="\n\n")
    print("\n".join(as_table(runs)))


if __name__ == "__main__":
    main(tyro.cli(Options))
