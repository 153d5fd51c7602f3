"""How do colour quality and transfer look as tables in the terminal?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from .comparison import Comparison, compare
from .transfer import Row, init_name


@dataclass(frozen=True)
class ColourMetric:
    """A colour metric as tables show it: its key, its name, how its numbers are written, and which baselines it has."""

    key: str
    name: str
    better: str  # "lower", "higher" or "" (closest to the true pictures)
    digits: int
    percent: bool = False
    baselines: tuple[str, ...] = ()

    def text(self, value: float | None) -> str:
        """The number as it is shown; `–` for what does not apply.

        >>> ColourMetric("top1", "top-1", "higher", 1, percent=True).text(0.4321)
        '43.2 %'
        """
        if value is None:
            return "–"
        return f"{100 * value:.{self.digits}f} %" if self.percent else f"{value:.{self.digits}f}"

    @property
    def title(self) -> str:
        """The name with an arrow that points to where better is."""
        return self.name + {"lower": "\N{NO-BREAK SPACE}↓", "higher": "\N{NO-BREAK SPACE}↑"}.get(self.better, "")


_LABEL_BASELINES = ("prior", "grey_lookup")
_PICTURE_BASELINES = ("prior", "grey_lookup", "grey")
COLOUR_METRICS = (
    ColourMetric("cross_entropy_nats", "nats per pixel", "lower", 3, baselines=_LABEL_BASELINES),
    ColourMetric("bits_per_pixel", "bits per pixel", "lower", 3, baselines=_LABEL_BASELINES),
    ColourMetric("top1", "top-1", "higher", 1, percent=True, baselines=_LABEL_BASELINES),
    ColourMetric("top5", "top-5", "higher", 1, percent=True, baselines=_LABEL_BASELINES),
    ColourMetric("class_balanced_top1", "balanced top-1", "higher", 1, percent=True, baselines=_LABEL_BASELINES),
    ColourMetric("ab_rmse", "ab-RMSE", "lower", 2, baselines=_PICTURE_BASELINES),
    ColourMetric("auc", "AuC, %", "higher", 1, baselines=_PICTURE_BASELINES),
    ColourMetric("auc_rebalanced", "AuC rebalanced, %", "higher", 1, baselines=_PICTURE_BASELINES),
    ColourMetric("delta_e2000", "ΔE2000", "lower", 2, baselines=_PICTURE_BASELINES),
    ColourMetric("colourfulness", "colourfulness", "", 1, baselines=("true", "grey")),
    ColourMetric("delta_m3", "ΔM3", "lower", 1, baselines=_PICTURE_BASELINES),
    ColourMetric("recolour_top1_painted", "class found", "higher", 1, percent=True, baselines=("grey", "true")),
    ColourMetric("recolour_score", "recolour score", "higher", 3, baselines=("grey", "true")),
    ColourMetric("psnr", "PSNR, dB", "higher", 2, baselines=_PICTURE_BASELINES),
    ColourMetric("ssim", "SSIM", "higher", 3, baselines=_PICTURE_BASELINES),
)
# A hundred classes would push everything else off the screen; results.json has them all.
MOST_CLASSES = 10
COLOUR_BASELINES = {
    "prior": "prior",
    "grey_lookup": "grey lookup",
    "grey": "all grey",
    "true": "true",
}


def baseline_value(entry: Mapping[str, Any], metric: ColourMetric, baseline: str) -> float | None:
    """The value of a baseline (a key of `COLOUR_BASELINES`) in an entry of `results.json` "colour"; None for none."""
    if baseline not in metric.baselines:
        return None
    if metric.key == "recolour_top1_painted":
        return entry.get("recolour_top1_colour" if baseline == "true" else "recolour_top1_grey")
    if metric.key == "recolour_score":  # by its definition, where it has one
        return None if entry.get(metric.key) is None else float(baseline == "true")
    if baseline == "true":
        return entry.get(f"{metric.key}_true")
    if baseline == "grey" and metric.key == "colourfulness":
        return 0.0
    return entry.get(f"{baseline}_{metric.key}")


def colour_title(entry: Mapping[str, Any]) -> str:
    """What was measured on what: `Colour quality: toy, test split, palette rgb-24, labels at 32x32`."""
    parts = [str(entry.get("data") or "")]
    if entry.get("split"):
        parts.append(f"{entry['split']} split")
    if entry.get("palette"):
        parts.append(f"palette {entry['palette']}")
    if entry.get("resolution"):
        parts.append(f"at {entry['resolution']}")
    parts += _way_of_painting(entry)
    described = ", ".join(part for part in parts if part)
    return f"Colour quality: {described}" if described else "Colour quality"


def _way_of_painting(entry: Mapping[str, Any]) -> list[str]:
    """How a prediction was painted: `annealed at T = 0.38` where the task can be told, and any saturation but 1."""
    name, temperature, saturation = entry.get("decode"), entry.get("temperature"), entry.get("saturation")
    anneals = name in ("annealed", "sample") and temperature is not None
    told = [f"{name} at T = {temperature:g}" if anneals else str(name)] if name else []
    return told if saturation in (None, 1) else [*told, f"saturation {saturation:g}"]


def colour_table(entry: Mapping[str, Any], title: str | None = None) -> Table:
    """One entry of `results.json` "colour" as a table: a line a metric, painted beside the baselines and the truth."""
    title = title if title is not None else colour_title(entry)
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for name in ("painted", *COLOUR_BASELINES.values()):
        table.add_column(name, justify="right")
    for metric in COLOUR_METRICS:
        if entry.get(metric.key) is None:
            continue
        baselines = (metric.text(baseline_value(entry, metric, name)) for name in COLOUR_BASELINES)
        table.add_row(metric.title, Text(metric.text(entry[metric.key]), style="bold"), *baselines)
    return table


def class_table(entry: Mapping[str, Any]) -> Table | None:
    """How far the colourfulness of painted pictures is off, by class, the worst first; at most `MOST_CLASSES` lines.

    None where fewer than two classes occur: one is the whole table of :func:`colour_table` again.
    """
    lines = class_lines(entry)
    if len(lines) < 2:
        return None
    worst = lines[:MOST_CLASSES]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    # no title: it would be broken into the width of so narrow a table
    part = "" if len(worst) == len(lines) else f", the worst {len(worst)} of {len(lines)}"
    table.add_column(Text(f"classes of {entry.get('data') or 'the data'}{part}"))
    for name in ("ΔM3\N{NO-BREAK SPACE}↓", COLOUR_BASELINES["grey"]):
        table.add_column(name, justify="right", no_wrap=True)
    for name, value, baseline in worst:
        table.add_row(Text(name), Text(value, style="bold"), baseline)
    return table


def class_lines(entry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, ΔM3 and the all-grey picture's ΔM3 of each class that occurs, as text, the worst first."""
    painted = entry.get("delta_m3_per_class") or []
    grey = entry.get("grey_delta_m3_per_class") or [None] * len(painted)
    names = entry.get("class_names") or [f"class {number}" for number in range(len(painted))]
    metric = next(metric for metric in COLOUR_METRICS if metric.key == "delta_m3")
    lines = [line for line in zip(painted, names, grey, strict=False) if line[0] is not None]
    worst = sorted(lines, key=lambda line: -line[0])
    return [(str(name), metric.text(value), metric.text(baseline)) for value, name, baseline in worst]


def side_by_side(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Entries of one run on several data sets: a column each, and under each metric what is had from the grey level alone.

    That is the grey lookup for metrics of labels, and the all-grey picture for all others.
    """
    title = "Colour quality side by side, painted above what grey alone gives"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for entry in entries:
        table.add_column(Text(f"{entry.get('data') or '–'}\n{entry.get('split') or ''}"), justify="right")
    for metric in COLOUR_METRICS:
        values = [entry.get(metric.key) for entry in entries]
        if all(value is None for value in values):
            continue
        table.add_row(metric.title, *(Text(metric.text(value), style="bold") for value in values))
        baseline = "grey" if "grey" in metric.baselines else "grey_lookup"
        without = [baseline_value(entry, metric, baseline) for entry in entries]
        if any(value is not None for value in without):
            table.add_row(Text(f"  {COLOUR_BASELINES[baseline]}", style="dim"), *map(metric.text, without))
    return table


def percent_text(value: float | None, spread: float | None = None) -> str:
    """An accuracy, a fraction of 1, as it is shown.

    >>> percent_text(0.5674), percent_text(0.5, 0.004), percent_text(None)
    ('56.7 %', '50.0 ± 0.4 %', '–')
    """
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if spread is None else f"{100 * value:.1f} ± {100 * spread:.1f} %"


def points_text(line: Comparison) -> str:
    """The distance from the grey control in percentage points, with its sign; `–` for the controls themselves."""
    if line.points is None:
        return "–"
    spread = "" if line.points_sd is None else f" ± {line.points_sd:.1f}"
    return f"{signed(line.points)}{spread}"


def signed(points: float) -> str:
    """A difference with its sign, one decimal, and a true minus.

    >>> signed(8.66), signed(-3.0), signed(-0.04)
    ('+8.7', '−3.0', '0.0')
    """
    rounded = round(points, 1)
    if rounded == 0:
        return "0.0"
    return f"{rounded:+.1f}".replace("-", "−")


def transfer_table(rows: Iterable[Row], title: str = "Transfer") -> Table:
    """Entries of `results.json` "transfer" as a table: each trained encoder's result above its controls.

    Rows that differ only in their seed are one line, mean ± standard deviation. Accuracies are shown in per cent,
    differences in percentage points over random weights with the same protocol (for fine-tuning: over training from
    scratch); ≈ marks those that the spread over seeds and the size of the test set do not tell from nothing.
    """
    lines = compare(rows)
    calibrated = any(line.ece is not None for line in lines)
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("encoder")  # the one column that may wrap: the marks of an encoder are long
    table.add_column("layer", min_width=6, no_wrap=True)
    for name in ("top-1", "top-5", "points", *(["ECE"] if calibrated else [])):
        table.add_column(name, justify="right", no_wrap=True)
    previous = None
    for line in lines:
        block = f"{line.data}, {line.protocol_name}, {line.labels_name}"
        if block != previous:
            if previous is not None:
                table.add_section()
            table.add_row(Text(block, style="cyan"))
            previous = block
        table.add_row(*_cells(line), *([Text(percent_text(line.ece))] if calibrated else []))
    if any(line.tone == "unclear" for line in lines):
        table.caption = Text("≈ within the noise", style="dim")
        table.caption_justify = "left"
    return table


def encoder_name(line: Comparison) -> str:
    """Whose features a line is about: `pretrained on cifar100`, `runs/a: pretrained`, `random weights`."""
    elsewhere = line.init != "random" and line.pretrained_on not in (None, "", line.data)
    name = init_name(line.init, line.protocol, line.sees, line.leaks, line.pretrained_on if elsewhere else None)
    return name if line.run is None else f"{line.run}: {name}"


def _cells(line: Comparison) -> list[Text]:
    style = "" if line.init == "random" else "bold"
    change = {"helped": "green", "hurt": "red", "unclear": "dim"}.get(line.tone, "")
    return [
        Text(f"  {encoder_name(line)}", style=style),
        Text(line.layer or "–"),
        Text(percent_text(line.top1, line.top1_sd), style=style),
        Text(percent_text(line.top5)),
        Text(points_text(line) + (" ≈" if line.tone == "unclear" else ""), style=change),
    ]
