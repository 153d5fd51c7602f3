"""How does the report page open and close? The answer, the training, the settings and commands, as text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .comparison import grey_note, headline, own_rows
from .report_run import ReportRun
from .tables import percent_text, signed
from .transfer import TUNING


def answers(runs: Sequence[ReportRun]) -> list[dict[str, Any]]:
    """The answer of each run that has a pretext; a run that was judged and has none, such as labels or no training at all, is
    there to be compared with."""
    inits = {run.name: {row["init"] for row in run.transfer} for run in runs}
    return [answer(run) for run in runs if not inits[run.name] or "pretrained" in inits[run.name]]


def answer(run: ReportRun) -> dict[str, Any]:
    """Did the pretext help this run? Both accuracies, their difference, the tone: helped, hurt, unclear or missing."""
    line = headline(run.transfer)
    if line is None or line.points is None or line.control_top1 is None:
        return {"name": run.name, "tone": "missing", "command": run.command("probe"), "points": None}
    what = [line.protocol_name, line.data, line.labels_name] + ([f"leaks {line.leaks}"] if line.leaks else [])
    spread = f"{len(line.seeds)} seeds" if len(line.seeds) > 1 else "one seed"
    if line.margin is not None:
        spread += f"; the size of the test set alone gives ± {line.margin:.1f}"
    return {
        "name": run.name,
        "tone": line.tone,
        "points": line.points,
        "points_text": signed(line.points),
        "points_sd": None if line.points_sd is None else f"± {line.points_sd:.1f}",
        "what": ", ".join(what),
        "judged": (line.data, line.protocol, line.labels),
        "pretrained": percent_text(line.top1, line.top1_sd),
        "control": percent_text(line.control_top1),
        "control_name": "from scratch" if line.protocol in TUNING else "random weights",
        "pretrained_width": f"{100 * line.top1:.2f}",
        "control_width": f"{100 * line.control_top1:.2f}",
        "spread": spread,
    }


def verdict(answers: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The page's first sentence, and its tone: of the runs that were judged alike, if not all were by what most were."""
    compared = [each for each in answers if each["points"] is not None]
    ways = [each["judged"] for each in compared]
    measured = [each for each in compared if each["judged"] == max(ways, key=ways.count)]
    if not measured:
        text = "No pretext has a linear probe beside that of random weights."
        return {"tone": "missing", "word": "Not measured yet.", "text": text}
    best = max(measured, key=lambda each: each["points"])
    helped = sum(each["tone"] == "helped" for each in measured)
    spread = f" {best['points_sd']}" if best["points_sd"] else ""
    points = f"{signed(best['points'])}{spread} points"
    both = f"{best['pretrained']} against {best['control']} for {best['control_name']} ({best['what']})"
    word = {"helped": "Yes.", "hurt": "No.", "unclear": "Not clearly."}[best["tone"]]
    apart = len(compared) - len(measured)
    others = f" {apart} {'run was' if apart == 1 else 'runs were'} judged in another way, below." if apart else ""
    if len(measured) == 1:
        text = f"Pretraining changed the accuracy by {points}: {both}."
        return {"tone": best["tone"], "word": word, "text": text + others}
    text = f"Pretraining helped {helped} of {len(measured)} measured runs. Best: {best['name']}, {points}, {both}."
    return {"tone": best["tone"], "word": word, "text": text + others}


def comparison_notes(runs: Sequence[ReportRun]) -> list[str]:
    """What must be said before runs are compared."""
    seen = {run.name: {row.get("sees") for row in own_rows(run.transfer)} for run in runs}
    formulas = {
        run.name: str(run.config["grey"]) for run in runs if run.config.get("grey") and seen[run.name] != {"rgb"}
    }
    differing = grey_note(formulas)
    return [differing] if differing else []


def loss_panels(runs: Sequence[ReportRun]) -> dict[str, dict[str, Sequence[Mapping[str, Any]]]]:
    """Runs whose losses are the same quantity share a panel: same task, same palette settings."""
    panels: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for run in runs:
        if not _numbers(run.metrics, "train_loss") and not _numbers(run.metrics, "validation_loss"):
            continue
        task = str(run.config.get("task") or "task not recorded")
        palette = [f"{key} {value}" for key, value in sorted(run.config.items()) if _is_palette(key, value)]
        panels.setdefault(", ".join([task, *palette] if "palette" in task else [task]), {})[run.name] = run.metrics
    return panels


def _is_palette(key: str, value: Any) -> bool:
    return key in ("k", "colours") or (key.startswith("palette") and isinstance(value, (str, int, float)))


def training_rows(runs: Sequence[ReportRun]) -> list[dict[str, str]]:
    """What the training of each run came to: epochs, best validation loss and its epoch, speed."""
    rows = []
    for run in runs:
        losses = _numbers(run.metrics, "validation_loss")
        if not losses and not _numbers(run.metrics, "train_loss"):
            continue
        best = min(losses, key=lambda pair: pair[1], default=None)
        speed = [value for _, value in _numbers(run.metrics, "images_per_second")]
        rows.append(
            {
                "name": run.name,
                "epochs": str(len(run.metrics)),
                "loss": "–" if best is None else f"{best[1]:.4g}",
                "epoch": "–" if best is None else f"{best[0]:g}",
                "speed": f"{np.median(speed):,.0f}" if speed else "–",
            }
        )
    return rows


def _numbers(metrics: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(row.get("epoch") or 0), float(row[key])) for row in metrics if row.get(key) not in (None, "")]


# Not chosen but found: the command and what the run was made from stand apart from the settings.
_ORIGIN = ("command", "images", "data_fingerprint", "started", "versions")


def settings(runs: Sequence[ReportRun]) -> dict[str, Any]:
    """Settings that differ between the runs, and those that all share; and each run's exact commands."""
    flat = [_flat({key: value for key, value in run.config.items() if key not in _ORIGIN}) for run in runs]
    keys = list(dict.fromkeys(key for each in flat for key in each))
    table = [(key, [each.get(key, "–") for each in flat]) for key in keys]
    return {
        "different": [row for row in table if len(set(row[1])) > 1] if len(runs) > 1 else [],
        "same": [(key, values[0]) for key, values in table if len(set(values)) == 1 or len(runs) == 1],
        "commands": [{"name": run.name, "lines": _commands(run)} for run in runs],
        "origins": [{"name": run.name, "lines": _origin(run)} for run in runs],
    }


def _origin(run: ReportRun) -> list[tuple[str, str]]:
    """What a run was made from: its data with fingerprints, when, and the versions of what computed it."""
    known = {key: run.config[key] for key in _ORIGIN if key != "command" and run.config.get(key) is not None}
    judged = {f"fingerprint of {row['data']}": row["fingerprint"] for row in run.colour if row.get("fingerprint")}
    for row in run.transfer:
        splits = zip(("train", "test"), row.get("fingerprint") or (), strict=False)
        judged |= {f"fingerprint of {row['data']} ({split})": fingerprint for split, fingerprint in splits}
    return [(key.removeprefix("versions.").replace("_", " "), value) for key, value in _flat(known | judged).items()]


def _commands(run: ReportRun) -> list[str]:
    commands = [run.config.get("command"), *(row.get("command") for row in [*run.colour, *run.transfer])]
    words = [shlex.join(map(str, each)) if isinstance(each, (list, tuple)) else str(each) for each in commands if each]
    return list(dict.fromkeys(words))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            found[f"{prefix}{key}"] = "–" if value is None else text
    return found
