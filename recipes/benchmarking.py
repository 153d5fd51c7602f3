"""`pretint benchmark`: which precision, memory layout and batch size train fastest on this machine?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.table import Table

from ..runtime.compilation import PAYS_FROM
from ..runtime.determinism import repeatable
from ..runtime.device import LAYOUTS, Compute, has_bf16
from ..runtime.errors import ArgumentError
from ..runtime.rounds import interleaved, share_of
from ..runtime.runlog import note
from .options import MachineOptions, Outcome, positive
from .published import DEFAULT_PRESET, typed_command, usual_config
from .settings import PretrainConfig
from .timing import Contender, example_palette, example_pictures

# Another batch size is another training, so it must be worth it.
_WORTH = 1.05


class Way(NamedTuple):
    """What is tried."""

    precision: str
    layout: str
    batch_size: int


Rates = dict[Way, list[float]]


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(MachineOptions):
    """Find the fastest settings for pretraining on this machine, in about a minute.

    Networks are timed as they are; what compiling them would gain (pretint pretrain --compile) is left out, as a first step that
    takes minutes does not fit in.

    Attributes:
        preset: as of pretint pretrain, which takes the best recipe found so far where neither preset nor task is given.
        task: what is learnt (see pretint tasks).
        backbone: an encoder's name (see pretint backbones).
        width: channels of the first stage, for our own encoders.
        image_size: side of the images in pixels; generated ones are used.
        batch_sizes: tried, images a step; by default those of the preset, half and twice as many.
        precision: bf16 or fp32 to try that one alone; auto tries both where the device has instructions for bf16.
        layout: channels-last or channels-first to try that one alone; auto tries both.
        rounds: timed rounds of each; the median counts.
        minutes: that all rounds together take about; slow networks take longer, since a round has at least two steps.
    """

    preset: str | None = None
    task: str | None = None
    backbone: str | None = None
    width: int | None = None
    image_size: int | None = None
    batch_sizes: tuple[int, ...] | None = None
    precision: str = "auto"
    layout: str = "auto"
    rounds: int = 3
    minutes: float = 1.0

    def __post_init__(self) -> None:
        positive(self, "rounds", "minutes")
        if self.batch_sizes is not None and not (self.batch_sizes and min(self.batch_sizes) > 0):
            raise ArgumentError("--batch-sizes: each must be at least 1, and one at least must be given.")
        if self.pretraining.task == "random":
            raise ArgumentError("--task: random trains nothing that could be timed; choose another task.")

    @property
    def pretraining(self) -> PretrainConfig:
        """The settings that `pretint pretrain` has where the same is typed; also checks them."""
        name = self.preset or (None if self.task else DEFAULT_PRESET)
        changes = {
            key: value
            for key in ("task", "backbone", "width", "image_size")
            if (value := getattr(self, key)) is not None
        }
        here = {"device": self.device, "deterministic": self.deterministic, "layout": self.layout}
        return replace(usual_config(name), **changes, **here)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes to try, ascending."""
        usual = self.pretraining.batch_size
        return tuple(sorted(set(self.batch_sizes or (max(2, usual // 2), usual, 2 * usual))))


@repeatable
def benchmark(config: BenchmarkConfig) -> Outcome:
    """Times the loop of `pretint pretrain` on generated pictures: first precisions and layouts, then batch sizes for the fastest of
    them, each beside a bare loop.

    Raises:
        PretintError: settings that do not fit each other, or nothing that fits into the device's memory.
    """
    settings = config.pretraining
    usual = Compute.choose(config.device, config.precision, config.layout)
    start = settings.batch_size if settings.batch_size in config.sizes else config.sizes[0]
    ways = [Way(*way, start) for way in itertools.product(_precisions(config, usual), _layouts(config))]
    seconds = 60 * config.minutes / ((config.rounds + 1) * (len(ways) + 2 * len(config.sizes)))
    note(
        f"benchmark: {settings.task}, {settings.backbone}, {settings.image_size} px; takes about {config.minutes:g} min"
    )
    measure = _Measure(config, settings, usual.device, seconds)
    layouts, _ = measure(ways)
    winner = fastest(layouts, start)
    sizes, bare = measure([winner._replace(batch_size=size) for size in config.sizes], beside_bare=True)
    return _outcome(settings, usual.device, layouts, sizes, bare, start)


def fastest(rates: Rates, start: int) -> Way:
    """The way with the highest median of images per second; one of another batch size than `start` only if it is 5 % faster."""
    medians = {way: median(values) for way, values in rates.items()}
    best = max(medians, key=lambda way: medians[way])
    same = max((way for way in medians if way.batch_size == start), key=lambda way: medians[way], default=best)
    return best if medians[best] > _WORTH * medians[same] else same


def _precisions(config: BenchmarkConfig, usual: Compute) -> tuple[str, ...]:
    if config.precision != "auto":
        return (config.precision,)
    return ("bf16", "fp32") if has_bf16(usual.device) else ("fp32",)


def _layouts(config: BenchmarkConfig) -> tuple[str, ...]:
    return LAYOUTS[1:] if config.layout == "auto" else (config.layout,)


class _Measure:
    """Images per second of some ways, interleaved: of the loop of `pretint pretrain` and, where wanted, of a bare one."""

    def __init__(self, config: BenchmarkConfig, settings: PretrainConfig, device: torch.device, seconds: float):
        self.config, self.settings, self.device, self.seconds = config, settings, device, seconds
        self.pictures = example_pictures(settings.image_size).to(device)
        self.palette = example_palette(settings, self.pictures)

    def __call__(self, ways: Iterable[Way], *, beside_bare: bool = False) -> tuple[Rates, Rates]:
        contenders = {way: one for way in ways if (one := self._contender(way)) is not None}

        def rate(loop: str, way: Way) -> float:
            """NaN from the round on that does not fit into the device's memory."""
            if way in contenders:
                try:
                    return getattr(contenders[way], loop)()
                except torch.OutOfMemoryError:
                    del contenders[way]
                    _note_too_large(way)
            return math.nan

        kinds = ("ours", "bare") if beside_bare else ("ours",)  # neighbours in time are compared
        loops = {(loop, way): partial(rate, loop, way) for way in contenders for loop in kinds}
        rates = interleaved(loops, self.config.rounds)
        if not contenders:
            raise ArgumentError("--batch-sizes: no batch fits into the device's memory; give smaller ones.")
        ours, bare = ({way: rates.get((loop, way), []) for way in contenders} for loop in ("ours", "bare"))
        return ours, bare

    def _contender(self, way: Way) -> Contender | None:
        """Ready to be timed; None if it does not fit into the device's memory."""
        compute = Compute(self.device, way.precision == "bf16", way.layout == "channels-last")
        try:
            contender = Contender(
                replace(self.settings, batch_size=way.batch_size), self.pictures, self.palette, compute
            )
            contender.settle(self.seconds)
        except torch.OutOfMemoryError:
            _note_too_large(way)
            return None
        return contender


def _note_too_large(way: Way) -> None:
    note(f"benchmark: batches of {way.batch_size} do not fit into the device's memory ({way.precision}, {way.layout})")


def not_timed(device: torch.device) -> str:
    """What the figures do not hold.

    >>> not_timed(torch.device("cpu"))
    'Not timed: a compiled network (pretint pretrain --compile on).'
    """
    by_itself = (
        f"; training that takes {PAYS_FROM / 60:.0f} minutes or longer is compiled unless --compile off is given"
        if device.type == "cuda"
        else ""
    )
    return f"Not timed: a compiled network (pretint pretrain --compile on){by_itself}."


def _outcome(
    settings: PretrainConfig, device: torch.device, layouts: Rates, sizes: Rates, bare: Rates, start: int
) -> Outcome:
    """What was timed, and what to type."""
    best = fastest(sizes, start)
    auto = Compute.choose(settings.device)
    told = replace(
        settings,
        precision="auto" if best.precision == auto.precision else best.precision,
        layout="auto" if best.layout == auto.layout_name else best.layout,
        batch_size=best.batch_size,
    )
    rate, share, command = median(sizes[best]), share_of(sizes[best], bare[best]), typed_command(told)
    lines = [
        f"Fastest: {best.precision}, {best.layout}, batches of {best.batch_size}: {rate:,.0f} images/s, {share:.2f} of a bare loop "
        "(forward and backward pass and optimiser on one fixed batch).",
        f"Type: {command} (and your own --data and --out).",
        not_timed(device),
    ]
    if best.batch_size != start:
        lines.append(
            f"Batches of {best.batch_size} instead of {start} train differently; look at the learning rate too."
        )
    results: dict[str, Any] = {
        "settings": {
            "task": settings.task, "backbone": settings.backbone, "image_size": settings.image_size, "device": str(device),
        },
        "precisions_and_layouts": _listed(layouts),
        "batch_sizes": _listed(sizes),
        "bare": _listed(bare),
        "recommended": {**best._asdict(), "images_per_second": rate},
        "share_of_bare": share,
        "command": command,
    }  # fmt: skip
    return Outcome(results, [_table("precision and layout", layouts), _table("batch size", sizes)], lines)


def _listed(rates: Rates) -> list[dict[str, Any]]:
    return [{**way._asdict(), "images_per_second": median(each), "rounds": each} for way, each in rates.items()]


def _table(title: str, rates: Rates) -> Table:
    table = Table("precision", "layout", "batch size", "images/s", "range", title=title)
    for way, each in rates.items():
        row = (
            way.precision,
            way.layout,
            str(way.batch_size),
            f"{median(each):,.0f}",
            f"{min(each):,.0f}–{max(each):,.0f}",
        )
        table.add_row(*row)
    return table
