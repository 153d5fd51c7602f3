"""Is packing as fast as decoding, and does training on a pack stay as fast and as small however many pictures it has?

Four tables:

* packing JPEG files beside decoding them alone, on all cores, interleaved: both start their processes, read every file once and
  make it a picture of the size asked for; packing also writes, sums and syncs. Files lie in the page cache for both.
* anonymous memory (RssAnon: what is not a page of some file) while batches of a pack are gathered and augmented, one epoch.
* images per second of the same pipeline at three sizes of pack, interleaved slice by slice, after a pass that fills the page cache.
* how long single pictures take to be read, chosen at random, and how many page faults that is. Major faults of a pack that would
  fit into memory are those of a system that gives pages which nobody has touched for a while away early, as that of a virtual
  machine may which shares its host's memory with others (on Linux DAMON's `pageout`).

    python benchmarks/pack.py                    # a million pictures of 64 px: 12.4 GB of disk, given back at the end
    python benchmarks/pack.py --image-size 32    # 3.1 GB
"""

from __future__ import annotations

import functools
import io
import itertools
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import tyro
from machine import anonymous_megabytes, describe
from PIL import Image

from pretint.data import Batch, Batches, ImageSource, make_pack, open_source, register_source
from pretint.data.images import decode_quietly
from pretint.data.workers import in_processes, usable_cores
from pretint.runtime.allocation import keep_freed_memory
from pretint.runtime.rounds import interleaved, share_of

_PATTERNS = 4096
# pictures of a file of the pack, and of a task of decoding: every process has equally many, as few files as by default at 64 px
_EACH = 5000
_SIZES = (10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Options:
    """Packing, memory and throughput.

    Attributes:
        image_size: side of the packed pictures, in pixels.
        files: JPEG files that are packed and decoded.
        side: of those files' pictures, in pixels.
        largest: pictures of the largest pack.
        batch_size: of the pipeline.
        augment: of the pipeline.
        rounds: timed rounds of each comparison, after one that warms up; the median is printed.
        reads: how many single reads are timed.
        folder: where files and packs are made; the system's temporary folder by default.
    """

    image_size: int = 64
    files: int = 40_000
    side: int = 160
    largest: int = 1_000_000
    batch_size: int = 256
    augment: str = "flip-crop"
    rounds: int = 5
    reads: int = 50_000
    folder: Path | None = None


class Generated:
    """As many pictures as are wanted, all different, without a file or a tensor of them: an image source to pack."""

    name, split, labels, class_names, broken = "generated", "train", None, None, ()

    def __init__(self, n: int, size: int):
        self._n, self.image_size, self.fingerprint = n, size, f"generated-{n}-{size}"
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(_PATTERNS, 3, 4, 4, generator=generator)
        self._patterns = (torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") * 255).to(torch.uint8)

    def __len__(self) -> int:
        return self._n

    def gather(self, ids: torch.Tensor, device: torch.device | str | None = None) -> torch.Tensor:
        return self._patterns[ids % _PATTERNS] + (ids // _PATTERNS).to(torch.uint8)[:, None, None, None]

    def labels_of(self, ids: torch.Tensor) -> torch.Tensor | None:
        return None

    def subset(self, ids: object) -> ImageSource:
        raise NotImplementedError

    def to(self, device: torch.device | str) -> ImageSource:
        return self


def main(options: Options) -> None:
    print(describe(), end="\n\n", flush=True)
    keep_freed_memory()  # as every verb does
    with tempfile.TemporaryDirectory(prefix="pretint-pack-", dir=options.folder) as folder:
        compare_packing(options, Path(folder))
        packs = make_packs(options, Path(folder))
        show_memory(options, packs)
        compare_sizes(options, packs)
        show_reading(options, packs)


def compare_packing(options: Options, folder: Path) -> None:
    paths = draw_files(options, folder / "files")
    chunks = [paths[start : start + _EACH] for start in range(0, len(paths), _EACH)]
    decode = functools.partial(decode_chunk, size=options.image_size)

    def decoding() -> float:
        start = time.perf_counter()
        assert sum(in_processes(decode, chunks, usable_cores())) == len(paths)
        return len(paths) / (time.perf_counter() - start)

    def packing() -> float:
        start = time.perf_counter()
        make_pack(
            folder / "files",
            folder / "pack",
            image_size=options.image_size,
            shard_bytes=_EACH * 3 * options.image_size**2,
        )
        seconds = time.perf_counter() - start
        shutil.rmtree(folder / "pack")
        return len(paths) / seconds

    rates = interleaved({"decoding alone": decoding, "pretint data pack": packing}, options.rounds)
    shutil.rmtree(folder / "files")
    print(f"{len(paths)} JPEG files of {options.side} px to {options.image_size} px, {usable_cores()} processes\n")
    print("| | images/s (median) | range | of decoding |\n|---|---|---|---|")
    for name, values in rates.items():
        share = share_of(values, rates["decoding alone"])
        print(f"| {name} | {median(values):.0f} | {min(values):.0f}–{max(values):.0f} | {share:.2f} |")
    print(flush=True)


def decode_chunk(paths: list[Path], size: int) -> int:
    return sum(decode_quietly(path, size).shape[0] == 3 for path in paths)


def draw_files(options: Options, folder: Path) -> list[Path]:
    """JPEG files with coarse colours and some noise, about as hard to decode as photographs of that size."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{number:06}.jpg" for number in range(options.files)]
    for number, path in enumerate(paths):
        if number < 500:
            coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
            picture = np.asarray(coarse.resize((options.side, options.side), Image.Resampling.BICUBIC), np.int16)
            picture = picture + random.integers(-20, 21, picture.shape)
            buffer = io.BytesIO()
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
            path.write_bytes(buffer.getvalue())
        else:
            shutil.copyfile(paths[number % 500], path)
    return paths


def make_packs(options: Options, folder: Path) -> dict[int, Path]:
    """A pack of each size."""
    packs = {}
    for n in sorted({min(n, options.largest) for n in _SIZES}):
        name = f"generated-{n}"
        register_source(name, lambda split, image_size, n=n, **_: Generated(n, image_size), splits=("train",))
        packs[n] = folder / name
        make_pack(name, packs[n], image_size=options.image_size)
    return packs


def pipeline(options: Options, pack: Path) -> Batches:
    source = open_source(pack, image_size=options.image_size)
    return Batches(source, options.batch_size, seed=0, augment=options.augment)


def show_memory(options: Options, packs: dict[int, Path]) -> None:
    print(
        "| pictures | anonymous memory at the start (MB) | highest (MB) | at the end (MB) | growth per 100,000 (MB) |"
    )
    print("|---|---|---|---|---|")
    for n, pack in packs.items():
        batches = pipeline(options, pack)
        for batch in itertools.islice(batches.epoch(0), 20):
            del batch  # the buffers of a batch and the thread that reads are there from here on
        start = highest = anonymous_megabytes()
        for step, _ in enumerate(batches.epoch(1)):
            if step % 50 == 0:
                highest = max(highest, anonymous_megabytes())
        end = anonymous_megabytes()
        print(f"| {n:,} | {start:.1f} | {highest:.1f} | {end:.1f} | {(highest - start) / (n / 1e5):.2f} |", flush=True)
    print()


def forever(batches: Batches) -> Iterator[Batch]:
    for epoch in itertools.count():
        yield from batches.epoch(epoch)


def compare_sizes(options: Options, packs: dict[int, Path]) -> None:
    """Slices of equally many pictures from each pack in turn; those of a small pack are several epochs."""
    smallest = min(packs)
    steps = 10 * (smallest // options.batch_size)

    def rate(stream: Iterator[Batch]) -> float:
        start = time.perf_counter()
        for _ in itertools.islice(stream, steps):
            pass
        return steps * options.batch_size / (time.perf_counter() - start)

    streams = {n: forever(pipeline(options, pack)) for n, pack in packs.items()}
    rates = interleaved({n: functools.partial(rate, stream) for n, stream in streams.items()}, options.rounds)
    print(f"| pictures | images/s (median of {options.rounds}) | range | of {smallest:,} |\n|---|---|---|---|")
    for n, values in rates.items():
        share = share_of(values, rates[smallest])
        print(f"| {n:,} | {median(values):.0f} | {min(values):.0f}–{max(values):.0f} | {share:.3f} |")


def show_reading(options: Options, packs: dict[int, Path]) -> None:
    """Batches as the pipeline reads them go before the pictures that are timed, so that caches are as full of other things."""
    print("\n| pictures | µs to read one: median | 90 % within | 99 % within | mean | major faults a picture | minor |")
    print("|---|---|---|---|---|---|---|")
    for n, pack in packs.items():
        source, stream = open_source(pack, image_size=options.image_size), forever(pipeline(options, pack))
        picks = torch.randint(n, (options.reads,), generator=torch.Generator().manual_seed(0))
        micros, faults = [], [0, 0]
        for each in picks.split(options.batch_size):
            next(stream)
            before = resource.getrusage(resource.RUSAGE_SELF)
            for pick in each.split(1):
                start = time.perf_counter()
                source.gather(pick)
                micros.append((time.perf_counter() - start) * 1e6)
            after = resource.getrusage(resource.RUSAGE_SELF)
            faults[0] += after.ru_majflt - before.ru_majflt
            faults[1] += after.ru_minflt - before.ru_minflt
        shown = [*np.percentile(micros, (50, 90, 99)), np.mean(micros)]
        major, minor = (count / len(micros) for count in faults)
        print(f"| {n:,} | {' | '.join(f'{value:.1f}' for value in shown)} | {major:.4f} | {minor:.2f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
