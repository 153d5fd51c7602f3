"""How many pictures a second are painted: by the network alone, and by `pretint colourize` from file to file?

A run of the default recipe is trained for one epoch on few scenes, since the speed does not depend on what it learnt. *The network
alone*: batches in memory, from uint8 RGB to painted uint8 RGB. *A photograph*: of any size in memory, painted at its size while the
network sees it small. *From file to file*: the whole verb on JPEG files, opening the run, decoding, painting and writing PNG files.

    python benchmarks/colourize.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import tyro
from machine import describe
from PIL import Image

from pretint.data import make_toy, register_source
from pretint.recipes import ColourizeConfig, colourize, open_run, preset_config, pretrain
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved


@dataclass(frozen=True)
class Options:
    """Pictures a second.

    Attributes:
        run: a trained run; one is trained quickly by default.
        sides: width and height of the photographs, in turn.
        photographs: files of each size.
        batch_size: of the network alone.
        seconds: that a round of the network alone lasts about.
        rounds: timed rounds; the median is printed.
    """

    run: Path | None = None
    sides: tuple[int, ...] = (256, 256, 640, 480, 1920, 1080)
    photographs: int = 16
    batch_size: int = 256
    seconds: float = 2.0
    rounds: int = 5


def trained(folder: Path) -> Path:
    scenes = {split: make_toy(split, 512) for split in ("train", "test")}
    register_source("scenes", lambda split, **_: scenes[split])
    pretrain(preset_config("pretint", data="scenes", epochs=1, out=folder))
    return folder


def save_photographs(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """JPEG files with coarse colours and some noise."""
    folder.mkdir(parents=True)
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (9, 16, 3), np.uint8))
        picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        picture = picture + random.integers(-12, 13, picture.shape)
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def per_second(work: Callable[[], int]) -> float:
    """Pictures per second of work that says how many it painted."""
    start = time.perf_counter()
    painted = work()
    return painted / (time.perf_counter() - start)


def loops_of(options: Options, run: Path, folder: Path) -> dict[str, Callable[[], float]]:
    opened = open_run(run, Compute.choose())
    painter, size = opened.painter, opened.config.image_size
    batch = make_toy("test", options.batch_size, image_size=size).images.to(painter.compute.device)

    def network_alone() -> int:
        end, painted = time.perf_counter() + options.seconds, 0
        while time.perf_counter() < end:
            painted += len(painter.paint(batch).cpu())
        return painted

    loops = {f"the network alone, {size} × {size}": lambda: per_second(network_alone)}
    for width, height in zip(options.sides[::2], options.sides[1::2], strict=True):
        where = folder / f"{width}x{height}"
        paths = save_photographs(where, width, height, options.photographs)
        loaded = [torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).contiguous() for path in paths]
        files = ColourizeConfig(run=run, pictures=(where,), out=folder / "painted" / where.name)
        loops |= {
            f"a photograph, {width} × {height}": lambda loaded=loaded: per_second(
                lambda: len([painter.colourize(picture, size) for picture in loaded])
            ),
            f"from file to file, {width} × {height}": lambda files=files: per_second(
                lambda: len(colourize(files).results["painted"])
            ),
        }
    return loops


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loops = loops_of(options, options.run or trained(folder / "run"), folder)
        rates = interleaved(loops, options.rounds)
    print(describe(), end="\n\n")
    print("| what | pictures/s (median) | range |\n|---|---|---|")
    for what, values in rates.items():
        print(f"| {what} | {median(values):,.1f} | {min(values):,.1f}–{max(values):,.1f} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
