"""How much of a bare training loop's speed does Pretint's loop keep, and how much faster is it than the loop that people write?

For each encoder and task four loops, interleaved, in images per second:

* ours: the loop that `pretint pretrain` runs, with gather, augmentation, targets, clipping, finite check and log;
* bare: forward and backward pass, clipping and AdamW on one fixed batch, same network, precision and memory layout;
* plain batch: the same as bare in float32 and NCHW;
* plain loop: what people write, in float32 and NCHW: pictures of an array become PIL images, torchvision's transforms flip and
  crop them in a DataLoader's workers, grey and targets are made in the loop, and torch's own loss and AdamW follow. For the tasks
  palette and rgb-regression it is written out below, with labels by the distances to all colours; the targets and losses of
  other tasks are Pretint's.

--all takes each task with an encoder of each family: of ours the small size, the middle one (2.3 to 2.5
million parameters), of timm's a large residual network (11 million) and a small one of depthwise convolutions (3.4 million). The
other sizes compute more or less of the same; benchmarks/backbones.py times each encoder by itself.

The plain ones run in a process of their own, whose memory is managed as that of any other program. A ratio is the median of the
rounds' ratios.

    python benchmarks/throughput.py                                    # the U-Net and palette
    python benchmarks/throughput.py --encoders pretint_cnn timm/resnet18 --tasks palette bins --batch-size 64
    python benchmarks/throughput.py --all --batch-size 64 --rounds 3 --seconds 1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from apart import Apart, Loops
from loaders import Fed, Pictures, usual_transform
from machine import describe
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from pretint.backbones import OUR_BACKBONES
from pretint.colour import Palette
from pretint.data import Batch, TensorSource
from pretint.pretext import TASKS, wants_pair
from pretint.recipes import PretrainConfig
from pretint.recipes.opening import make_model
from pretint.recipes.timing import Contender, example_palette, example_pictures
from pretint.recipes.training_data import class_count
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved, share_of

ALL_ENCODERS = (
    "pretint_unet_small",
    "pretint_cnn_small",
    "pretint_resunet_small",
    "timm/resnet18",
    "timm/convnext_atto",
)
ALL_TASKS = tuple(name for name in TASKS if name != "random")


@dataclass(frozen=True)
class Options:
    """Throughput of training loops.

    Attributes:
        encoders: by name.
        tasks: by name; each is trained with each encoder.
        all: all tasks with an encoder of each family, five in all.
        width: of our encoders whose size is free.
        image_size: side of the pictures, in pixels.
        batch_size: images a step.
        rounds: timed rounds; the median is printed.
        seconds: that a round of a loop lasts about, two steps at least.
        workers: of the plain loop's DataLoader.
        plain: time the plain loops too.
    """

    encoders: tuple[str, ...] = ("pretint_unet",)
    tasks: tuple[str, ...] = ("palette",)
    all: bool = False
    width: int | None = None
    image_size: int = 32
    batch_size: int = 256
    rounds: int = 5
    seconds: float = 2.0
    workers: int = 2
    plain: bool = True


def settled(contender: Contender, seconds: float) -> Contender:
    contender.settle(seconds)
    return contender


def make_plain(
    options: Options,
    config: PretrainConfig,
    pictures: TensorSource,
    palette: dict[str, Any] | None,
    device: torch.device,
) -> Loops:
    """The two plain loops, made in the process that runs them."""
    found = None if palette is None else Palette.from_dict(palette)
    batch = settled(Contender(config, pictures.to(device), found, Compute(device, False, False)), options.seconds)
    dataset = Pictures(pictures.images, pictures.labels, usual_transform(config.augment, config.image_size))
    loop = Fed(dataset, config.batch_size, options.workers, plain_step(config, class_count(pictures), found, device))
    loop.settle(options.seconds)
    return {"plain batch": batch.bare, "plain loop": loop.rate}


def plain_step(
    config: PretrainConfig, classes: int, palette: Palette | None, device: torch.device
) -> Callable[[list[Tensor]], None]:
    """What a plain loop does with a batch of a loader: pictures (b, 3, h, w) in 0…1 and classes (b,)."""
    torch.manual_seed(config.seed)
    model, task = make_model(config, palette, classes)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    colours = None if palette is None else palette.centres.to(device)

    def grey_of(rgb: Tensor) -> Tensor:
        return (rgb_to_grayscale(rgb) - 0.5) / 0.25

    def loss_of(rgb: Tensor, labels: Tensor) -> Tensor:
        if config.task == "palette" and colours is not None:
            pixels = rgb.permute(0, 2, 3, 1).flatten(0, 2)  # (b·h·w, 3)
            nearest = torch.cdist(pixels, colours).argmin(1).view(len(rgb), *rgb.shape[2:])
            return F.cross_entropy(model(grey_of(rgb)), nearest)
        if config.task == "rgb-regression":
            return F.mse_loss(model(grey_of(rgb)), rgb)
        whole = (rgb * 255).to(torch.uint8)
        ids = torch.arange(len(rgb), device=device)
        inputs, targets = task.split(Batch(whole, ids, labels, (whole,) * (task.views - 1)))
        numerator, denominator = task.loss(model(inputs), targets)
        return numerator / denominator

    def step(batch: list[Tensor]) -> None:
        rgb, labels = (part.to(device) for part in batch)
        optimizer.zero_grad()
        loss_of(rgb, labels).backward()
        optimizer.step()

    return step


def rates_of(options: Options, encoder: str, task: str, best: Compute, apart: Apart | None) -> dict[str, list[float]]:
    """Images per second of each loop in each round."""
    config = PretrainConfig(
        task=task, backbone=encoder, width=options.width, image_size=options.image_size, batch_size=options.batch_size
    )
    pictures = example_pictures(options.image_size)
    palette = example_palette(config, pictures)
    contender = settled(Contender(config, pictures.to(best.device), palette, best), options.seconds)
    loops: dict[str, Callable[[], float]] = {"ours": contender.ours, "bare": contender.bare}
    if apart is not None:
        saved = None if palette is None else palette.to_dict()
        loops |= apart.make(make_plain, options, config, pictures, saved, best.device)
    return interleaved(loops, options.rounds)


def row(encoder: str, task: str, rates: dict[str, list[float]]) -> str:
    cells = [
        f"{median(rates[name]):,.0f}" if name in rates else "–"
        for name in ("ours", "bare", "plain batch", "plain loop")
    ]
    shares = [
        f"{share_of(rates['ours'], rates[name]):.2f}" if name in rates else "–" for name in ("bare", "plain loop")
    ]
    low, high = min(rates["ours"]), max(rates["ours"])
    return f"| `{encoder}` | `{task}` | {cells[0]} ({low:,.0f}–{high:,.0f}) | {' | '.join(cells[1:])} | {' | '.join(shares)} |"


def main(options: Options) -> None:
    encoders, tasks = (ALL_ENCODERS, ALL_TASKS) if options.all else (options.encoders, options.tasks)
    best = Compute.choose()
    print(f"{describe()}; ours and bare in {best.precision}, {best.layout_name}; batches of {options.batch_size}\n")
    print(
        "| encoder | task | ours, images/s (range) | bare | plain batch | plain loop | ours / bare | ours / plain loop |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    if not options.plain:
        table(options, encoders, tasks, best, None)
        return
    with Apart() as apart:
        table(options, encoders, tasks, best, apart)


def table(
    options: Options, encoders: tuple[str, ...], tasks: tuple[str, ...], best: Compute, apart: Apart | None
) -> None:
    for encoder in encoders:
        for task in tasks:
            if wants_pair(task) and encoder not in OUR_BACKBONES:
                print(f"| `{encoder}` | `{task}` | {' | '.join('–' * 6)} |", flush=True)  # pairs are of our encoders
                continue
            print(row(encoder, task, rates_of(options, encoder, task, best, apart)), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
