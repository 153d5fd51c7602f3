"""How does a run's folder become a model again? Settings, palette, task and weights, read back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..backbones import Preprocess, backbone_bytes, create_backbone, module_bytes
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
from ..runtime.errors import ArgumentError, PretintError, RunFolderError, UnknownNameError
from ..runtime.runfolder import RunFolder
from ..runtime.sealed import read_sealed
from ..runtime.words import shortened
from .kinds import from_plain
from .settings import PretrainConfig

_MOST_CLASSES = 1_000_000


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
    check_fits_weights(config, folder)
    try:
        model, task = make_model(config, palette, _classes(folder))
    except ArgumentError as error:
        raise RunFolderError(
            f"{path} describes a network that can't be made ({error}); restore its config.json."
        ) from error
    Checkpoints(folder.checkpoints).load_best(model)
    return Run(folder, config, Painter(model, task, compute))


def _classes(folder: RunFolder) -> int:
    """How many classes the training images had."""
    data = folder.config.get("data")
    classes = data.get("classes", 0) if isinstance(data, dict) else None
    if not isinstance(classes, int) or not 0 <= classes <= _MOST_CLASSES:
        raise RunFolderError(
            f"{folder.path / 'config.json'} can't be used: data.classes is no count; restore the file."
        )
    return classes


def check_fits_weights(config: PretrainConfig, folder: RunFolder) -> None:
    """Sizes that someone wrote into a run's `config.json` must not fill the machine: the network that they describe may take no
    more memory than the largest file of weights in the folder.

    Raises:
        RunFolderError: it would.
    """
    stored = max((path.stat().st_size for path in folder.checkpoints.rglob("*.safetensors")), default=None)
    if stored is None:
        return  # whoever reads the weights says so
    try:
        with torch.device("meta"):
            needed = backbone_bytes(
                _backbone(config), _preprocess(config).in_chans, config.stem, config.image_size, _sizes(config)
            )
            if config.fusion is not None and leaked_labels(config.fusion) is not None:
                needed += module_bytes(FrozenClassifier(config.fusion, 0.5, 0.25))
    except PretintError as error:
        raise RunFolderError(
            f"{folder.path} describes a network that can't be made ({error}); restore its config.json."
        ) from error
    if needed > stored:
        raise RunFolderError(
            f"{folder.path} describes a network of {needed} bytes, but its weights have {stored}; restore its config.json."
        )


def read_settings(folder: RunFolder) -> PretrainConfig:
    """The settings in a run's `config.json`.

    Raises:
        RunFolderError: they are not settings of this version of Pretint.
    """
    settings: dict[str, Any] = folder.config["settings"]
    try:
        return from_plain(PretrainConfig, settings)
    except PretintError as error:
        raise RunFolderError(f"{folder.path / 'config.json'} can't be used: {shortened(str(error), 1000)}") from error


def read_palette(folder: RunFolder) -> Palette:
    """A run's palette.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        return Palette.from_dict(read_sealed(folder.palette))
    except (ArgumentError, UnknownNameError) as error:
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
    backbone = _backbone(config)
    if backbone.startswith("pair/"):
        check_takes_pair(task)
    encoder = create_backbone(
        backbone,
        preprocess.in_chans,
        config.stem,
        image_size=config.image_size,
        preprocess=preprocess,
        **_sizes(config),
    )
    own_average = 0 if config.fusion == OWN_AVERAGE else None
    width = decoder_width(config.decoder, backbone, config.width)
    head = HeadSettings(config.skips, config.decoder, width, config.image_size, own_average)
    return build_model(task, encoder, head, _classifier(config, preprocess)), task


def _backbone(config: PretrainConfig) -> str:
    """The encoder's name; tasks of pairs have a pair of it."""
    paired = wants_pair(config.task) and not config.backbone.startswith("pair/")
    return f"pair/{config.backbone}" if paired else config.backbone


def _sizes(config: PretrainConfig) -> dict[str, int]:
    """The sizes of the encoder that are set."""
    return {name: value for name in ("width", "depth", "blocks") if (value := getattr(config, name)) is not None}


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
