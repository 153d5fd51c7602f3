"""How large is each encoder, what does it cost, and how fast does it train, infer and load?

Per encoder, with grey 32 × 32 input: parameters, multiply-accumulates of one image, feature maps, and the median of interleaved
rounds of training (forward, backward, AdamW, on one fixed batch) and inference, in images per second. Beside them, as medians of
the rounds' ratios, what training gains by channels_last, and inference by folded batch normalisation. Last the
time that `load_backbone` takes with all its checks, after timm is imported.

    python benchmarks/backbones.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
import tyro
from machine import describe
from torch.utils.flop_counter import FlopCounterMode

from pretint.backbones import create_backbone, fold_batch_norm, load_backbone, save_backbone
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved, share_of

SIZES = [f"pretint_{family}_{size}" for family in ("unet", "cnn", "resunet") for size in ("tiny", "small", "base")]
OTHERS = ["timm/resnet18", "timm/convnext_atto", "timm/efficientnet_b0", "timm/regnety_002"]


@dataclass(frozen=True)
class Options:
    """Size and speed of encoders.

    Attributes:
        names: encoders; ours in all sizes and a few of timm's with the small stem by default.
        batch_size: images a step.
        rounds: timed rounds of each; the median is printed.
        seconds: least time of a round.
    """

    names: tuple[str, ...] = (*SIZES, *OTHERS)
    batch_size: int = 256
    rounds: int = 3
    seconds: float = 1.0


def multiply_accumulates(name: str) -> int:
    """Of one grey 32 × 32 image; additions and multiplications of convolutions and matrix products, halved."""
    encoder = create_backbone(name).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder.forward_intermediates(torch.zeros(1, 1, 32, 32), intermediates_only=True)  # type: ignore[operator]
    return counter.get_total_flops() // 2


def training_step(name: str, batch_size: int, compute: Compute) -> Callable[[], None]:
    torch.manual_seed(0)
    encoder = compute.place(create_backbone(name)).train()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3, fused=True)
    x = compute.layout(torch.randn(batch_size, 1, 32, 32, device=compute.device))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with compute.autocast():
            maps = encoder.forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]
        sum(m.float().square().mean() for m in maps).backward()
        optimizer.step()

    return step


def inference_step(name: str, batch_size: int, compute: Compute, *, folded: bool = False) -> Callable[[], None]:
    torch.manual_seed(0)
    encoder = create_backbone(name).eval()
    x = torch.randn(batch_size, 1, 32, 32, device=compute.device)
    encoder = compute.place(fold_batch_norm(encoder, x[:2]) if folded else encoder)
    x = compute.layout(x)

    @torch.inference_mode()
    def step() -> None:
        with compute.autocast():
            encoder.forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]

    return step


def images_per_second(step: Callable[[], None], options: Options, compute: Compute) -> float:
    def wait() -> None:
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < options.seconds:
        step()
        wait()
        done += options.batch_size
    return done / (time.perf_counter() - start)


def seconds_to_load(name: str, rounds: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        save_backbone(create_backbone(name), Path(folder))
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            load_backbone(folder)
            times.append(time.perf_counter() - start)
    return median(times)


def main(options: Options) -> None:
    compute = Compute.choose()
    print(f"{describe()}; {compute.precision}, batch {options.batch_size}\n")
    print(
        "| encoder | parameters | MACs | feature maps | training, images/s | channels_last "
        "| inference, images/s | folded | loading |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.names:
        encoder = create_backbone(name)
        count = sum(p.numel() for p in encoder.parameters())
        maps = " · ".join(f"{lv['num_chs']}×{32 // lv['reduction']}²" for lv in encoder.feature_info)  # type: ignore[union-attr,index,operator]
        steps = {
            "training": training_step(name, options.batch_size, compute),
            "channels first": training_step(name, options.batch_size, replace(compute, channels_last=False)),
            "inference": inference_step(name, options.batch_size, compute),
            "folded": inference_step(name, options.batch_size, compute, folded=True),
        }
        loops = {way: partial(images_per_second, step, options, compute) for way, step in steps.items()}
        rates = interleaved(loops, options.rounds)
        training, inference = rates["training"], rates["inference"]
        print(
            f"| `{name}` | {count / 1e6:.2f} M | {multiply_accumulates(name) / 1e6:.0f} M | {maps} | {median(training):,.0f} "
            f"| {share_of(training, rates['channels first']):.2f}× | {median(inference):,.0f} "
            f"| {share_of(rates['folded'], inference):.2f}× | {seconds_to_load(name, options.rounds):.2f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
