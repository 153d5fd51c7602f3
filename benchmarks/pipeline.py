"""How fast are batches made, with no network to wait for them: by Pretint, and by torchvision's transforms in a DataLoader?

As many pictures of 32 px as CIFAR-10 has, in memory on both sides. *Augmented*: gathered or opened, flipped and cropped, stacked.
*With grey and labels*: also the network's input and the nearest of 24 colours of each pixel, which the other side finds as people
do, by the distances to all colours. Ours runs in torch's threads, the other in workers, in a process of its own; starting the
workers is not timed.

    python benchmarks/pipeline.py
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from apart import Apart, Loops
from loaders import Fed, Pictures, usual_transform
from machine import describe
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from pretint.data import AUGMENTATIONS, Batches, TensorSource
from pretint.pretext import Task
from pretint.recipes import PretrainConfig
from pretint.recipes.opening import make_model
from pretint.recipes.timing import example_palette, example_pictures
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved, share_of

KINDS = ("augmented", "with grey and labels")


@dataclass(frozen=True)
class Options:
    """Batches a second.

    Attributes:
        augmentations: to compare.
        images: in memory; an epoch of them is a round of ours.
        batch_size: images a batch.
        workers: of the DataLoader.
        rounds: timed rounds; the median is printed.
        seconds: that a round of the other side lasts about.
    """

    augmentations: tuple[str, ...] = AUGMENTATIONS
    images: int = 50_000
    batch_size: int = 256
    workers: int = 2
    rounds: int = 5
    seconds: float = 1.0


def ours(source: TensorSource, task: Task, options: Options, augment: str, device: torch.device) -> Loops:
    """Images per second of an epoch of batches."""
    batches = Batches(source, options.batch_size, seed=0, augment=augment, device=device)
    epochs = itertools.count()

    def run(with_targets: bool) -> float:
        start = time.perf_counter()
        for batch in batches.epoch(next(epochs)):
            if with_targets:
                task.split(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return len(batches) * options.batch_size / (time.perf_counter() - start)

    return {"augmented": lambda: run(False), "with grey and labels": lambda: run(True)}


def repeated(scenes: Tensor, count: int) -> Tensor:
    """So many pictures."""
    return scenes[torch.arange(count) % len(scenes)]


def make_theirs(scenes: Tensor, colours: Tensor, options: Options, augment: str, device: torch.device) -> Loops:
    """The same of a loader, made in the process that runs it."""
    transform = usual_transform(augment, scenes.shape[-1])
    dataset = Pictures(repeated(scenes, options.images), None, transform)

    def grey_and_labels(batch: list[Tensor]) -> tuple[Tensor, Tensor]:
        rgb = batch[0].to(device)
        pixels = rgb.permute(0, 2, 3, 1).flatten(0, 2)  # (b·h·w, 3)
        return (rgb_to_grayscale(rgb) - 0.5) / 0.25, torch.cdist(pixels, colours.to(device)).argmin(1)

    takes: dict[str, Callable[[list[Tensor]], object]] = {
        "augmented": lambda batch: batch[0].to(device),
        "with grey and labels": grey_and_labels,
    }
    loops = {kind: Fed(dataset, options.batch_size, options.workers, take) for kind, take in takes.items()}
    for loop in loops.values():
        loop.settle(options.seconds)
    return {kind: loop.rate for kind, loop in loops.items()}


def main(options: Options) -> None:
    compute, config = Compute.choose(), PretrainConfig()
    scenes = example_pictures(config.image_size)
    palette = example_palette(config, scenes)
    assert palette is not None
    _, task = make_model(config, palette)
    source = TensorSource(repeated(scenes.images, options.images)).to(compute.device)
    print(f"{describe()}; {options.images} pictures, batches of {options.batch_size}\n")
    print("| augmentation | " + " | ".join(f"ours, {kind} | loader, {kind} | ours / loader" for kind in KINDS) + " |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with Apart() as apart:
        for augment in options.augmentations:
            mine = ours(source, task, options, augment, compute.device)
            theirs = apart.make(make_theirs, scenes.images, palette.centres, options, augment, compute.device)
            sides = {"ours": mine, "loader": theirs}
            loops = {(side, kind): sides[side][kind] for kind in KINDS for side in sides}
            rates = interleaved(loops, options.rounds)
            cells = [
                f"{median(rates['ours', kind]):,.0f} | {median(rates['loader', kind]):,.0f} | "
                f"{share_of(rates['ours', kind], rates['loader', kind]):.0f}"
                for kind in KINDS
            ]
            print(f"| {augment} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
