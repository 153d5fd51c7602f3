"""How does a run's folder become a model again? Settings, palette, task and weights, read back."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..backbones import Preprocess, create_backbone
from ..colour import Palette
from ..pretext import (
    OWN_AVERAGE,
    FrozenClassifier,
    HeadSettings,
    Painter,
    PretextModel,
    Task,
    build_model,
    check_takes_pair,
    create_task,
    decoder_width,
    leaked_labels,
    task_names,
    task_options,
    wants_pair,
)
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
    model, task = make_model(config, palette, int(folder.config.get("data", {}).get("classes", 0)))
    Checkpoints(folder.checkpoints).load_best(model)
    return Run(folder, config, Painter(model, task, compute))


def read_settings(folder: RunFolder) -> PretrainConfig:
    """The settings in a run's `config.json`.

    Raises:
        RunFolderError: they are not settings of this version of Pretint.
    """
    settings: dict[str, Any] = folder.config["settings"]
    paths = {"out", "root", "fusion_weights", "init_from"}
    known = {f.name for f in fields(PretrainConfig)}
    try:
        unknown = settings.keys() - known
        if unknown:
            raise RunFolderError(f"{folder.path} has settings that this Pretint does not know: {sorted(unknown)}.")
        values: dict[str, Any] = {k: Path(v) if k in paths and v is not None else v for k, v in settings.items()}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
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
    """Whether the task, or one of a combination, is made with a palette."""
    return "palette" in task_options(task)


def make_model(config: PretrainConfig, palette: Palette | None, classes: int = 0) -> tuple[PretextModel, Task]:
    """The network with fresh weights, also those of a classifier that helps it, and its task.

    Of the settings, each task is given those that it takes by name.

    Args:
        config: the run's settings.
        palette: for tasks that take one.
        classes: of the training images, for tasks that learn from labels.
    """
    preprocess = _preprocess(config)
    accepted = task_options(config.task)
    given = {name: getattr(config, name, None) for name in accepted}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if palette is not None:
        options["palette"] = palette
    if "classes" in accepted:
        options["classes"] = classes
    task = create_task(config.task, preprocess, config.task_weights, **options)
    named = ("width", "depth", "blocks")
    sizes = {name: getattr(config, name) for name in named if getattr(config, name) is not None}
    backbone = config.backbone
    if wants_pair(config.task) and not backbone.startswith("pair/"):
        backbone = f"pair/{backbone}"
    if backbone.startswith("pair/"):
        check_takes_pair(task)
    encoder = create_backbone(
        backbone, preprocess.in_chans, config.stem, image_size=config.image_size, preprocess=preprocess, **sizes
    )
    own_average = 0 if config.fusion == OWN_AVERAGE else None
    width = decoder_width(config.decoder, backbone, config.width)
    head = HeadSettings(config.skips, config.decoder, width, config.image_size, own_average)
    return build_model(task, encoder, head, _classifier(config, preprocess)), task


def _classifier(config: PretrainConfig, preprocess: Preprocess) -> FrozenClassifier | None:
    """The classifier whose output is fused, if there is one."""
    if config.fusion is None or leaked_labels(config.fusion) is None:
        return None
    mean, std = preprocess.normalisation[0]
    return FrozenClassifier(config.fusion, mean, std)


def _preprocess(config: PretrainConfig) -> Preprocess:
    """What the encoder of a run sees: grey, luma and chroma for pairs, RGB for super-resolution."""
    if wants_pair(config.task):
        return Preprocess(3, config.grey, chroma=config.chroma)
    in_chans = 3 if "superres" in task_names(config.task) else 1
    return Preprocess(in_chans, config.grey, config.input_mean, config.input_std)
