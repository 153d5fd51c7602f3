"""Does the pretext help? The linear probe of each preset's encoder against random weights of the same network."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from pretint.evaluation import Comparison, headline
from pretint.evaluation.tables import percent_text, signed
from pretint.recipes import PRESETS, ProbeConfig, probe
from pretint.recipes.opening import read_settings
from pretint.runtime.results import read_results
from pretint.runtime.runfolder import RunFolder

from .bench import Answer, Bench, Picture
from .drawing import chart_style, rendered
from .tables import table

_BEFORE, _AFTER = "#8b8b8b", "#2f7fd1"


def does_it_help(bench: Bench) -> Answer:
    finished = {
        name: bench.options.out / name for name in PRESETS if (bench.options.out / name / "results.json").exists()
    }
    found = {name: comparison for name, folder in finished.items() if (comparison := _probed(folder, bench))}
    found = dict(sorted(found.items(), key=lambda item: -(item[1].points or 0)))
    rows = [[f"`{name}`", _trained_on(finished[name]), *_cells(comparison)] for name, comparison in found.items()]
    header = ["preset", "trained on", "input", "depth", "random weights", "pretrained", "points", "noise"]
    missing = [f"`{name}`" for name in PRESETS if name not in found]
    lines = table(header, rows)
    if missing:
        lines += ["", f"Not trained: {', '.join(missing)}."]
    caption = "Top-1 of a linear probe on CIFAR-10 with random weights and after the pretext, preset by preset"
    return Answer(lines, [Picture("transfer", caption, _figure(found))] if found else [])


def _probed(folder: Path, bench: Bench) -> Comparison | None:
    """A run's linear probe; one that was made before is read and not made again."""
    if not any(row["protocol"] == "linear" for row in read_results(folder)["transfer"]):
        probe(ProbeConfig(run=folder, data=bench.options.data, grid=1, seed=bench.options.seed))
    return headline(read_results(folder)["transfer"])


def _trained_on(folder: Path) -> str:
    run = RunFolder.open(folder)
    config, images = read_settings(run), run.config["data"]["images"]
    what = "images" if config.classes is None else " and ".join(f"{name}s" for name in config.classes)
    epochs = len(run.read_metrics())
    return f"{images:,} {what if images > 1 else 'image'}, {epochs} {'epochs' if epochs > 1 else 'epoch'}"


def _cells(comparison: Comparison) -> list[str]:
    assert comparison.control_top1 is not None
    assert comparison.points is not None
    return [
        comparison.sees,
        comparison.layer or "–",
        percent_text(comparison.control_top1),
        percent_text(comparison.top1),
        signed(comparison.points),
        f"± {comparison.noise:.1f}",
    ]


def _figure(found: dict[str, Comparison]) -> Image.Image:
    """A line a preset from what random weights have to what the pretext has, the largest gain at the top."""
    with chart_style():
        figure = Figure(figsize=(7.4, 1.1 + 0.36 * len(found)), layout="constrained")
        axis = figure.subplots()
        for place, comparison in enumerate(found.values()):
            assert comparison.control_top1 is not None
            ends = [100 * comparison.control_top1, 100 * comparison.top1]
            axis.plot(ends, [place, place], color=_AFTER, linewidth=2, alpha=0.5)
            axis.plot(ends[:1], [place], "o", color=_BEFORE, label=None if place else "random weights")
            axis.plot(ends[1:], [place], "o", color=_AFTER, label=None if place else "after the pretext")
        axis.set_yticks(range(len(found)), list(found))
        axis.set_ylim(len(found) - 0.5, -0.5)
        axis.set_xlabel("top-1 of a linear probe, %")
        axis.grid(visible=True, axis="x")
        figure.legend(loc="outside upper right", ncols=2)
        return rendered(figure)
