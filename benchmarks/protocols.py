"""What do all protocols say of several runs, over several seeds, beside their controls?

`pretint transfer` on runs that are there, such as those of benchmarks/transfer.py, as Markdown: a line for each run and protocol.
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
from pretint.evaluation.tables import encoder_name, percent_text, points_text
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


def judged(options: Options) -> list[dict[str, Any]]:
    """The rows of all runs, each with its name, and each control once."""
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
    rows, controls = [], {}
    for folder, results in outcome.results["runs"].items():
        found = [row for row in results["transfer"] if row["seed"] < options.seeds]
        inits = [row["init"] for row in own_rows(found)]
        init = "pretrained" if "pretrained" in inits else inits[0]  # a run of labels alone is judged as what it is
        own = [row for row in found if row["init"] == init]
        rows += [row | {"run": Path(folder).name} for row in own]
        names = ("init", "sees", "protocol", "labels", "seed")
        controls |= {tuple(row[name] for name in names): row for row in found if row not in own}
    return [*rows, *controls.values()]


def cells(line: Comparison) -> list[str]:
    within = " ≈" if line.tone == "unclear" else ""
    return [
        f"{line.protocol_name}, {line.labels_name}",
        encoder_name(line),
        line.layer or "–",
        percent_text(line.top1, line.top1_sd),
        f"{points_text(line)}{within}",
        percent_text(line.ece),
    ]


def main(options: Options) -> None:
    lines = compare(judged(options))
    print(describe(), end="\n\n")
    print("\n".join(table(["protocol", "encoder", "layer", "top-1", "points", "ECE"], map(cells, lines))))


if __name__ == "__main__":
    main(tyro.cli(Options))
