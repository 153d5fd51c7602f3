"""Is there a loadable checkpoint after a `kill -9` at any moment of a save, and is it never older than the last that was reported?

A process saves one checkpoint after another, whose numbers all are their own step, and says when each is done. It is killed at a
random moment, and what it left is loaded: the step must be at least the last one that was reported, every number must be that step,
and the best checkpoint must load too.

    python benchmarks/kills.py --rounds 50
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import tempfile
import time
from ctypes import c_longlong
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from machine import describe
from torch import nn

from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.errors import RunFolderError
from pretint.runtime.files import is_temporary


@dataclass(frozen=True)
class Options:
    """Kills during saves.

    Attributes:
        rounds: processes killed.
        width: of the square matrix that is saved; 1000 makes checkpoints of 8 MB.
        seed: of the moments.
    """

    rounds: int = 50
    width: int = 1000
    seed: int = 0


def small_state(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(width, width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return model, optimizer


def save_without_end(folder: Path, width: int, reported: c_longlong) -> None:
    """Saves step after step; every fourth is the best. `reported` has no lock, which a killed process would hold for ever."""
    torch.set_num_threads(1)
    model, optimizer = small_state(width)
    checkpoints = Checkpoints(folder)
    for step in itertools.count(1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(step)
                optimizer.state[parameter]["momentum_buffer"].fill_(step)
        best = max(1, step - step % 4)
        checkpoints.save(model, optimizer, {"step": step, "best_step": best}, best)
        reported.value = step


def look(folder: Path, width: int, reported: int) -> tuple[int | None, int | None, str]:
    """Newest and best step that load, and what is wrong."""
    model, optimizer = small_state(width)
    try:
        newest = Checkpoints(folder).load_last(model, optimizer)["step"]
        tensors = [p.detach() for p in model.parameters()] + [
            optimizer.state[p]["momentum_buffer"] for p in model.parameters()
        ]
        pure = all(bool((tensor == newest).all()) for tensor in tensors)
        best = Checkpoints(folder).load_best(model)["step"]
    except RunFolderError as error:
        return None, None, str(error)
    return newest, best, "" if pure and newest >= reported else "mixed or too old"


def main(options: Options) -> None:
    print(describe())
    context, moments = multiprocessing.get_context("forkserver"), random.Random(options.seed)
    context.set_forkserver_preload(["torch", "pretint.runtime.checkpoints"])
    good = 0
    print("| round | killed after s | saves reported | newest loaded | best loaded | half files left | |")
    print("|---|---|---|---|---|---|---|")
    for round_ in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(dir=".") as name:
            folder, reported = Path(name) / "checkpoints", context.RawValue("q", 0)
            process = context.Process(target=save_without_end, args=(folder, options.width, reported))
            process.start()
            while not reported.value:
                time.sleep(0.001)
            seconds = moments.uniform(0.0, 0.5)
            time.sleep(seconds)
            process.kill()
            process.join()
            left = sum(is_temporary(one) for one in os.listdir(folder))
            newest, best, wrong = look(folder, options.width, reported.value)
        good += not wrong
        print(
            f"| {round_} | {seconds:.3f} | {reported.value} | {newest} | {best} | {left} | {wrong or 'whole'} |",
            flush=True,
        )
    print(f"\n{good} of {options.rounds} kills left a loadable checkpoint that is no older than the last one reported.")


if __name__ == "__main__":
    main(tyro.cli(Options))
