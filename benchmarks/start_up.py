"""How long does a user wait for the command's help, for an import, and for the first training step?

Every figure is of fresh processes, one after another in rounds. *The first step*: from the start of the process to the end of the
optimiser's first step, as the default recipe of `pretint pretrain` does it on as many pictures as CIFAR-10 has, in an .npz file:
imports, reading, palette and its tables, network, first batch.

    python benchmarks/start_up.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import tyro
from machine import describe

from pretint.recipes.timing import example_pictures
from pretint.runtime.rounds import interleaved

# torch calls the hook behind every optimiser's step; monotonic clocks of two processes of one machine agree
_FIRST_STEP = """
import os, sys, time, torch
from torch.optim.optimizer import register_optimizer_step_post_hook

def stop(*_):
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    print(time.monotonic(), flush=True)
    os._exit(0)

register_optimizer_step_post_hook(stop)
from pretint.cli import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Options:
    """Start-up.

    Attributes:
        images: of the training set.
        rounds: timed rounds; the median is printed.
    """

    images: int = 50_000
    rounds: int = 5


def seconds(*arguments: str) -> float:
    """That a fresh interpreter takes with these arguments."""
    start = time.monotonic()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def seconds_to_first_step(data: Path, out: Path) -> float:
    start = time.monotonic()
    words = ["pretrain", "--data", str(data), "--out", str(out), "--overwrite"]
    child = subprocess.run([sys.executable, "-c", _FIRST_STEP, *words], check=True, capture_output=True, text=True)
    return float(child.stdout.split()[-1]) - start


def save_pictures(path: Path, count: int) -> Path:
    images = example_pictures(32).images.permute(0, 2, 3, 1).numpy()
    np.savez(path, images=images[np.arange(count) % len(images)])
    return path


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as name:
        data = save_pictures(Path(name) / "pictures.npz", options.images)
        works = {
            "`python -c pass`": lambda: seconds("-c", "pass"),
            "`import pretint`": lambda: seconds("-c", "import pretint"),
            "`pretint --help`": lambda: seconds("-m", "pretint", "--help"),
            "`import torch`": lambda: seconds("-c", "import torch"),
            "`from pretint.backbones import load_backbone`": lambda: seconds(
                "-c", "from pretint.backbones import load_backbone"
            ),
            "`pretint pretrain --help`": lambda: seconds("-m", "pretint", "pretrain", "--help"),
            f"`pretint pretrain`, first step, {options.images} pictures": lambda: seconds_to_first_step(
                data, Path(name) / "run"
            ),
        }
        found = interleaved(works, options.rounds)
    print(describe(), end="\n\n")
    print("| what | seconds (median) | range |\n|---|---|---|")
    for what, values in found.items():
        print(f"| {what} | {median(values):.2f} | {min(values):.2f}–{max(values):.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
