"""What do the report's tables and figures of colour quality and transfer say? Numbers become text here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
    """Accuracy by depth, one figure per data and protocol: (title, pretrained, random), each {run: {layer: top-1}}."""
    figures: dict[str, tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]] = {}
    for run in runs:
        for row in run.transfer:
            layers = {str(layer): _layer_top1(value) for layer, value in (row.get("per_layer") or {}).items()}
            if layers:
                line = compare([row])[0]
                figure = figures.setdefault(f"{line.protocol_name}, {line.data}, {line.labels_name}", ({}, {}))
                figure[row["init"] == "random"].setdefault(run.name, layers)
    return [(title, pretrained, random) for title, (pretrained, random) in figures.items() if pretrained]


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


def _pairs(counts: np.ndarray, names: Sequence[str], most: int = 5) -> list[str]:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wrong = [(shares[i, j], i, j) for i in range(len(counts)) for j in range(len(counts)) if i != j and counts[i, j]]
    worst = sorted(wrong, reverse=True)[:most]
    return [f"{names[i]} taken for {names[j]} {percent_text(share)}" for share, i, j in worst]
