"""How long is it from the command to a trained encoder and to its report of probes, and how much of the chip is at work?

Two tables:

* for each network, in interleaved rounds: images per second of the loop of `pretint pretrain`; the share of the chip's bf16 peak
  that they are, from the operations of the network's forward and backward pass, which are counted; and the share of a step in
  which its pictures, grey and labels are made.
* the commands themselves, start and imports, validation, painting and all files included: `pretint pretrain`, and `pretint probe`
  of the encoder that came out, with its control of random weights.

Pictures are generated, as many as CIFAR-10 has. Where no peak is told, it is that of a product of large matrices.

    python benchmarks/end_to_end.py --epochs 1                        # a processor
    python benchmarks/end_to_end.py --epochs 100 --peak-tflops 989    # an H100 or H200: dense bf16 by their data sheets
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
import torch
import tyro
from cost import operations
from machine import describe
from pipeline import ours as pipeline
from pipeline import repeated

from pretint.data import TensorSource, make_toy
from pretint.recipes import PretrainConfig
from pretint.recipes.opening import make_model
from pretint.recipes.timing import Contender, example_palette, example_pictures
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved, share_of

_PRODUCTS = 10


@dataclass(frozen=True)
class Options:
    """From the command to the probes.

    Attributes:
        encoders: by name; the first is the one that is trained from end to end.
        images: of an epoch.
        tested: of the test split.
        epochs: of training from end to end.
        batch_size: images a step.
        peak_tflops: 10^12 operations a second that the chip can do in bf16; measured if it is not told.
        rounds: timed rounds of the loops; the median is printed.
        seconds: that a round of a loop lasts about.
    """

    encoders: tuple[str, ...] = ("pretint_unet_small", "timm/resnet18")
    images: int = 50_000
    tested: int = 10_000
    epochs: int = 100
    batch_size: int = 256
    peak_tflops: float | None = None
    rounds: int = 3
    seconds: float = 5.0


def measured_peak(compute: Compute) -> float:
    """Operations a second of the product of two large bf16 matrices."""
    side = 8192 if compute.device.type == "cuda" else 4096
    a, b = (torch.randn(side, side, device=compute.device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(_PRODUCTS):
        start = time.perf_counter()
        a @ b
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def show_use(options: Options, compute: Compute) -> None:
    """Images per second, share of the peak and share of the pictures, for each network."""
    peak = 1e12 * options.peak_tflops if options.peak_tflops else measured_peak(compute)
    told = "as told" if options.peak_tflops else "measured by a product of matrices"
    print(f"{compute.precision}, batches of {options.batch_size}; peak: {peak / 1e12:.2f} TFLOP/s, {told}\n")
    print(
        "| encoder, task palette | operations an image, 10^9 | images/s (range) | share of the peak | pictures in a step |"
    )
    print("|---|---|---|---|---|", flush=True)
    for name in options.encoders:
        config = PretrainConfig(backbone=name, batch_size=options.batch_size)
        pictures = example_pictures(config.image_size)
        palette = example_palette(config, pictures)
        model, task = make_model(config, palette)
        each = operations(model, torch.zeros(2, 1, config.image_size, config.image_size))
        pictures = TensorSource(repeated(pictures.images, options.images)).to(compute.device)
        contender = Contender(config, pictures, palette, compute)
        contender.settle(options.seconds)
        made = pipeline(pictures, task, options, config.augment, compute.device)["with grey and labels"]
        rates = interleaved({"training": contender.ours, "pictures": made}, options.rounds)
        training = rates["training"]
        print(
            f"| `{name}` | {each / 1e9:.2f} | {median(training):,.0f} ({min(training):,.0f}–{max(training):,.0f}) "
            f"| {median(training) * each / peak:.0%} | {share_of(training, rates['pictures']):.1%} |",
            flush=True,
        )


def seconds_of(*words: object) -> float:
    start = time.monotonic()
    command = [sys.executable, "-m", "pretint", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def show_commands(options: Options, folder: Path) -> None:
    """Seconds of the commands."""
    data, run = folder / "pictures.npz", folder / "run"
    parts = {"": make_toy("train", options.images), "test_": make_toy("test", options.tested)}
    arrays = {f"{name}images": part.images.permute(0, 2, 3, 1).numpy() for name, part in parts.items()}
    arrays |= {f"{name}labels": part.labels.numpy() for name, part in parts.items() if part.labels is not None}
    np.savez(data, **arrays)
    print("\n| command | seconds |\n|---|---|", flush=True)
    words = [
        "--task",
        "palette",
        "--backbone",
        options.encoders[0],
        "--epochs",
        options.epochs,
        "--batch-size",
        options.batch_size,
    ]
    seconds = seconds_of("pretrain", "--data", data, "--out", run, *words)
    print(
        f"| `pretint pretrain`, {options.epochs} epoch{'s' * (options.epochs != 1)} of {options.images:,} images, "
        f"`{options.encoders[0]}` | {seconds:.1f} |",
        flush=True,
    )
    seconds = seconds_of("probe", run, "--root", folder / "cache")
    print(f"| `pretint probe`, {options.images:,} and {options.tested:,} images | {seconds:.1f} |", flush=True)


def main(options: Options) -> None:
    print(describe(), end="\n\n", flush=True)
    show_use(options, Compute.choose())
    with tempfile.TemporaryDirectory() as folder:
        show_commands(options, Path(folder))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
