"""How much of a bare training loop's speed does Pretint's loop keep, and how much faster is it than a plain one?

Three loops over the same U-Net and palette task, interleaved, median images per second:

* ours: the loop that `pretint pretrain` runs, with gather, augmentation, labels, finite check and log;
* bare: forward, backward and AdamW on one fixed batch, same network, precision and memory layout;
* plain: the same as bare in float32 and NCHW, as most people write it, in a process of its own, whose memory is managed as
  that of any other program (`pretint.runtime.device` tells the C library to keep freed memory, for the whole process).

    python benchmarks/throughput.py --width 32 --rounds 5
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

import torch
import tyro
from machine import describe
from timm.optim import param_groups_weight_decay

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import build_palette
from pretint.data import Batch, Batches, make_toy
from pretint.pretext import PaletteTask, PretextModel, build_model
from pretint.runtime.device import Compute
from pretint.runtime.loop import LoopSettings, Loss, Training
from pretint.runtime.runlog import RunLog


@dataclass(frozen=True)
class Options:
    """Throughput of three loops.

    Attributes:
        width: of the U-Net encoder.
        batch_size: images a step.
        steps: steps timed a round.
        rounds: rounds; the median is printed.
    """

    width: int = 32
    batch_size: int = 256
    steps: int = 8
    rounds: int = 5


def make(
    options: Options, compute: Compute, images: int
) -> tuple[PretextModel, PaletteTask, Batches, torch.optim.Optimizer]:
    source = make_toy("train", n=images).to(compute.device)
    palette = build_palette(lambda: iter([source.images]), 24, "rgb")
    task = PaletteTask(Preprocess(), palette)
    torch.manual_seed(0)
    model = compute.place(build_model(task, create_backbone("pretint_unet", width=options.width)))
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, 0.05), lr=1e-3, fused=True)
    return model, task, Batches(source, options.batch_size, seed=0, device=compute.device), optimizer


class Rates(RunLog):
    """A silent log that keeps each epoch's images per second."""

    def __init__(self, total_steps: int):
        super().__init__(None, "benchmark", total_steps, quiet=True)
        self.values: list[float] = []

    def epoch(self, row: dict[str, float | int]) -> None:
        self.values.append(row["images_per_second"])


def ours(options: Options, compute: Compute, between: Callable[[int], None]) -> list[float]:
    """Rates of the loop of `pretint pretrain`, an epoch a round; `between` is called after each."""
    model, task, batches, optimizer = make(options, compute, options.steps * options.batch_size)

    def loss_of(batch: Batch) -> Loss:
        inputs, targets = task.split(batch)
        with compute.autocast():
            predictions = model(compute.layout(inputs))
        return task.loss(predictions, targets)

    settings = LoopSettings(epochs=options.rounds + 1)
    training = Training(model, optimizer, batches, loss_of, lambda: {"validation_loss": 0.0}, compute, settings)
    with Rates(training.total_steps) as log:
        training.run(log, between)
    return log.values


def fixed_batch(options: Options, compute: Compute) -> Callable[[], float]:
    model, task, batches, optimizer = make(options, compute, options.batch_size)
    inputs, targets = task.split(next(batches.epoch(0)))
    inputs = compute.layout(inputs)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(options.steps):
            optimizer.zero_grad(set_to_none=True)
            with compute.autocast():
                numerator, denominator = task.loss(model(inputs), targets)
            (numerator / denominator).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        return options.steps * options.batch_size / (time.perf_counter() - start)

    return run


def _serve_plain(options: Options, device: torch.device, requests: Connection) -> None:
    """A round of the plain loop for each request, until one is False."""
    run = fixed_batch(options, Compute(device, bf16=False, channels_last=False))
    while requests.recv():
        requests.send(run())


@contextmanager
def plain(options: Options, device: torch.device) -> Iterator[Callable[[], float]]:
    """The plain loop in a process of its own; each call is a round."""
    context = multiprocessing.get_context("spawn")
    requests, served = context.Pipe()
    process = context.Process(target=_serve_plain, args=(options, device, served))
    process.start()

    def run() -> float:
        requests.send(True)
        return requests.recv()

    try:
        yield run
    finally:
        requests.send(False)
        process.join()


def main(options: Options) -> None:
    best = Compute.choose()
    with plain(options, best.device) as run_plain:
        compare(options, best, run_plain)


def compare(options: Options, best: Compute, run_plain: Callable[[], float]) -> None:
    """Interleaves the loops and prints their rates."""
    loops = {f"bare ({best.precision}, channels_last)": fixed_batch(options, best), "plain (fp32, NCHW)": run_plain}
    rates: dict[str, list[float]] = {name: [] for name in loops}

    def run_others(_epoch: int) -> None:
        for name, run in loops.items():
            rates[name].append(run())

    rates = {"ours": ours(options, best, run_others), **rates}
    rates = {name: values[1:] for name, values in rates.items()}  # the first round warms up
    medians = {name: median(values) for name, values in rates.items()}
    print(describe(), end="\n\n")
    print("| loop | images/s (median) | range | ours / it |\n|---|---|---|---|")
    for name, rate in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"| {name} | {rate:.0f} | {low:.0f}–{high:.0f} | {medians['ours'] / rate:.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
