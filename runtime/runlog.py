"""How do people follow a run? `metrics.csv`, TensorBoard, and a progress bar (plain lines when there is no terminal)."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch.utils.tensorboard import SummaryWriter

from .files import read_json, write_atomically, write_json
from .processes import is_main
from .progress import WorkProgress
from .runfolder import RunFolder

_MOST_RECORDS = 1000


class RunLog:
    """Writes what happens during a run; a context manager. Of several processes the main one alone writes and shows anything.

    Args:
        folder: the run's folder, or None to write no files (fine-tuning inside another verb).
        title: what the progress bar is called.
        total_steps: optimiser steps in all.
        keep_epochs: rows of an existing `metrics.csv` up to and with this epoch stay (resume); 0 starts afresh.
        quiet: no progress at all.
    """

    def __init__(
        self, folder: RunFolder | None, title: str, total_steps: int, keep_epochs: int = 0, quiet: bool = False
    ):
        folder, quiet = (folder, quiet) if is_main() else (None, True)
        self._rows: list[dict[str, float | int]] = (
            [] if folder is None else [r for r in folder.read_metrics() if r.get("epoch", 0) <= keep_epochs]
        )
        self._folder = folder
        self._writer = None if folder is None else SummaryWriter(str(folder.tensorboard), purge_step=keep_epochs + 1)
        self._title, self._total = title, total_steps
        self._progress = WorkProgress(title, total_steps, quiet)

    def __enter__(self) -> RunLog:
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._writer is not None:
            self._writer.close()

    def step(self, step: int, loss: float, images_per_second: float, seconds_left: float) -> None:
        """Shows where the run is; called a few times a second at most."""
        state = f"loss {loss:.4f} · {images_per_second:,.0f} images/s"
        line = f"step {step}/{self._total} · {state} · {seconds_left / 60:.1f} min left"
        self._progress.show(step, line, note=state)

    def say(self, line: str) -> None:
        """Prints one line beside the bar, to standard error."""
        self._progress.say(line)

    def epoch(self, row: dict[str, float | int]) -> None:
        """Records an epoch's row (`epoch` counts from 1) in `metrics.csv` and TensorBoard and prints it."""
        self._rows.append(row)
        words = [f"{name.replace('_', ' ')} {_short(value)}" for name, value in row.items() if name != "epoch"]
        self.say(f"{self._title}: epoch {row['epoch']:.0f} · " + " · ".join(words))
        if self._folder is None or self._writer is None:
            return
        write_atomically(self._folder.metrics, _as_csv(self._rows))
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def not_finite(self, record: dict[str, Any]) -> str:
        """Keeps which images a step saw whose numbers were not finite, in `nonfinite.json`; a record of the same step gives way.

        Returns:
            Where to look, as the end of a sentence; empty without a folder.
        """
        if self._folder is None:
            return ""
        path = self._folder.nonfinite
        records = read_json(path)["steps"] if path.is_file() else []
        records = [one for one in records if one["step"] != record["step"]][-_MOST_RECORDS + 1 :]
        write_json(path, {"steps": [*records, record]})
        return f" (its images are listed in {path})"

    def picture(self, name: str, picture: np.ndarray, epoch: int) -> None:
        """Adds a picture (h, w, 3) uint8 to TensorBoard."""
        if self._writer is not None:
            self._writer.add_image(name, picture, epoch, dataformats="HWC")


def write_projector(
    folder: RunFolder,
    features: Float[np.ndarray, "n d"],
    thumbnails: UInt8[np.ndarray, "n 3 side side"],
    labels: Sequence[str],
) -> None:
    """Gives TensorBoard's projector a run's features, each with its picture and its class; replaces what was there.

    It lies in a folder of its own, since the projector's files take no second writing.
    """
    place = folder.tensorboard / "embedding"
    shutil.rmtree(place, ignore_errors=True)
    words = [" ".join(label.split()) or "–" for label in labels]  # the labels' file has one a line
    with SummaryWriter(str(place)) as writer:
        writer.add_embedding(
            torch.from_numpy(features), metadata=words, label_img=torch.from_numpy(thumbnails).float() / 255, tag="test"
        )


def _short(value: float | int) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _as_csv(rows: list[dict[str, float | int]]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def note(line: str) -> None:
    """One line for the person at the terminal, on standard error, so that standard output stays for results; of several
    processes the main one alone says it."""
    if is_main():
        print(line, file=sys.stderr, flush=True)
