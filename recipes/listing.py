"""`pretint runs`: which runs there are, and what they reached. Does without torch, so it answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from tyro.conf import Positional

from ..runtime.results import read_results
from ..runtime.runfolder import RunFolder, find_runs
from .options import Outcome


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    """List runs with their task, data and accuracies.

    Attributes:
        folder: where to look, also in sub-folders.
        json: print as JSON for programs.
    """

    folder: Positional[Path] = Path("runs")
    json: bool = False


def runs(config: RunsConfig) -> Outcome:
    """All runs below a folder.

    Raises:
        RunFolderError: the folder is missing.
    """
    rows = [_summary(run) for run in find_runs(config.folder)]
    table = Table("run", "task", "data", "backbone", "epochs", "bits/pixel", "linear top-1", "fine-tune top-1")
    for row in rows:
        shown = [row["run"], row["task"], row["data"], row["backbone"], row["epochs"], row["bits_per_pixel"]]
        table.add_row(*map(_text, shown), _percent(row["linear_top1"]), _percent(row["finetune_top1"]))
    lines = [] if rows else [f"No runs below {config.folder}; pretint pretrain --out {config.folder}/NAME makes one."]
    return Outcome({"runs": rows}, [table] if rows else [], lines)


def _summary(run: RunFolder) -> dict[str, Any]:
    settings, results = run.config["settings"], read_results(run.path)
    colour = results["colour"][0] if results["colour"] else {}
    return {
        "run": str(run.path),
        **{key: settings.get(key) for key in ("task", "data", "backbone")},
        "epochs": len(run.read_metrics()),
        "bits_per_pixel": colour.get("bits_per_pixel"),
        "linear_top1": _best(results, "linear"),
        "finetune_top1": _best(results, "finetune"),
    }


def _best(results: dict[str, Any], protocol: str) -> float | None:
    """The pretrained encoder's accuracy with most labels, of the newest entry."""
    rows = [r for r in results["transfer"] if r.get("protocol") == protocol and r.get("init") == "pretrained"]
    return max(rows, key=lambda r: r.get("labels") or 0)["top1"] if rows else None


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
