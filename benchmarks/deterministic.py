"""What does `--deterministic` cost? Training steps per second with and without it, in turn, on the best recipe and on others.

Both are the same training: fresh weights, the toy's images on the device, optimiser and augmentation included. The two ways take
turns, so that whatever else the machine does meets both; what is printed is the median of the turns and their quotient.

    python benchmarks/deterministic.py
    python benchmarks/deterministic.py --seconds 20 --turns 7 --device cuda
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
import tyro
from machine import describe
from timm.optim import param_groups_weight_decay

from pretint.colour import build_palette
from pretint.data import Batches, make_toy
from pretint.recipes import PretrainConfig, preset_config
from pretint.recipes.opening import make_model
from pretint.runtime.determinism import determinism
from pretint.runtime.device import Compute

RECIPES: dict[str, PretrainConfig] = {
    "preset pretint": preset_config("pretint"),
    "pretint_unet_tiny, palette": PretrainConfig(task="palette", backbone="pretint_unet_tiny", palette_space="cbcr"),
    "pretint_cnn_tiny, rgb-regression": PretrainConfig(task="rgb-regression", backbone="pretint_cnn_tiny"),
    "timm/resnet18, palette": PretrainConfig(task="palette", backbone="timm/resnet18", palette_space="cbcr"),
}


@dataclass(frozen=True)
class Options:
    """Training speed with and without deterministic algorithms.

    Attributes:
        seconds: of training in each turn.
        turns: of each way.
        images: of the toy.
        batch_size: images a step.
        device: auto, cuda, mps or cpu.
        precision: auto, bf16 or fp32.
    """

    seconds: float = 8.0
    turns: int = 5
    images: int = 2048
    batch_size: int = 128
    device: str = "auto"
    precision: str = "auto"


class Steps:
    """Training steps of a recipe, one after another."""

    def __init__(self, config: PretrainConfig, options: Options):
        self.compute = Compute.choose(options.device, options.precision)
        source = make_toy("train", options.images)
        palette = None
        if config.task == "palette":
            palette = build_palette(lambda: [source.images], config.colours, config.label_space)
        torch.manual_seed(0)
        model, self.task = make_model(config, palette)
        self.model = self.compute.place(model).train()
        fused = self.compute.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(param_groups_weight_decay(model, 0.05), lr=config.learning_rate, fused=fused)
        self.batches = Batches(
            source.to(self.compute.device),
            options.batch_size,
            seed=0,
            augment=config.augment,
            device=self.compute.device,
        )
        self.epoch = 0

    def images_per_second(self, seconds: float, way: AbstractContextManager[None]) -> float:
        """Whole epochs until the time is over."""
        images, start = 0, time.perf_counter()
        with way:
            while time.perf_counter() - start < seconds:
                for batch in self.batches.epoch(self.epoch):
                    inputs, targets = self.task.split(batch)
                    with self.compute.autocast():
                        predictions = self.model(self.compute.layout(inputs))
                    loss = self.task.loss(predictions, targets)
                    self.optimizer.zero_grad(set_to_none=True)
                    (loss.numerator / loss.denominator).backward()
                    self.optimizer.step()
                    images += len(batch.rgb)
                if self.compute.device.type == "cuda":
                    torch.cuda.synchronize(self.compute.device)
                self.epoch += 1
            return images / (time.perf_counter() - start)


def main(options: Options) -> int:
    """Prints a table in Markdown."""
    print(describe())
    print("\n| recipe | images/s | with --deterministic | of the speed |\n|---|---|---|---|")
    for name, config in RECIPES.items():
        steps = Steps(replace(config, batch_size=options.batch_size), options)
        steps.images_per_second(1.0, nullcontext())  # the first steps set aside memory and choose kernels
        steps.images_per_second(1.0, determinism())
        speeds: list[tuple[float, float]] = [
            (
                steps.images_per_second(options.seconds, nullcontext()),
                steps.images_per_second(options.seconds, determinism()),
            )
            for _ in range(options.turns)
        ]
        usual, fixed = (statistics.median(column) for column in zip(*speeds, strict=True))
        quotient = statistics.median(b / a for a, b in speeds)
        print(f"| {name} | {usual:,.0f} | {fixed:,.0f} | {quotient:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
