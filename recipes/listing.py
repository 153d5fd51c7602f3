"""`pretint runs`: which runs there are, and what they reached. Does without torch, so it answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from tyro.conf import Positional

from ..runtime.errors import RunFolderError
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
    rows, damaged = [], []
    for run in find_runs(config.folder):
        try:
            rows.append(_summary(run))
        except RunFolderError as error:
            damaged.append(str(error))
    table = Table("run", "task", "data", "backbone", "epochs", "bits/pixel", "linear top-1", "fine-tune top-1")
    for row in rows:
        shown = [row["run"], row["task"], row["data"], row["backbone"], row["epochs"], row["bits_per_pixel"]]
        table.add_row(*map(_text, shown), _percent(row, "linear"), _percent(row, "finetune"))
    lines = [] if rows else [f"No runs below {config.folder}; pretint pretrain --out {config.folder}/NAME makes one."]
    return Outcome({"runs": rows, "damaged": damaged}, [table] if rows else [], [*lines, *damaged])


def _summary(run: RunFolder) -> dict[str, Any]:
    settings, results = run.config["settings"], read_results(run.path)
    colour = results["colour"][0] if results["colour"] else {}
    return {
        "run": str(run.path),
        **{key: settings.get(key) for key in ("task", "data", "backbone")},
        "epochs": len(run.read_metrics()),
        "bits_per_pixel": colour.get("bits_per_pixel"),
        **{
            f"{protocol}_{key}": value
            for protocol in ("linear", "finetune")
            for key, value in _best(results, protocol).items()
        },
    }


def _best(results: dict[str, Any], protocol: str) -> dict[str, Any]:
    """The run's encoder's accuracy with most labels, of the first data set it was judged on, and that data set."""
    rows = [r for r in results["transfer"] if r.get("protocol") == protocol]
    own = [r for r in rows if r.get("init") != "random"] or rows  # a run that trained nothing is its own control
    best = max(own, key=lambda r: r.get("labels") or 0, default={})
    return {"top1": best.get("top1"), "data": best.get("data")}


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _percent(row: dict[str, Any], protocol: str) -> str:
    value = row[f"{protocol}_top1"]
    return "–" if value is None else f"{100 * value:.1f} % on {row[f'{protocol}_data']}"
