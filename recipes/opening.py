"""How does a run's folder become a model again? Settings, palette, task and weights, read back."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..backbones import Preprocess, create_backbone
from ..colour import Palette
from ..pretext import TASKS, Painter, PretextModel, Task, create_task
from ..runtime.checkpoints import Checkpoints
from ..runtime.device import Compute
from ..runtime.errors import ArgumentError, PretintError, RunFolderError
from ..runtime.files import read_json
from ..runtime.runfolder import RunFolder
from .settings import PretrainConfig


@dataclass(frozen=True)
class Run:
    """A pretraining run, read from its folder.

    Attributes:
        folder: where it lies.
        config: the settings it was trained with.
        painter: its model with the best weights, and its task.
    """

    folder: RunFolder
    config: PretrainConfig
    painter: Painter


def open_run(path: Path, compute: Compute) -> Run:
    """Reads a run with its best weights.

    Raises:
        RunFolderError: the folder is no run, is damaged, or has no complete epoch.
    """
    folder = RunFolder.open(path)
    config = read_settings(folder)
    palette = read_palette(folder) if needs_palette(config.task) else None
    model, task = build_model(config, palette)
    Checkpoints(folder.checkpoints).load_best(model)
    return Run(folder, config, Painter(model, task, compute))


def read_settings(folder: RunFolder) -> PretrainConfig:
    """The settings in a run's `config.json`.

    Raises:
        RunFolderError: they are not settings of this version of Pretint.
    """
    settings: dict[str, Any] = folder.config["settings"]
    paths = {"out", "root"}
    known = {f.name for f in fields(PretrainConfig)}
    try:
        unknown = settings.keys() - known
        if unknown:
            raise RunFolderError(f"{folder.path} has settings that this Pretint does not know: {sorted(unknown)}.")
        values: dict[str, Any] = {k: Path(v) if k in paths and v is not None else v for k, v in settings.items()}
        return PretrainConfig(**values)
    except (TypeError, AttributeError, PretintError) as error:
        raise RunFolderError(f"{folder.path / 'config.json'} can't be used: {error}") from error


def read_palette(folder: RunFolder) -> Palette:
    """A run's palette.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        return Palette.from_dict(read_json(folder.palette))
    except ArgumentError as error:
        raise RunFolderError(f"{folder.palette} can't be used: {error}") from error


def needs_palette(task: str) -> bool:
    """Whether the task is made with a palette."""
    return "palette" in inspect.signature(TASKS[task]).parameters


def build_model(config: PretrainConfig, palette: Palette | None) -> tuple[PretextModel, Task]:
    """The network with fresh weights, and its task.

    Of the settings, each task is given those that it takes by name.
    """
    preprocess = Preprocess(in_chans=1, grey=config.grey)
    accepted = inspect.signature(TASKS[config.task]).parameters
    named = ("loss", "keep_luma", "bounded", "decode", "temperature", "predict_at")
    options: dict[str, Any] = {name: getattr(config, name) for name in named if name in accepted}
    if palette is not None:
        options["palette"] = palette
    task = create_task(config.task, preprocess, **options)
    sizes = {name: getattr(config, name) for name in ("width", "depth") if getattr(config, name) is not None}
    encoder = create_backbone(
        config.backbone, task.in_chans, config.stem, image_size=config.image_size, preprocess=preprocess, **sizes
    )
    return PretextModel(encoder, task.out_chans, task.predict_at, config.skips), task
