"""How long does a run that gets SIGTERM take until its checkpoint is complete and its processes are gone?

A run is asked to stop at a random moment of its training. Inside the clock: from the signal, which the command itself gets as a
scheduler would send it, to the end of the command, launcher included. Then exit code and newest checkpoint are looked at: it must
load, and be of the step that the command named, and no half file may be left.

    python benchmarks/stopping.py --rounds 5
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro
from machine import describe

from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.files import file_sha256, is_temporary, read_json
from pretint.runtime.runfolder import RunFolder
from pretint.runtime.tensors import read_tensors


@dataclass(frozen=True)
class Options:
    """Stops of running trainings.

    Attributes:
        processes: numbers of processes to try.
        rounds: runs of each.
        backbones: the networks.
        images: of an epoch.
        seed: of the moments.
    """

    processes: tuple[int, ...] = (1, 2)
    rounds: int = 5
    backbones: tuple[str, ...] = ("pretint_unet", "pretint_unet_base")
    images: int = 4096
    seed: int = 0


def stop(backbone: str, processes: int, options: Options, wait: float, out: Path) -> tuple[float, str]:
    """Seconds from the signal to the end, and what is wrong."""
    words = [
        "--data", "toy", "--limit", options.images, "--task", "palette", "--backbone", backbone, "--epochs", 1000,
        "--paint-every", 1000, "--processes", processes, "--out", out, "--save-every", 4,
    ]  # fmt: skip
    command = [sys.executable, "-m", "pretint", "pretrain", *map(str, words)]
    checkpoints = Checkpoints(RunFolder(out).checkpoints)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not checkpoints.steps:
            if process.poll() is not None:
                raise SystemExit(process.stderr.read())
            time.sleep(0.1)
        time.sleep(wait)
        begin = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
        seconds = time.perf_counter() - begin
    named = re.search(r"Stopped at step (\d+)", said)
    if process.returncode != 143 or named is None:
        return seconds, f"exit code {process.returncode}: {said[-200:]}"
    return seconds, look(checkpoints, int(named[1]))


def look(checkpoints: Checkpoints, step: int) -> str:
    """What is wrong with the checkpoint of this step, which is to be the newest."""
    path, files = checkpoints.path(step), read_json(checkpoints.folder / "manifest.json")["files"]
    half = [name for name in os.listdir(checkpoints.folder) if is_temporary(name)]
    if half or checkpoints.steps[-1] != step:
        return f"half files {half}, newest of step {checkpoints.steps[-1]} instead of {step}"
    return "" if read_tensors(path) and file_sha256(path) == files[path.name]["sha256"] else f"{path.name} is damaged"


def main(options: Options) -> None:
    moments = random.Random(options.seed)
    print(describe(), "\n")
    print("| network | processes | stops | complete | seconds | longest |\n|---|---|---|---|---|---|")
    for backbone in options.backbones:
        for processes in options.processes:
            with tempfile.TemporaryDirectory() as folder:
                stops = [
                    stop(backbone, processes, options, moments.uniform(0.0, 4.0), Path(folder) / f"run-{number}")
                    for number in range(options.rounds)
                ]
            for _, wrong in stops:
                if wrong:
                    print(wrong, file=sys.stderr)
            seconds = [each for each, _ in stops]
            whole = sum(not wrong for _, wrong in stops)
            print(
                f"| {backbone} | {processes} | {len(stops)} | {whole} | {median(seconds):.1f} | {max(seconds):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
