"""`pretint report`: runs side by side on one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

from ..evaluation import ReportRun, comparison_notes, transfer_table, write_report
from ..pretext import TASKS
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, RunFolderError
from ..runtime.npz import NPZ_DAMAGE, open_npz
from ..runtime.results import read_results
from ..runtime.runfolder import RunFolder
from .embedding import embed, read_embedding
from .opening import read_palette
from .options import Outcome


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write one self-contained page about one or more runs.

    Attributes:
        runs: the runs' folders.
        out: the HTML file; report.html in the first run's folder by default.
        embedding: map each run's test pictures by its encoder's features, for the page and for TensorBoard's projector; what
            was mapped once is shown from then on.
        root: cache folder of downloaded data sets, for --embedding; as the run was started by default.
        device: auto, cuda, mps or cpu, for --embedding.
        precision: auto, bf16 or fp32, for --embedding.
        json: print as JSON for programs.
    """

    runs: Positional[tuple[Path, ...]]
    out: Path | None = None
    embedding: bool = False
    root: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    json: bool = False

    def __post_init__(self) -> None:
        if not self.runs:
            raise ArgumentError("runs: none were named; name the folders of one or more runs.")


def report(config: ReportConfig) -> Outcome:
    """Writes the page and returns the runs' transfer results.

    Raises:
        RunFolderError: a folder is no run.
        ArgumentError: the output can't be a file, or a run is named twice.
    """
    folders = [RunFolder.open(path) for path in config.runs]
    if config.embedding:
        compute = Compute.choose(config.device, config.precision)
        for folder in folders:
            embed(folder, compute, config.root)
    runs = [_report_run(folder, folders) for folder in folders]
    path = write_report(runs, config.out or folders[0].path / "report.html")
    rows = {str(folder.path): read_results(folder.path)["transfer"] for folder in folders}
    tables = [transfer_table(found, f"Transfer: {name}") for name, found in rows.items() if found]
    return Outcome(
        {"report": str(path), "transfer": rows},
        tables,
        [*(f"Note: {note}" for note in comparison_notes(runs)), f"Report: {path}"],
    )


def _report_run(folder: RunFolder, all_runs: list[RunFolder]) -> ReportRun:
    """A run by its folder's name, or by its path where two folders have the same name."""
    names = [other.name for other in all_runs]
    about = folder.config
    settings: dict[str, Any] = about["settings"]
    extra = {key: about.get(key) for key in ("command", "started", "versions") if about.get(key)}
    data = about.get("data") or {}
    return ReportRun(
        name=folder.name if names.count(folder.name) == 1 else str(folder.path),
        config=settings | extra | {"data_fingerprint": data.get("fingerprint"), "images": data.get("images")},
        results=read_results(folder.path),
        metrics=folder.read_metrics(),
        pictures=_pictures(folder),
        extremes=_read(folder.figures / "extremes.npz", "delta_e2000"),
        palette=read_palette(folder).colours().numpy() if folder.palette.is_file() else None,
        embedding=read_embedding(folder),
        folder=str(folder.path),
        paints=_paints(str(settings.get("task"))),
    )


def _paints(task: str) -> bool:
    """Whether a task, or one of a combination, paints; of one that somebody else has registered nothing is known."""
    return any(name not in TASKS or hasattr(TASKS[name], "paint") for name in task.split("+"))


def _pictures(folder: RunFolder) -> dict[str, Any] | None:
    """What the best weights painted, and what was painted after some epochs, of the same pictures."""
    pictures = _read(folder.figures / "pictures.npz")
    if pictures is None:
        return None
    epochs = sorted(folder.figures.glob("epoch-[0-9][0-9][0-9][0-9].npz"))
    found = {int(path.stem.split("-")[1]): _read(path) for path in epochs}
    return pictures | {"history": {epoch: arrays["painted"] for epoch, arrays in found.items() if arrays is not None}}


def _read(path: Path, *further: str) -> dict[str, np.ndarray] | None:
    """The pictures of a file, with `confidence` where it has that; None where there is no file."""
    if not path.is_file():
        return None
    try:
        with open_npz(path) as file:
            optional = ["confidence"] if "confidence" in file.files else []
            return {name: file[name] for name in ("grey", "painted", "true", *further, *optional)}
    except NPZ_DAMAGE as error:
        raise RunFolderError(f"{path} can't be read ({error}); run pretint evaluate, or delete it.") from None
