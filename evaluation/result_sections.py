"""What do the report's tables and figures of colour quality and transfer say? Numbers become text here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .calibration import most_confused, per_class_accuracy
from .comparison import Comparison, compare, input_seen, own_rows
from .feature_tables import FEATURE_FIGURES, feature_lines
from .report_run import ReportRun
from .tables import (
    COLOUR_BASELINES,
    COLOUR_METRICS,
    MOST_CLASSES,
    baseline_value,
    class_lines,
    colour_title,
    encoder_name,
    percent_text,
    points_text,
)
from .transfer import TUNING


def colour_groups(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """Colour tables: entries on the same data, split, palette and resolution share one, above their baselines."""
    groups: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for run in runs:
        for entry in run.colour:
            groups.setdefault(colour_title(entry), []).append((run.name, entry))
    return [_colour_group(title, entries) for title, entries in groups.items()]


def _colour_group(title: str, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    metrics = [metric for metric in COLOUR_METRICS if any(entry.get(metric.key) is not None for _, entry in entries)]
    rows = [
        {"name": name, "kind": "run", "cells": [metric.text(entry.get(metric.key)) for metric in metrics]}
        for name, entry in entries
    ]
    # fitted palettes may differ a little between runs, and baselines with them: equal lines are shown once
    seen = set()
    for baseline, label in COLOUR_BASELINES.items():
        for name, entry in entries:
            values = [baseline_value(entry, metric, baseline) for metric in metrics]
            cells = tuple(metric.text(value) for metric, value in zip(metrics, values, strict=True))
            if (baseline, cells) in seen or all(value is None for value in values):
                continue
            first = not any(known == baseline for known, _ in seen)
            seen.add((baseline, cells))
            rows.append({"name": label if first else f"{label} ({name})", "kind": "baseline", "cells": list(cells)})
    return {"title": title, "columns": [metric.title for metric in metrics], "rows": rows}


def transfer_blocks(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """Transfer tables: one block per data, protocol and share of labels, each run above its own grey controls.

    A control that several runs share is one row.
    """
    blocks: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        for line in compare(run.transfer):
            rows = blocks.setdefault((line.data, line.protocol_name, line.labels_name), [])
            row = _transfer_row(line)
            known = [each for each in rows if row["kind"] == "baseline" and each["cells"] == row["cells"]]
            if known:
                known[0]["runs"].append(run.name)
            else:
                rows.append(row | {"runs": [run.name]})
    return [
        {
            "title": ", ".join(key),
            "calibrated": any(row["ece"] != "–" for row in rows),
            "rows": [row | {"run": _together(row["runs"])} for row in rows],
        }
        for key, rows in blocks.items()
    ]


def _transfer_row(line: Comparison) -> dict[str, Any]:
    cells = {
        "encoder": encoder_name(line),
        "layer": line.layer or "–",
        "seeds": ", ".join(map(str, line.seeds)),
        "top1": percent_text(line.top1, line.top1_sd),
        "top5": percent_text(line.top5),
        "points": points_text(line) + (" ≈" if line.tone == "unclear" else ""),
        "ece": percent_text(line.ece),
    }
    return {**cells, "cells": cells, "kind": "baseline" if line.init == "random" else "run", "tone": line.tone}


def _together(names: Sequence[str]) -> str:
    """Whose a shared control is: the runs' names, while a legend has room for them, or how many."""
    joined = ", ".join(names)
    if len(names) > 3:
        return f"{len(names)} runs"
    return joined if len(names) == 1 or len(joined) <= _ROOM else f"{names[0]} and {len(names) - 1} more"


_ROOM = 40  # letters
_SEES = ": "  # between a curve's run and what its encoder sees
Curves = dict[str, dict[str, float]]
Shares = dict[str, dict[float, tuple[float, float | None]]]


def depths(runs: Sequence[ReportRun]) -> list[tuple[str, Curves, Curves, Curves]]:
    """Accuracy by depth, one figure per data and protocol: (title, pretrained, random, supervised), as `depth_curves` takes them.

    A layer's accuracy is the mean over seeds. Encoders of one run that see different things are curves of their own, and
    controls that several runs share are one.
    """
    figures: dict[str, tuple[dict[str, dict[str, list[float]]], ...]] = {}
    for run in runs:
        for row in run.transfer:
            if row.get("per_layer"):
                line = compare([row])[0]
                title = f"{line.protocol_name}, {line.data}, {line.labels_name}"
                series = figures.setdefault(title, ({}, {}, {}))[_kind(line)].setdefault(_curve_name(run, line), {})
                for layer, value in row["per_layer"].items():
                    series.setdefault(str(layer), []).append(_layer_top1(value))
    found = []
    for title, (trained, random, supervised) in figures.items():
        if trained or supervised:
            found.append((title, _means(trained), _shared(_means(random)), _shared(_means(supervised))))
    return found


def _kind(line: Comparison) -> int:
    """Where a line belongs in a chart: 0 pretrained, 1 random weights, 2 learnt from labels."""
    return {"pretrained": 0, "random": 1}.get(line.init, 2)


def _curve_name(run: ReportRun, line: Comparison) -> str:
    """The run, and what the encoder sees if that is not the grey picture: accuracies from more than grey are another matter."""
    sees = input_seen(line)
    return run.name if sees == "grey" else f"{run.name}{_SEES}{sees}"


def _means(series: Mapping[str, Mapping[str, Sequence[float]]]) -> Curves:
    return {
        name: {layer: float(np.mean(values)) for layer, values in layers.items()} for name, layers in series.items()
    }


def _shared(series: dict[str, Any]) -> dict[str, Any]:
    """Controls that are the same for several runs, once, by all their names."""
    names: dict[tuple[str, str], list[str]] = {}
    for name, values in series.items():
        sees = name.rpartition(_SEES)[2] if _SEES in name else ""
        names.setdefault((sees, repr(sorted(values.items()))), []).append(name)
    shared: dict[str, Any] = {}
    for (sees, _), of in names.items():
        name = _together(of) if len(of) <= 3 or not sees else f"{_together(of)}{_SEES}{sees}"
        # runs of several architectures may come in equal numbers
        shared[name if name not in shared else f"{name} ({of[0]}, …)"] = series[of[0]]
    return shared


def label_shares(runs: Sequence[ReportRun]) -> list[tuple[str, str, tuple[Shares, Shares, Shares]]]:
    """Accuracy against labels, one figure per data and protocol: (title, unit, what `label_curves` takes).

    Fine-tuning always has one; of the other protocols those that were measured with two or more numbers of labels.
    """
    figures: dict[tuple[str, str, str], tuple[Shares, Shares, Shares]] = {}
    for run in runs:
        for line in compare(run.transfer):
            few = line.protocol == "fewshot"
            key = (line.protocol, f"{line.protocol_name}, {line.data}", "images a class" if few else "labels used, %")
            series = figures.setdefault(key, ({}, {}, {}))[_kind(line)].setdefault(_curve_name(run, line), {})
            series[line.labels if few else 100 * line.labels] = (line.top1, line.top1_sd)
    return [
        (title, unit, (kinds[0], _shared(kinds[1]), _shared(kinds[2])))
        for (protocol, title, unit), kinds in figures.items()
        if (kinds[0] or kinds[2])
        and (protocol in TUNING or len({x for kind in kinds for run in kind.values() for x in run}) > 1)
    ]


def _layer_top1(value: Any) -> float:
    return float(value["test_top1"] if isinstance(value, Mapping) else value)


def confusions(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """The confusion matrix of the most telling result of each run's encoder that has one, and its most confused pairs."""
    found = []
    for run in runs:
        rows = [row for row in own_rows(run.transfer) if row.get("confusion")]
        if not rows:
            continue
        row = min(rows, key=lambda each: (each["protocol"] != "linear", -float(each.get("labels") or 1)))
        line = compare([row])[0]
        counts = np.asarray(row["confusion"])
        names = [str(name) for name in row.get("class_names") or range(len(counts))]
        title = f"{line.protocol_name}, {line.data}, {line.labels_name}, seed {line.seeds[0]}"
        shown = {"counts": counts, "class_names": names, "pairs": _pairs(counts, names), "right": _right(counts, names)}
        found.append({"name": run.name, "title": title, **shown})
    return found


def _pairs(counts: np.ndarray, names: Sequence[str]) -> list[str]:
    return [
        f"{pair.true} taken for {pair.predicted} {percent_text(pair.share)}" for pair in most_confused(counts, names)
    ]


def _right(counts: np.ndarray, names: Sequence[str]) -> list[str]:
    """How many of each class are right, the worst first; the ends alone where there are many classes."""
    shares = zip(per_class_accuracy(counts), names, strict=True)
    told = [f"{name} {percent_text(share)}" for share, name in sorted(pair for pair in shares if pair[0] is not None)]
    return told if len(told) <= 2 * MOST_CLASSES else [*told[:MOST_CLASSES], "…", *told[-MOST_CLASSES:]]


def class_colours(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """How far colourfulness is off by class, for each run's labelled data with two classes or more."""
    return [
        {"title": f"{run.name}: {colour_title(entry)}", "rows": lines}
        for run in runs
        for entry in run.colour
        if len(lines := class_lines(entry)) > 1
    ]


def feature_groups(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """The health of features: a table for each data set, a row for each encoder and layer; shared controls once."""
    groups: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for run in runs:
        for entry in run.features:
            groups.setdefault(str(entry["data"]), {})
        for data in groups:
            for line in feature_lines(entry for entry in run.features if entry["data"] == data):
                groups[data].setdefault(line, []).append(run.name)
    return [
        {
            "title": data,
            "columns": FEATURE_FIGURES,
            "rows": [(_together(names), *line) for line, names in lines.items()],
        }
        for data, lines in groups.items()
    ]


def palette_confusions(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """Which palette colours are painted for which: the first colour entry of each run that has counts, darkest colour first."""
    found = []
    for run in runs:
        colours = None if run.palette is None else np.asarray(run.palette)
        entry = next((each for each in run.colour if each.get("confusion")), None)
        if entry is None or colours is None or len(entry["confusion"]) != len(colours):
            continue
        # seen lightness, roughly: only the order of rows hangs on it
        order = np.argsort(colours @ np.array((0.299, 0.587, 0.114)), kind="stable")
        counts = np.asarray(entry["confusion"])[order][:, order]
        found.append({"name": run.name, "title": colour_title(entry), "counts": counts, "colours": colours[order]})
    return found
