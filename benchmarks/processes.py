"""What do several processes cost on one machine: how fast are they beside one process with all threads?

Both train the same network on generated scenes by `pretint pretrain`, one after the other in each round; the median of the epochs'
images per second is printed, the first epoch of each run left out. The processes share the threads out.

    python benchmarks/processes.py --processes 2 --threads 2
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro
from machine import describe

from pretint.runtime.runfolder import RunFolder


@dataclass(frozen=True)
class Options:
    """Throughput of several processes beside one.

    Attributes:
        processes: how many.
        threads: of one process alone; each of several has its part of them.
        images: of an epoch.
        epochs: of a run, the first of which is not counted.
        rounds: runs of each.
        width: of the U-Net encoder.
        batch_size: images a step, of all processes together.
        precision: auto, bf16 or fp32.
    """

    processes: int = 2
    threads: int = 2
    images: int = 4096
    epochs: int = 4
    rounds: int = 3
    width: int = 32
    batch_size: int = 256
    precision: str = "auto"


def rates(options: Options, processes: int, out: Path) -> list[float]:
    """Images per second of the epochs of one run."""
    words = [
        "--data", "toy", "--limit", options.images, "--task", "palette", "--backbone", "pretint_unet", "--width", options.width,
        "--batch-size", options.batch_size, "--epochs", options.epochs, "--paint-every", options.epochs, "--device", "cpu",
        "--precision", options.precision, "--processes", processes, "--out", out, "--overwrite",
    ]  # fmt: skip
    command = [sys.executable, "-m", "pretint", "pretrain", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [row["images_per_second"] for row in RunFolder.open(out).read_metrics()[1:]]


def main(options: Options) -> None:
    found: dict[int, list[float]] = {1: [], options.processes: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for processes, values in found.items():
                values += rates(options, processes, Path(folder) / "run")
    print(describe(), "\n")
    print("| processes | threads each | images/s | of one process |\n|---|---|---|---|")
    for processes, values in found.items():
        share = median(values) / median(found[1])
        print(f"| {processes} | {max(1, options.threads // processes)} | {median(values):,.0f} | {share:.2f} × |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
