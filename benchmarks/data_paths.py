"""What does the data path cost: one network and the same pictures, fed by Pretint, and by torchvision's and lightly's usual way?

Forward and backward pass, clipping and optimiser are the same in all rows, in Pretint's precision and memory layout and in one
process, and so are the task's input and targets; what differs is how pictures come, flipped and cropped, from memory to the loop:

* ours: the loop of `pretint pretrain`: whole batches gathered and augmented on the device;
* torchvision: PIL images, transforms (version 2), DataLoader with workers; uint8 batches, which cost it least;
* lightly: the same through LightlyDataset and its SimCLR-style loader, which names each picture as well;
* lightly, SimCLR: with the views that lightly makes of CIFAR-10 for SimCLR (crop, flip, jitter, grey), two of each picture, the
  first of which is learnt from.

With --files the others read PNG files, as they do where the pictures are a folder; ours decodes them once before it starts.

    python benchmarks/data_paths.py
    python benchmarks/data_paths.py --files
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import tyro
from loaders import Fed, Pictures, usual_transform
from machine import describe
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import ImageFolder

from pretint.data import Batch, TensorSource, open_source
from pretint.recipes import PretrainConfig
from pretint.recipes.pretraining import loss_function
from pretint.recipes.timing import Contender, example_palette, example_pictures
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved, share_of


@dataclass(frozen=True)
class Options:
    """One network, several data paths.

    Attributes:
        encoder: by name.
        task: by name; one that wants a single view.
        augment: none, flip, flip-crop, flip-resized-crop or flip-affine.
        batch_size: images a step.
        workers: of the DataLoaders.
        rounds: timed rounds; the median is printed.
        seconds: that a round lasts about.
        files: the others read PNG files.
    """

    encoder: str = "pretint_unet_small"
    task: str = "palette"
    augment: str = "flip-crop"
    batch_size: int = 256
    workers: int = 2
    rounds: int = 5
    seconds: float = 2.0
    files: bool = False


def lightly() -> Any:
    """lightly's package, or None after a sentence that says how to get it."""
    os.environ.setdefault("LIGHTLY_DID_VERSION_CHECK", "True")  # else it asks its makers' server for a newer version
    try:
        import lightly
        import lightly.data
        import lightly.transforms
    except ImportError as error:
        print(
            f"lightly can't be imported ({error}), so its rows are left out; `pip install lightly` into this environment.\n"
        )
        return None
    return lightly


def fed_step(contender: Contender) -> Callable[[Tensor, Tensor], None]:
    """Learns from pictures (b, 3, h, w), uint8 or in 0…1, and their classes, as the loop of `pretint pretrain` does."""
    loss_of = loss_function(contender.model, contender.task, contender.compute)
    device, clip = contender.compute.device, contender.config.clip or math.inf

    def step(rgb: Tensor, labels: Tensor) -> None:
        rgb = rgb if rgb.dtype == torch.uint8 else (rgb * 255).to(torch.uint8)
        contender.model.train()
        contender.optimizer.zero_grad(set_to_none=True)
        numerator, denominator = loss_of(
            Batch(rgb.to(device), torch.arange(len(rgb), device=device), labels.to(device))
        )
        (numerator / denominator).backward()
        nn.utils.clip_grad_norm_(contender.model.parameters(), clip)
        contender.optimizer.step()

    return step


def write_files(source: TensorSource, folder: Path) -> Path:
    """The pictures as PNG files in a folder for each class."""
    labels = torch.zeros(len(source), dtype=torch.int64) if source.labels is None else source.labels
    for number, (picture, label) in enumerate(zip(source.images, labels.tolist(), strict=True)):
        place = folder / "train" / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place / f"{number:05}.png")
    return folder


def data_paths(options: Options, source: TensorSource, folder: Path | None, contender: Contender) -> dict[str, Fed]:
    """The loops that loaders feed."""
    step, package = fed_step(contender), lightly()
    size = source.image_size
    transform = usual_transform(options.augment, size, scaled=False)

    def dataset(wanted: Any) -> Any:
        return (
            Pictures(source.images, source.labels, wanted) if folder is None else ImageFolder(folder / "train", wanted)
        )

    def fed(data: Any, take: Callable[[Any], object]) -> Fed:
        return Fed(data, options.batch_size, options.workers, take)

    loops = {"torchvision": fed(dataset(transform), lambda batch: step(*batch))}
    if package is None:
        return loops
    views = package.transforms.SimCLRTransform(input_size=size, cj_strength=0.5, gaussian_blur=0.0, normalize=None)

    def named(wanted: Any) -> Any:
        if folder is not None:
            return package.data.LightlyDataset(str(folder / "train"), transform=wanted)
        return package.data.LightlyDataset.from_torch_dataset(dataset(None), transform=wanted)

    loops["lightly"] = fed(named(transform), lambda batch: step(batch[0], batch[1]))
    loops["lightly, SimCLR"] = fed(named(views), lambda batch: step(batch[0][0], batch[1]))
    return loops


def compare(options: Options, folder: Path | None) -> None:
    compute = Compute.choose()
    source = example_pictures(32)
    decoding = ""
    if folder is not None:
        write_files(source, folder)
        start = time.perf_counter()
        source = open_source(folder, image_size=32)
        assert isinstance(source, TensorSource)
        decoding = f"; ours decoded the {len(source)} files once, in {time.perf_counter() - start:.2f} s"
    config = PretrainConfig(
        task=options.task, backbone=options.encoder, augment=options.augment, batch_size=options.batch_size
    )
    palette = example_palette(config, source)
    contender = Contender(config, source.to(compute.device), palette, compute)
    contender.settle(options.seconds)
    fed = data_paths(options, source, folder, contender)
    for loop in fed.values():
        loop.settle(options.seconds)
    print(
        f"{describe()}; `{options.encoder}`, `{options.task}`, {options.augment}, batches of {options.batch_size}{decoding}\n"
    )
    loops = {
        "ours": contender.ours,
        "one fixed batch": contender.bare,
        **{name: loop.rate for name, loop in fed.items()},
    }
    rates = interleaved(loops, options.rounds)
    print("| data path | images/s (median) | range | ours / it |\n|---|---|---|---|")
    for name, each in rates.items():
        print(
            f"| {name} | {median(each):,.0f} | {min(each):,.0f}–{max(each):,.0f} | {share_of(rates['ours'], each):.2f} |"
        )


def main(options: Options) -> None:
    if not options.files:
        compare(options, None)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
