"""Is a run that was stopped at a random step and went on equal, to the bit, to one that was not?

For each task one run in one go, and many that are stopped by SIGTERM in a random step and resumed: with shuffling, augmentation,
warm-up, cosine and clipping. Compared are all tensors of the last checkpoint (weights, running statistics, the optimiser's moments)
and the losses in `metrics.csv`.

    python benchmarks/resume.py --steps 20
    python benchmarks/resume.py --steps 20 --processes 1 2
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from machine import describe
from safetensors.torch import load_file

from pretint.data import make_toy
from pretint.recipes import PretrainConfig, pretrain
from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.loop import Training
from pretint.runtime.processes import is_main
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.stopping import Interrupted

_IMAGES, _BATCH, _EPOCHS = 240, 16, 3


@dataclass(frozen=True)
class Options:
    """Resume at random steps.

    Attributes:
        steps: random steps a task.
        tasks: what is learnt.
        precision: auto, bf16 or fp32.
        processes: how many train together, one table each.
        seed: of the steps.
        folder: where a process finds its data that was launched with others; for the script itself.
    """

    steps: int = 20
    tasks: tuple[str, ...] = ("palette", "lab-regression", "contrast")
    precision: str = "auto"
    processes: tuple[int, ...] = (1,)
    seed: int = 0
    folder: Path | None = None


def write_data(path: Path) -> None:
    arrays = {}
    for split, prefix, n in (("train", "", _IMAGES), ("test", "test_", 32)):
        source = make_toy(split, n=n)
        arrays[f"{prefix}images"] = source.images.permute(0, 2, 3, 1).numpy()
        arrays[f"{prefix}labels"] = source.labels.numpy()
    np.savez(path, **arrays)


def train(config: PretrainConfig, stop_in: int | None = None) -> bool:
    """Whether the run came to its end; with `stop_in` the main process gets SIGTERM in the step of that number."""
    original = Training._step

    def step(self: Training[Any], group: list[Any]) -> None:
        if self.state.step + 1 == stop_in and is_main():
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, group)

    Training._step = step
    try:
        pretrain(config)
    except Interrupted:
        return False
    finally:
        Training._step = original
    return True


def outcome(out: Path) -> tuple[dict[str, torch.Tensor], list[tuple[float, ...]]]:
    checkpoints, kept = Checkpoints(out / "checkpoints"), ("epoch", "train_loss", "validation_loss", "learning_rate")
    rows = RunFolder.open(out).read_metrics()
    return load_file(checkpoints.path(checkpoints.steps[-1])), [tuple(row[name] for name in kept) for row in rows]


def compare(task: str, folder: Path, options: Options, processes: int) -> None:
    """Prints a row of the table."""

    def config(out: str, **settings: Any) -> PretrainConfig:
        return PretrainConfig(
            data=str(folder / "data.npz"), task=task, backbone="pretint_unet", width=8, depth=3, epochs=_EPOCHS, holdout=0.1,
            batch_size=_BATCH, colours=8, precision=options.precision, device="cpu", out=folder / out, **settings,
        )  # fmt: skip

    train(config(f"{task}-whole"))
    steps = Checkpoints(folder / f"{task}-whole" / "checkpoints").steps[-1]
    chosen = sorted(random.Random(options.seed).sample(range(1, steps + 1), min(options.steps, steps)))
    different: list[int] = []
    for step in chosen:
        out = f"{task}-{step}"
        stopped = not train(config(out), step)
        train(config(out, resume=True))
        if is_main():
            (tensors, rows), (theirs, their_rows) = outcome(folder / out), outcome(folder / f"{task}-whole")
            same = tensors.keys() == theirs.keys() and all(torch.equal(tensors[k], theirs[k]) for k in theirs)
            if not (stopped and same and rows == their_rows):
                different.append(step)
    if os.environ.get("RANK", "0") == "0":  # between two trainings there is no group that would have a main process
        equal = len(chosen) - len(different)
        listed = ", ".join(map(str, chosen))
        print(
            f"| {task} | {processes} | {steps} | {listed} | {equal} of {len(chosen)} | {different or ''} |", flush=True
        )


def main(options: Options) -> None:
    if options.folder is not None:
        for task in options.tasks:
            compare(task, options.folder, options, options.processes[0])
        return
    print(describe())
    print("| task | processes | steps in all | stopped in step | equal to the bit | different |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    for processes in options.processes:
        with tempfile.TemporaryDirectory() as name:
            write_data(Path(name) / "data.npz")
            if processes == 1:
                main(replace(options, folder=Path(name), processes=(1,)))
                continue
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            words = [
                "--steps",
                options.steps,
                "--precision",
                options.precision,
                "--seed",
                options.seed,
                "--folder",
                name,
            ]
            words += ["--processes", processes, "--tasks", *options.tasks]
            subprocess.run([*launcher, __file__, *map(str, words)], check=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
