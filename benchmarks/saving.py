"""What does a checkpoint a minute cost of the training time?

For each network: its optimiser steps are timed, then a checkpoint is saved between them. A save's cost is the time in which
training stands still while everything is copied, and what the following steps take longer than usual while a thread writes the
copy.

    python benchmarks/saving.py --backbones pretint_unet pretint_resunet_base timm/resnet18
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import tyro
from machine import describe
from timm.optim import param_groups_weight_decay

from pretint.backbones import Preprocess, create_backbone
from pretint.colour import build_palette
from pretint.data import make_toy
from pretint.pretext import PaletteTask, build_model
from pretint.runtime.checkpoints import Checkpoints
from pretint.runtime.device import Compute


@dataclass(frozen=True)
class Options:
    """Cost of saving.

    Attributes:
        backbones: the networks.
        batch_size: images a step.
        steps: steps timed without saves.
        saves: checkpoints saved.
        folder: where checkpoints go, on the disk that is to be measured.
    """

    backbones: tuple[str, ...] = ("pretint_unet", "pretint_unet_base", "pretint_resunet_base", "timm/resnet18")
    batch_size: int = 64
    steps: int = 8
    saves: int = 5
    folder: Path = Path()


def measure(name: str, options: Options, compute: Compute) -> str:
    rgb = make_toy("train", n=options.batch_size).to(compute.device).images
    task = PaletteTask(Preprocess(), build_palette(lambda: iter([rgb]), 24, "rgb"))
    model = compute.place(build_model(task, create_backbone(name)))
    optimizer = torch.optim.AdamW(param_groups_weight_decay(model, 0.05), lr=1e-3, fused=True)
    inputs, targets = task.split(_Batch(rgb))

    def step() -> float:
        begin = time.perf_counter()
        optimizer.zero_grad()
        with compute.autocast():
            predictions = model(compute.layout(inputs))
        loss = task.loss(predictions, targets)
        (loss.numerator / loss.denominator).backward()
        optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    step(), step()
    usual, stands, slower = median(step() for _ in range(options.steps)), [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        checkpoints = Checkpoints(Path(folder))
        for number in range(1, options.saves + 1):
            begin = time.perf_counter()
            checkpoints.save(model, optimizer, {"step": number, "best_step": 1}, 1, background=True)
            stands.append(time.perf_counter() - begin)
            slower.append(0.0)
            while checkpoints.is_writing:
                slower[-1] += step() - usual
            slower[-1] += step() - usual
            checkpoints.wait()
        size = checkpoints.path(1).stat().st_size
    costs = [a + max(0.0, b) for a, b in zip(stands, slower, strict=True)]
    parameters = sum(p.numel() for p in model.parameters())
    return (
        f"| {name} | {parameters / 1e6:.1f} | {size / 1e6:.0f} | {usual:.3f} | {median(stands):.3f} | {median(slower):+.3f} | "
        f"{100 * median(costs) / 60:.2f} | {100 * max(costs) / 60:.2f} |"
    )


@dataclass
class _Batch:
    rgb: torch.Tensor
    others: tuple[torch.Tensor, ...] = ()
    labels: torch.Tensor | None = None

    @property
    def ids(self) -> torch.Tensor:
        return torch.arange(len(self.rgb))


def main(options: Options) -> None:
    compute = Compute.choose()
    print(describe())
    print(
        "| network | parameters, M | size, MB | step, s | standing still, s | slower steps, s | % of a minute | worst, % |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in options.backbones:
        print(measure(name, options, compute), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
