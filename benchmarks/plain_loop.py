"""How much faster is preset `toronto-unet` than the loop that people write for it?

The plain loop is the same network, written out with torch's modules, in float32 and NCHW; labels are made once, by the distances
of all pixels to all colours; images are shuffled and sliced. Both start from the decoded horses of CIFAR-10 and the same palette,
train as long, and read the accuracy on the test horses after each epoch (plain) or at the end (ours). Rounds are interleaved.

    python benchmarks/plain_loop.py --data cifar10
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
import tyro
from machine import describe
from torch import Tensor, nn

from pretint.colour import build_palette, luma
from pretint.data import ImageSource, TensorSource, only_classes, open_source, register_source
from pretint.recipes import preset_config, pretrain

_COLOURS, _FILTERS, _BATCH = 24, 32, 100


@dataclass(frozen=True)
class Options:
    """The preset against a plain loop.

    Attributes:
        data: CIFAR-10, by name or as a path.
        epochs: of both.
        rounds: of each; the median is printed.
    """

    data: str = "cifar10"
    epochs: int = 25
    rounds: int = 1


class PlainUNet(nn.Module):
    """The course's U-Net, layer by layer."""

    def __init__(self) -> None:
        super().__init__()

        def down(inputs: int, outputs: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

        def up(inputs: int, outputs: int) -> nn.Sequential:
            convolution = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

        n = _FILTERS
        self.down1, self.down2, self.middle = down(1, n, 2), down(n, 2 * n, 2), down(2 * n, 2 * n, 1)
        self.up1, self.up2 = up(4 * n, n), up(2 * n, _COLOURS)
        self.last = nn.Conv2d(_COLOURS + 1, _COLOURS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(first)
        up1 = self.up1(torch.cat([self.middle(second), second], 1))
        up2 = self.up2(torch.cat([up1, first], 1))
        return self.last(torch.cat([up2, x], 1))


def brute_force_labels(rgb: Tensor, colours: Tensor) -> Tensor:
    """The nearest of the colours (k, 3) for each pixel of uint8 (n, 3, h, w), by all distances, 100 pictures at a time."""
    labels = []
    for part in rgb.split(100):
        pixels = part.float().div(255).permute(0, 2, 3, 1)[..., None, :]  # (b, h, w, 1, 3)
        labels.append(((pixels - colours) ** 2).sum(-1).argmin(-1))
    return torch.cat(labels)


def plain(train: Tensor, test: Tensor, colours: Tensor, epochs: int) -> tuple[float, float]:
    """Seconds, and the accuracy on the test pictures; both splits are RGB uint8 (n, 3, 32, 32)."""
    torch.manual_seed(0)
    start = time.perf_counter()
    x, x_test = (luma(images, "mean") * (255 / 256) for images in (train, test))
    y, y_test = (brute_force_labels(images, colours) for images in (train, test))
    model, top1 = PlainUNet(), 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        model.train()
        for ids in torch.randperm(len(x)).split(_BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(x[ids]), y[ids]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = [
                (model(a).argmax(1) == b).float().mean()
                for a, b in zip(x_test.split(100), y_test.split(100), strict=True)
            ]
        top1 = float(torch.stack(right).mean())
    return time.perf_counter() - start, top1


def ours(epochs: int) -> tuple[float, float]:
    """The same of the preset, everything that `pretint pretrain` does included: palette, metrics, pictures, checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        settings = preset_config(
            "toronto-unet", data="horses", epochs=epochs, out=Path(folder) / "run", paint_every=1000
        )
        outcome = pretrain(settings)
        return time.perf_counter() - start, outcome.results["colour"][0]["top1"]


def _in_memory(source: ImageSource, split: str) -> TensorSource:
    labels = torch.zeros(len(source), dtype=torch.int64)
    return TensorSource(source.gather(torch.arange(len(source))), labels, ("horse",), name="horses", split=split)


def main(options: Options) -> None:
    splits = {
        split: only_classes(open_source(options.data, split, image_size=32), ("horse",)) for split in ("train", "test")
    }
    horses = {split: _in_memory(source, split) for split, source in splits.items()}
    register_source("horses", lambda split, **_: horses[split])
    colours = build_palette(lambda: iter([horses["train"].images]), _COLOURS, "rgb", "mean").centres
    pictures = (horses["train"].images, horses["test"].images)
    # a process of its own, since ours tells the C library to keep freed memory, which is for the whole process
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
        rounds = [
            (apart.submit(plain, *pictures, colours, options.epochs).result(), ours(options.epochs))
            for _ in range(options.rounds)
        ]
    seconds = [median(times) for times in zip(*([plain[0], ours[0]] for plain, ours in rounds), strict=True)]
    print(describe(), end="\n\n")
    print("| loop | seconds | top-1 | plain / it |\n|---|---|---|---|")
    for name, time_taken, (_, top1) in zip(("plain (fp32, NCHW)", "`toronto-unet`"), seconds, rounds[0], strict=True):
        print(f"| {name} | {time_taken:.1f} | {100 * top1:.1f} % | {seconds[0] / time_taken:.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
