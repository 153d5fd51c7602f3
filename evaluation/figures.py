"""How do losses, depths and confusions look? SVG figures as strings, for files of their own and for the report page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Integer
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..runtime.errors import ArgumentError
from .sheet import plain_label

# Twelve hues that stay apart for the common colour blindnesses and keep at least 3:1 on white and on near-black.
SERIES_COLOURS = (
    "#2f7fd1", "#d9661f", "#2a9a6b", "#c2528f", "#8a70d6", "#a88500",
    "#3f97ad", "#cf4a43", "#75872b", "#a76a4c", "#5e7f9e", "#8b8b8b",
)  # fmt: skip
# Text and axes are drawn in this grey (4.5:1 on white) and handed to CSS: a page that sets `color` on the svg
# recolours them.
_INK = "#767676"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it scales, can be selected, and takes the page's colour
    "text.parse_math": False,  # a run may be called "$x^$"
    "axes.unicode_minus": True,
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def loss_curves(panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], *, prefix: str = "loss") -> str:
    """Training and validation loss by epoch as an SVG string.

    `panels` maps a panel's title to its runs, and a run's name to its rows of metrics.csv (`epoch`, `train_loss`,
    `validation_loss`; numbers or their text). Losses of different tasks or palettes are different quantities: give
    each a panel of its own. One colour a run, solid for validation, dashed for training. Raises ArgumentError when no
    row holds a loss.
    """
    drawn = {
        title: {name: [_series(rows, key) for key in ("train_loss", "validation_loss")] for name, rows in runs.items()}
        for title, runs in panels.items()
    }
    if not any(epochs for runs in drawn.values() for curves in runs.values() for epochs, _ in curves):
        raise ArgumentError(
            "panels: got no row with epoch and train_loss or validation_loss; there is nothing to draw."
        )
    with matplotlib.rc_context(_STYLE):
        figure, axes = _stacked(len(drawn), height=3.0)
        for axis, (title, runs) in zip(axes, drawn.items(), strict=True):
            for index, (train, validation) in enumerate(runs.values()):
                colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
                _curve(axis, train, colour, "--", 1.3)
                _curve(axis, validation, colour, "-", 2.0)
            axis.set_title(plain_label(title, 70), loc="left", fontsize=10)
            axis.set_ylabel("loss")
            _epoch_axis(axis, [epoch for curves in runs.values() for epochs, _ in curves for epoch in epochs])
            _legend_below(axis, list(runs), ("validation", "training"), "epoch")
        return _svg(figure, prefix, "Training and validation loss by epoch")


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    pairs = [(row.get("epoch"), row.get(key)) for row in rows]
    numbers = [(float(x), float(y)) for x, y in pairs if x not in (None, "") and y not in (None, "")]
    finite = [(x, y) for x, y in numbers if np.isfinite(x) and np.isfinite(y)]
    return [x for x, _ in finite], [y for _, y in finite]


def _epoch_axis(axis: Axes, epochs: Sequence[float]) -> None:
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(set(epochs)) == 1:  # one epoch alone would be spread over a hundredth of an epoch
        axis.set_xlim(epochs[0] - 1, epochs[0] + 1)


def _curve(axis: Axes, points: tuple[list[float], list[float]], colour: str, style: str, width: float) -> None:
    if points[0]:
        # a single epoch would be an invisible line: points are marked while there are few
        marker = "o" if len(points[0]) <= 12 else None
        axis.plot(*points, style, color=colour, linewidth=width, marker=marker, markersize=3.5)


def depth_curves(
    series: Mapping[str, Mapping[str, float]],
    controls: Mapping[str, Mapping[str, float]] | None = None,
    supervised: Mapping[str, Mapping[str, float]] | None = None,
    *,
    title: str = "linear probe",
    prefix: str = "depth",
) -> str:
    """Accuracy by depth as an SVG string: {run: {layer: top-1}}, fractions of 1, of runs and their grey `controls`.

    Solid lines are pretrained, dashed lines of the same colour the control of the same run, dotted ones the same
    network trained with labels. Layers keep the order they are given in; those of one pooling are joined by a line, and
    hypercolumns, which are no depth, are diamonds. `title` says what of the accuracy is, for those who can't see it.
    Raises ArgumentError when there is nothing to draw.
    """
    kinds = (series, controls or {}, supervised or {})
    layers = list(dict.fromkeys(layer for kind in kinds for values in kind.values() for layer in values))
    if not layers:
        raise ArgumentError("series: got no layers; give {run: {layer: accuracy}}.")
    with matplotlib.rc_context(_STYLE):
        figure, (axis,) = _stacked(1, height=3.2)
        for values, look in _styled(kinds):
            for pooling in dict.fromkeys(layer.partition("/")[2] for layer in values):
                at = [each for each in layers if each in values and each.partition("/")[2] == pooling]
                single = [layer for layer in at if not layer.startswith(_HYPERCOLUMN)]
                points = [float(layers.index(each)) for each in single], [100 * values[each] for each in single]
                _curve(axis, points, *look)
                for layer in set(at) - set(single):
                    axis.plot(
                        layers.index(layer),
                        100 * values[layer],
                        "D",
                        color=look[0],
                        markersize=5,
                        fillstyle=_FILL[look[1]],
                    )
        names = [plain_label(layer, 16) for layer in layers]
        crowded = sum(map(len, names)) > _ROOM_FOR_LAYERS
        axis.set_xticks(range(len(layers)), names, **(_SLANTED if crowded else {}))
        axis.set_ylabel("top-1, %")
        _legend_below(axis, _names(kinds), _INITS[: 3 if supervised else 2], "layer", 0.42 if crowded else 0.17)
        return _svg(figure, prefix, f"Accuracy by layer: {title}")


def label_curves(
    series: Mapping[str, Mapping[float, tuple[float, float | None]]],
    controls: Mapping[str, Mapping[float, tuple[float, float | None]]] | None = None,
    supervised: Mapping[str, Mapping[float, tuple[float, float | None]]] | None = None,
    *,
    unit: str = "share of the training labels, %",
    title: str = "fine-tune",
    prefix: str = "labels",
) -> str:
    """Accuracy against the number of labels as an SVG string, on a logarithmic axis; lines as in `depth_curves`.

    Each maps {run: {labels: (mean top-1, standard deviation or None)}}, accuracies as fractions of 1, labels in the
    `unit` of the axis. A standard deviation becomes a bar of that half-length. Raises ArgumentError when there is
    nothing to draw.
    """
    kinds = (series, controls or {}, supervised or {})
    ticks = sorted({labels for kind in kinds for values in kind.values() for labels in values})
    if not ticks:
        raise ArgumentError("series: got no labels; give {run: {labels: (accuracy, spread)}}.")
    with matplotlib.rc_context(_STYLE):
        figure, (axis,) = _stacked(1, height=3.2)
        for values, look in _styled(kinds):
            at = sorted(values)
            _curve(axis, (at, [100 * values[x][0] for x in at]), *look)
            for x, mean, spread in ((x, *values[x]) for x in at):
                if spread is not None:
                    axis.errorbar(x, 100 * mean, 100 * spread, color=look[0], capsize=3, linewidth=1.0)
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        if len(ticks) == 1:  # a logarithmic axis of one number has no width
            axis.set_xlim(ticks[0] / 3, ticks[0] * 3)
        axis.set_ylabel("top-1, %")
        styles = ("pretrained", "random weights, or from scratch", "supervised")[: 3 if supervised else 2]
        _legend_below(axis, _names(kinds), styles, unit)
        return _svg(figure, prefix, f"Accuracy against the number of labels: {title}")


_INITS = ("pretrained", "random weights", "supervised")
_LINES = ("-", "--", ":")
_FILL: dict[str, Any] = {"-": "full", "--": "none", ":": "left"}
_ROOM_FOR_LAYERS = 56  # letters along the axis of a chart by depth
_SLANTED: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
_HYPERCOLUMN = "hypercolumn"  # what probes call all layers side by side


def _names(kinds: Sequence[Mapping[str, Any]]) -> list[str]:
    """The runs of a chart, each once."""
    return list(dict.fromkeys(name for kind in kinds for name in kind))


def _styled(kinds: Sequence[Mapping[str, Any]]) -> list[tuple[Any, tuple[str, str, float]]]:
    """Every curve with its colour (the run's), its line (what made the weights) and its width; controls first, below."""
    names = _names(kinds)
    return [
        (kind[name], (SERIES_COLOURS[index % len(SERIES_COLOURS)], line, 2.0 if line == "-" else 1.4))
        for kind, line in reversed(list(zip(kinds, _LINES, strict=True)))
        for index, name in enumerate(names)
        if name in kind
    ]


def confusion_matrix(
    counts: Integer[np.ndarray, "c c"] | Sequence[Sequence[int]],
    class_names: Sequence[str] | None = None,
    *,
    prefix: str = "confusion",
) -> str:
    """A confusion matrix as an SVG string: rows are true classes, columns predictions, cells per cent of their row.

    Up to 20 classes the cells carry their numbers and the axes their names; beyond that the picture of the cells
    remains.
    Raises ArgumentError for counts that are not square or names that do not fit.
    """
    matrix = np.asarray(counts, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ArgumentError(f"counts: got shape {matrix.shape}; a confusion matrix is square, classes by classes.")
    size = len(matrix)
    names = [plain_label(name, 16) for name in class_names] if class_names else [str(index) for index in range(size)]
    if len(names) != size:
        raise ArgumentError(f"class_names: got {len(names)} for {size} classes; give one name a class.")
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        side = 2.0 + 0.42 * size if size <= 20 else 6.0
        figure = Figure(figsize=(side + 0.4, side), layout="constrained")
        axis = figure.subplots()
        # one hue whose opacity is the share: it works on a white and on a black page, and text stays readable on it
        cells = np.zeros((size, size, 4))
        cells[..., :3] = (0x2F / 255, 0x7F / 255, 0xD1 / 255)
        cells[..., 3] = (0.62 if size <= 20 else 1.0) * np.sqrt(shares)
        axis.imshow(cells, interpolation="none", aspect="equal")
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        if size <= 20:
            axis.set_xticks(range(size), names, **_SLANTED)
            axis.set_yticks(range(size), names)
            _write_cells(axis, shares)
        return _svg(figure, prefix, "Confusion matrix, per cent of each true class")


def _write_cells(axis: Axes, shares: np.ndarray) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            weight = "bold" if row == column else "normal"
            axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8.5, fontweight=weight)


def _stacked(count: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(6.8, height * count), layout="constrained")
    axes = figure.subplots(count, 1, squeeze=False)
    return figure, list(axes[:, 0])


def _legend_below(axis: Axes, names: Sequence[str], styles: Sequence[str], xlabel: str, gap: float = 0.17) -> None:
    """One entry a run, and what solid and dashed mean; below the axes it hides nothing, however many runs there are.

    `gap` leaves room for the axis, as a share of the axes' height.
    """
    axis.set_xlabel(xlabel)
    lines = zip(_LINES, styles, strict=False)
    handles = [Line2D([], [], color=_INK, linestyle=line, label=what) for line, what in lines]
    for index, name in enumerate(names):
        colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
        handles.append(Line2D([], [], color=colour, linewidth=3, label=plain_label(name)))
    columns = 2 if max(map(len, names), default=0) <= 30 else 1
    figure = axis.figure
    assert isinstance(figure, Figure)
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(handles) // columns) + 4 * (gap - 0.17))
    axis.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(-0.05, -gap), ncols=columns, fontsize=9, borderaxespad=0
    )


def _svg(figure: Figure, prefix: str, title: str) -> str:
    """The figure as an SVG element for a page: ids of its own, the page's text colour, a transparent background."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": prefix}):  # the same figure is the same text
        # tight: a legend that needs more room than was reckoned makes the figure longer instead of being cut
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None},
            bbox_inches="tight",
            pad_inches=0.05,
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = text.replace(_INK, "currentColor")
    # dark on white, light on black where the file is looked at by itself; :where() leaves the last word to a page's
    # own rules
    scheme = (
        f"<style>:where(#{prefix}-figure){{color:#333}}"
        f"@media(prefers-color-scheme:dark){{:where(#{prefix}-figure){{color:#ddd}}}}</style>"
    )
    head, rest = text.split(">", 1)
    head = head.replace("<svg", f'<svg id="{prefix}-figure" role="img" aria-label="{escape(title)}" color="{_INK}"', 1)
    return f"{head}>{scheme}{rest}"
