"""What do the report's tables and figures of colour quality and transfer say? Numbers become text here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .calibration import most_confused
from .report_run import ReportRun
from .tables import (
    COLOUR_BASELINES,
    COLOUR_METRICS,
    baseline_value,
    colour_title,
    encoder_name,
    percent_text,
    points_text,
)
from .transfer import Comparison, compare, own_rows


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
    """Transfer tables: one block per data, protocol and share of labels, each run above its own grey controls."""
    blocks: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        for line in compare(run.transfer):
            key = (line.data, line.protocol_name, line.labels_name)
            blocks.setdefault(key, []).append(_transfer_row(run, line))
    return [{"title": ", ".join(key), "rows": rows} for key, rows in blocks.items()]


def _transfer_row(run: ReportRun, line: Comparison) -> dict[str, Any]:
    return {
        "run": run.name,
        "encoder": encoder_name(line),
        "kind": "baseline" if line.init == "random" else "run",
        "layer": line.layer or "–",
        "seeds": ", ".join(map(str, line.seeds)),
        "top1": percent_text(line.top1, line.top1_sd),
        "top5": percent_text(line.top5),
        "points": points_text(line),
        "tone": line.tone,
    }


def depths(runs: Sequence[ReportRun]) -> list[tuple[str, dict[str, dict[str, float]], dict[str, dict[str, float]]]]:
    """Accuracy by depth, one figure per data and protocol: (title, pretrained, random), each {series: {layer: top-1}}.

    A layer's accuracy is the mean over seeds. Encoders that learnt from labels are series of their own.
    """
    figures: dict[str, tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, list[float]]]]] = {}
    for run in runs:
        for row in run.transfer:
            if not row.get("per_layer"):
                continue
            line = compare([row])[0]
            figure = figures.setdefault(f"{line.protocol_name}, {line.data}, {line.labels_name}", ({}, {}))
            series = figure[line.init == "random"].setdefault(_series_name(run, line), {})
            for layer, value in row["per_layer"].items():
                series.setdefault(str(layer), []).append(_layer_top1(value))
    means = {title: tuple(map(_means, figure)) for title, figure in figures.items()}
    return [(title, trained, random) for title, (trained, random) in means.items() if trained]


def _series_name(run: ReportRun, line: Comparison) -> str:
    """A curve's name: the run's for its own encoder and the control, with a mark for encoders that learnt from labels."""
    return run.name if line.init in ("pretrained", "random") else f"{run.name}: {encoder_name(line)}"


def _means(series: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    return {
        name: {layer: float(np.mean(values)) for layer, values in layers.items()} for name, layers in series.items()
    }


Shares = dict[str, dict[float, tuple[float, float | None]]]


def label_shares(runs: Sequence[ReportRun]) -> list[tuple[str, str, Shares, Shares]]:
    """Accuracy against labels, one figure per data and protocol: (title, unit, trained, random), for `label_curves`.

    Fine-tuning always has one; of the other protocols those that were measured with two or more numbers of labels.
    """
    figures: dict[tuple[str, str, str], tuple[Shares, Shares]] = {}
    for run in runs:
        for line in compare(run.transfer):
            few = line.protocol == "fewshot"
            key = (line.protocol, f"{line.protocol_name}, {line.data}", "images a class" if few else "labels used, %")
            series = figures.setdefault(key, ({}, {}))[line.init == "random"].setdefault(_series_name(run, line), {})
            series[line.labels if few else 100 * line.labels] = (line.top1, line.top1_sd)
    return [
        (title, unit, trained, random)
        for (protocol, title, unit), (trained, random) in figures.items()
        if trained and (protocol == "finetune" or len({labels for s in trained.values() for labels in s}) > 1)
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
        shown = {"counts": counts, "class_names": names, "pairs": _pairs(counts, names)}
        found.append({"name": run.name, "title": title, **shown})
    return found


def _pairs(counts: np.ndarray, names: Sequence[str]) -> list[str]:
    return [
        f"{pair.true} taken for {pair.predicted} {percent_text(pair.share)}" for pair in most_confused(counts, names)
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
