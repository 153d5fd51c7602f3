"""What does a palette cost, and what do labels, beside scikit-learn's k-means on raw pixels and distances to all colours?

Ours: a histogram of all pixels, k-means on its bins with four starts, the table of all 256³ colours, and labels read off it.
scikit-learn's k-means with one start sees a sample of the pixels only, since all would take it hours; the mean squared distance
of the sample's pixels to the colours found says what the difference is worth. Both label the same pictures; the 313 bins of ab are
a palette that nothing is fitted for. The other side runs in a process of its own.

    python benchmarks/palette.py
    python benchmarks/palette.py --data cifar10
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from apart import Apart, Loops
from machine import describe
from torch import Tensor

from pretint.colour import Palette, ab_bins, bin_palette, count_palette, fit_palette, rgb_histogram, to_palette_space
from pretint.colour.tables import label_table
from pretint.data import open_source
from pretint.runtime.device import Compute
from pretint.runtime.rounds import interleaved, share_of

_BATCH, _PIXELS_AT_ONCE = 4096, 1 << 18


@dataclass(frozen=True)
class Options:
    """Palettes and labels.

    Attributes:
        data: a name or a path.
        scenes: of the toy, which are gone over again until there are enough.
        pixels: that a palette is fitted to.
        colours: K.
        raw_pixels: that scikit-learn sees.
        rounds: timed rounds of ours; the median is printed. scikit-learn runs once.
    """

    data: str = "toy"
    scenes: int = 2560
    pixels: int = 51_200_000
    colours: tuple[int, ...] = (24, 313)
    raw_pixels: int = 500_000
    rounds: int = 3


def pictures_of(options: Options) -> Tensor:
    """uint8 (n, 3, 32, 32) with about as many pixels as are wanted."""
    source = open_source(options.data, image_size=32, toy_size=options.scenes)
    ids = torch.arange(options.pixels // 32**2) % len(source)
    return torch.cat([source.gather(part) for part in ids.split(_BATCH)])


def raw_sample(images: Tensor, count: int) -> Tensor:
    """RGB 0…1 (count, 3) of pixels from all over the pictures."""
    chosen = torch.randperm(images.numel() // 3, generator=torch.Generator().manual_seed(0))[:count]
    picture, place = chosen // images[0, 0].numel(), chosen % images[0, 0].numel()
    return images.flatten(2)[picture, :, place].float() / 255


def distance(points: Tensor, centres: Tensor) -> float:
    """Mean squared distance of RGB points (n, 3) in 0…1 to the nearest centre, in levels of 0…255."""
    nearest = [torch.cdist(part, centres).amin(1).square().sum() for part in points.split(_PIXELS_AT_ONCE)]
    return float(torch.stack(nearest).sum()) / len(points) * 255**2


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def make_brute_force(images: Tensor, centres: Tensor, space: str) -> Loops:
    """Pixels per second of labels by the distances to all colours."""

    def run() -> float:
        start = time.perf_counter()
        for part in images.split(_PIXELS_AT_ONCE // images[0, 0].numel()):
            pixels = to_palette_space(part, space).permute(0, 2, 3, 1).flatten(0, 2)  # (b·h·w, c)
            torch.cdist(pixels, centres).argmin(1)
        return images.numel() / 3 / (time.perf_counter() - start)

    return {"brute force": run}


def make_scikit_learn(points: Tensor, k: int) -> Loops:
    """k-means on raw pixels: its seconds, and then the mean squared distance that it came to."""
    from sklearn.cluster import KMeans

    found: list[Tensor] = []

    def fit() -> float:
        start = time.perf_counter()
        centres = KMeans(k, n_init=1, random_state=0).fit(points.numpy()).cluster_centers_
        found.append(torch.from_numpy(centres).float())
        return time.perf_counter() - start

    return {"seconds": fit, "distance": lambda: distance(points, found[-1])}


def show_fits(options: Options, images: Tensor, apart: Apart) -> dict[str, Palette]:
    """Prints what fitting takes; gives a palette for each K."""
    points, batches = raw_sample(images, options.raw_pixels), images.split(_BATCH)
    million, palettes = images.numel() / 3e6, {}
    print("| K | work | seconds (median) | range | mean squared distance |\n|---|---|---|---|---|", flush=True)

    def show(k: int, work: str, seconds: list[float], squared: float | None) -> None:
        shown = "–" if squared is None else f"{squared:.1f}"
        print(f"| {k} | {work} | {median(seconds):.2f} | {min(seconds):.2f}–{max(seconds):.2f} | {shown} |", flush=True)

    for k in options.colours:

        def fit(k: int = k) -> Tensor:
            return fit_palette(rgb_histogram(iter(batches)), k, "rgb")

        centres = fit()
        work: dict[str, Callable[[], float]] = {
            "histogram": lambda: seconds_of(lambda: rgb_histogram(iter(batches))),
            "fit": lambda: seconds_of(fit),
            "table": lambda centres=centres: seconds_of(lambda: label_table(centres, "rgb")),
        }
        seconds = interleaved(work, options.rounds)
        show(k, f"histogram of {million:.1f} M pixels", seconds["histogram"], None)
        show(k, "histogram and k-means on its bins", seconds["fit"], distance(points, centres))
        show(k, "table of all 256³ colours", seconds["table"], None)
        theirs = apart.make(make_scikit_learn, points, k)
        show(
            k,
            f"scikit-learn's k-means on {len(points) / 1e6:g} M raw pixels",
            [theirs["seconds"]()],
            theirs["distance"](),
        )
        palettes[f"{k}, rgb"] = count_palette(centres, "rgb", lambda: iter(batches[:1]))
    palettes[f"{len(ab_bins())} bins, ab"] = bin_palette(lambda: iter(batches[:1]))
    return palettes


def show_labels(options: Options, images: Tensor, palettes: dict[str, Palette], apart: Apart) -> None:
    print(
        "\n| palette | labels off the table, M pixels/s (range) | distances to all colours | table / distances |\n|---|---|---|---|"
    )
    part = images[:_BATCH]
    for name, palette in palettes.items():
        loops = {"table": lambda palette=palette: labels_per_second(palette, images.split(_BATCH))}
        loops |= apart.make(make_brute_force, part, palette.centres, palette.space)
        rates = interleaved(loops, options.rounds)
        table, brute = ([rate / 1e6 for rate in rates[way]] for way in ("table", "brute force"))
        print(
            f"| {name} | {median(table):,.0f} ({min(table):,.0f}–{max(table):,.0f}) | {median(brute):,.1f} "
            f"| {share_of(table, brute):,.0f} |",
            flush=True,
        )


def labels_per_second(palette: Palette, batches: tuple[Tensor, ...]) -> float:
    start = time.perf_counter()
    pixels = sum(palette.labels(batch).numel() for batch in batches)
    return pixels / (time.perf_counter() - start)


def main(options: Options) -> None:
    Compute.choose("cpu")  # which keeps freed memory, as every verb does
    images = pictures_of(options)
    print(describe(), end="\n\n", flush=True)
    with Apart() as apart:
        show_labels(options, images, show_fits(options, images, apart), apart)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
