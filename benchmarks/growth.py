"""Do the input pipeline and training stay as fast and as small however many pictures there are?

* The pipeline (gather, augmentation, grey and labels) over 10 k, 100 k and 1 M pictures of 32 px, each in a process of its own:
  microseconds a picture, interleaved slice by slice, and how far anonymous memory (RssAnon: what is not a page of some file) rises
  above what the process holds with its pictures, over one epoch.
* Training itself on 10 k and on 100 k pictures: images per second of whole epochs, interleaved too, and the same memory.

Pictures are a tensor in memory, which is not counted as growth, or, with --data, the first ones of a data set; one that is mapped
from files is no anonymous memory at all.

    python benchmarks/growth.py                      # 3 GB of memory for the pictures
    python benchmarks/growth.py --data FOLDER --sizes 10000 100000
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from apart import Apart, Loops
from machine import anonymous_megabytes, describe

from pretint.data import Batch, Batches, ImageSource, TensorSource, open_source
from pretint.recipes import PretrainConfig
from pretint.recipes.opening import make_model
from pretint.recipes.timing import Contender, example_palette, example_pictures
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved, share_of

_EVERY = 0.05  # seconds between two looks at the memory


@dataclass(frozen=True)
class Options:
    """Growth with the number of pictures.

    Attributes:
        sizes: how many pictures.
        trained: with how many of them training is timed.
        data: pictures of a data set instead, by name or path.
        image_size: side, in pixels.
        augment: of the pipeline.
        batch_size: images a batch.
        backbone: that is trained.
        width: of it.
        slices: pictures between two looks at the clock.
        rounds: timed rounds of the pipeline; the median is printed.
        epochs: timed epochs of training; the median is printed.
    """

    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    trained: tuple[int, ...] = (10_000, 100_000)
    data: str | None = None
    image_size: int = 32
    augment: str = "flip-crop"
    batch_size: int = 256
    backbone: str = "pretint_cnn"
    width: int | None = 8
    slices: int = 100_000
    rounds: int = 5
    epochs: int = 3

    @property
    def config(self) -> PretrainConfig:
        return PretrainConfig(
            backbone=self.backbone,
            width=self.width,
            image_size=self.image_size,
            augment=self.augment,
            batch_size=self.batch_size,
        )


class Peak:
    """The highest anonymous memory of this process while it is looked at."""

    def __init__(self) -> None:
        self.megabytes = anonymous_megabytes()

    @contextmanager
    def watched(self) -> Iterator[Peak]:
        """Looks a few times a second, from a thread."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(_EVERY):
                self.megabytes = max(self.megabytes, anonymous_megabytes())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()
            self.megabytes = max(self.megabytes, anonymous_megabytes())


def pictures_of(options: Options, n: int) -> ImageSource:
    if options.data is not None:
        source = open_source(options.data, image_size=options.image_size)
        return source.subset(torch.arange(min(n, len(source))))
    scenes = example_pictures(options.image_size)
    images = torch.empty(n, *scenes.images.shape[1:], dtype=torch.uint8)
    for rows in torch.arange(n).split(4096):
        images[rows] = scenes.images[rows % len(scenes)]
    return TensorSource(images)


def make_pipeline(options: Options, n: int) -> Loops:
    """The pipeline over n pictures, in the process that runs it."""
    compute, config = Compute.choose("cpu"), options.config  # which keeps freed memory, as every verb does
    source = pictures_of(options, n)
    few = source.subset(torch.arange(min(len(source), 4 * options.batch_size)))
    _, task = make_model(config, example_palette(config, few))

    def batches_of(pictures: ImageSource) -> Batches:
        return Batches(pictures, options.batch_size, seed=0, augment=options.augment, device=compute.device)

    def forever() -> Iterator[Batch]:
        batches = batches_of(source)
        for epoch in itertools.count():
            yield from batches.epoch(epoch)

    def growth() -> float:
        """Megabytes above what there was before an epoch."""
        for _ in range(2):
            for batch in batches_of(few).epoch(0):  # whatever a batch needs is there from here on
                task.split(batch)
        before = Peak()
        with Peak().watched() as peak:
            for batch in batches_of(source).epoch(0):
                task.split(batch)
        return peak.megabytes - before.megabytes

    endless = forever()

    def rate() -> float:
        steps = max(1, options.slices // options.batch_size)
        start = time.perf_counter()
        for batch in itertools.islice(endless, steps):
            task.split(batch)
        return steps * options.batch_size / (time.perf_counter() - start)

    return {"growth": growth, "rate": rate, "pictures": lambda: float(len(source))}


def make_training(options: Options, n: int) -> Loops:
    """Training on n pictures, in the process that runs it."""
    compute, config = Compute.choose("cpu"), options.config
    source = pictures_of(options, n)
    contender = Contender(config, source, example_palette(config, example_pictures(options.image_size)), compute)
    contender.steps = 4
    contender.ours()  # what a step needs is there from here on
    contender.steps = len(source) // options.batch_size
    peaks: list[float] = []

    def rate() -> float:
        before = Peak()
        with Peak().watched() as peak:
            found = contender.ours()
        peaks.append(peak.megabytes - before.megabytes)
        return found

    return {"rate": rate, "growth": lambda: max(peaks), "pictures": lambda: float(len(source))}


def show_pipeline(options: Options) -> None:
    with ExitStack() as stack:
        sides = {n: stack.enter_context(Apart()).make(make_pipeline, options, n) for n in sorted(options.sizes)}
        growth = {n: loops["growth"]() for n, loops in sides.items()}
        counts = {n: round(loops["pictures"]()) for n, loops in sides.items()}
        rates = interleaved({n: loops["rate"] for n, loops in sides.items()}, options.rounds)
    print(
        "| pictures | pipeline, µs a picture (median) | range | of the fewest | memory above the pictures, MB | per 100,000 |"
    )
    print("|---|---|---|---|---|---|")
    fewest = min(rates)
    for n, each in rates.items():
        micro = [1e6 / rate for rate in each]
        share = share_of(rates[fewest], each)
        print(
            f"| {counts[n]:,} | {median(micro):.2f} | {min(micro):.2f}–{max(micro):.2f} | {share:.2f} × | {growth[n]:.1f} "
            f"| {growth[n] / counts[n] * 1e5:.2f} |",
            flush=True,
        )


def show_training(options: Options) -> None:
    with ExitStack() as stack:
        sides = {n: stack.enter_context(Apart()).make(make_training, options, n) for n in sorted(options.trained)}
        rates = interleaved({n: loops["rate"] for n, loops in sides.items()}, options.epochs)
        growth = {n: loops["growth"]() for n, loops in sides.items()}
        counts = {n: round(loops["pictures"]()) for n, loops in sides.items()}
    print(
        f"\n| pictures | training (`{options.backbone}`, width {options.width}), images/s (median) | range | of the fewest "
        "| memory above the pictures, MB | per 100,000 |"
    )
    print("|---|---|---|---|---|---|")
    fewest = min(rates)
    for n, each in rates.items():
        print(
            f"| {counts[n]:,} | {median(each):,.0f} | {min(each):,.0f}–{max(each):,.0f} | {share_of(each, rates[fewest]):.2f} × "
            f"| {growth[n]:.1f} | {growth[n] / counts[n] * 1e5:.2f} |",
            flush=True,
        )


def main(options: Options) -> None:
    print(describe(), end="\n\n", flush=True)
    show_pipeline(options)
    show_training(options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
